"""Beyond the paper: how far each method is from the best that can be known."""

from __future__ import annotations

from hyperdpo.comparison.entries import Entry
from hyperdpo.experiments.experiment import (
    ALL_METHODS,
    HYPERDPO_MIXTURE,
    HYPERDPO_PAPER,
    LIGHTGBM_LS,
    SPARSE_PAIR,
    Experiment,
    paper_settings,
)

EXPERIMENTS = (
    Experiment(
        name="oracle",
        title="An honest look: the attainable front",
        question="Generated data has a known front: the closed form with the labels' expectations. Which part of its "
        "hypervolume does each method attain, and what does it lose at each w?",
        paper_says="Not in the paper.",
        entries=(
            HYPERDPO_PAPER,
            Entry("HyperDPO augmentation", "hyperdpo", paper_settings(parametrization="augmentation")),
            HYPERDPO_MIXTURE,
            *ALL_METHODS[2:],
            LIGHTGBM_LS,
        ),
        charts=("front", "regret", "hypervolumes"),
        positions=SPARSE_PAIR,
    ),
)
