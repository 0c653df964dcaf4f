"""Figure 10: the temperature scaled after training."""

from __future__ import annotations

from dataclasses import replace

from hyperdpo.experiments.experiment import (
    DENSE_PAIR,
    HYPERDPO_MIXTURE,
    HYPERDPO_PAPER,
    SPARSE_PAIR,
    Experiment,
)

#: The paper's are in the picture only; these are ours.
SCALES = (0.5, 0.67, 1.5, 2.0, 4.0)


def _panel(letter: str, positions: tuple[int, ...], what: str, says: str) -> Experiment:
    return Experiment(
        name=f"figure10{letter}",
        title=f"Figure 10{letter}: scale c after training, objectives {what}",
        question="Does a scale c > 1 move the whole front towards the base, and the main objective, without training?",
        paper_says=says,
        entries=tuple(replace(entry, scales=SCALES, dense=False) for entry in (HYPERDPO_PAPER, HYPERDPO_MIXTURE)),
        charts=("scales",),
        positions=positions,
    )


EXPERIMENTS = (
    _panel(
        "a",
        SPARSE_PAIR,
        "I and II",
        "As β rises the main objective gains, but the fronts shift in an unexpected pattern.",
    ),
    _panel(
        "b",
        DENSE_PAIR,
        "IV and V",
        "As β rises the front shifts towards the main objective, as expected.",
    ),
)
