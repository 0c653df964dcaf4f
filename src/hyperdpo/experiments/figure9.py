"""Figure 9: depth of the hypernetwork, from scratch and as an augmentation of the base."""

from __future__ import annotations

from hyperdpo.comparison.entries import Entry
from hyperdpo.experiments.experiment import HYPERDPO_MIXTURE, SPARSE_PAIR, Experiment, paper_settings

DEPTHS = (1, 2, 3, 4, 5)


def _panel(letter: str, parametrization: str, what: str, says: str) -> Experiment:
    entries = (
        Entry(
            f"depth {depth}",
            "hyperdpo",
            paper_settings(parametrization=parametrization, scorer={"layers": depth}),
            scales=(),
            dense=False,
        )
        for depth in DEPTHS
    )
    return Experiment(
        name=f"figure9{letter}",
        title=f"Figure 9{letter}: depth, {what}",
        question="How deep must the network be that knows every weighting? "
        "The mixture (of the configured depth) stands beside as a reference.",
        paper_says=says,
        entries=(*entries, HYPERDPO_MIXTURE),
        charts=("front", "hypervolumes"),
        positions=SPARSE_PAIR,
    )


EXPERIMENTS = (
    _panel(
        "a",
        "scratch",
        "hypernetwork from scratch",
        "Depth helps much at first, then saturates; the width of the front does not change.",
    ),
    _panel(
        "b",
        "augmentation",
        "augmentation hypernetwork",
        "Roughly better than from scratch at the same depth, with the same trend.",
    ),
)
