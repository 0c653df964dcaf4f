"""Figure 6: the concentration α of the Dirichlet distribution that w is drawn from."""

from __future__ import annotations

from collections.abc import Mapping

from hyperdpo.comparison.entries import Entry
from hyperdpo.experiments.experiment import HYPERDPO_MIXTURE, SPARSE_PAIR, Experiment, paper_settings

Alphas = tuple[float, float]

#: The hypervolumes beside each panel.
EQUAL: dict[Alphas, float] = {
    (0.2, 0.2): 0.1446,
    (0.4, 0.4): 0.1445,
    (0.6, 0.6): 0.1471,
    (0.8, 0.8): 0.1473,
    (1.0, 1.0): 0.1463,
}
SECOND: dict[Alphas, float] = {
    (0.5, 0.2): 0.1451,
    (0.5, 0.4): 0.1474,
    (0.5, 0.6): 0.1466,
    (0.5, 0.8): 0.1458,
    (0.5, 1.0): 0.1464,
}
FIRST: dict[Alphas, float] = {
    (0.2, 0.5): 0.1447,
    (0.4, 0.5): 0.1468,
    (0.6, 0.5): 0.1445,
    (0.8, 0.5): 0.1444,
    (1.0, 0.5): 0.1445,
}


def _panel(letter: str, what: str, printed: Mapping[Alphas, float]) -> Experiment:
    labels = {alpha: f"α = ({alpha[0]:g}, {alpha[1]:g})" for alpha in printed}
    entries = (
        Entry(label, "hyperdpo", paper_settings(training={"alpha": alpha}), scales=(), dense=False)
        for alpha, label in labels.items()
    )
    return Experiment(
        name=f"figure6{letter}",
        title=f"Figure 6{letter}: concentration {what}",
        question="How much does it matter how near the corners of the simplex w is drawn? "
        "The mixture draws no w at all: it stands beside as a reference.",
        paper_says="Smaller α: a wider front, at a slightly lower hypervolume.",
        entries=(*entries, HYPERDPO_MIXTURE),
        charts=("front", "relative", "hypervolumes"),
        positions=SPARSE_PAIR,
        paper={label: {"hypervolume": printed[alpha]} for alpha, label in labels.items()},
    )


EXPERIMENTS = (
    _panel("a", "α = (α, α)", EQUAL),
    _panel("b", "α = (0.5, α)", SECOND),
    _panel("c", "α = (α, 0.5)", FIRST),
)
