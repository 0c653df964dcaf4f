"""Beyond the paper: how much data each method needs."""

from __future__ import annotations

from hyperdpo.experiments.experiment import ALL_METHODS, LIGHTGBM_LS, SPARSE_PAIR, Experiment

EXPERIMENTS = (
    Experiment(
        name="groups",
        title="An honest look: 100, 1,000 and 10,000 training groups",
        question="One conditioned model shares its data between all weightings. Does that help where data is short? "
        "Training groups are nested, validation and test groups the same.",
        paper_says="Not in the paper, which has 6,000 training groups.",
        entries=(*ALL_METHODS, LIGHTGBM_LS),
        charts=("sweep",),
        positions=SPARSE_PAIR,
        vary="groups",
        values=(100, 1000, 10_000),
        small_values=(8, 24),
        queries=12_500,
        generated={"split": {"train": 0.8, "validation": 0.1, "test": 0.1}},
    ),
)
