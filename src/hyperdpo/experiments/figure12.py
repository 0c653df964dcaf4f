"""Figure 12: depth of the temperature hypernetwork."""

from __future__ import annotations

from hyperdpo.experiments.experiment import DENSE_PAIR, Experiment
from hyperdpo.experiments.figure11 import MIXTURE, temperature_entry

DEPTHS = (2, 3, 4, 5)

EXPERIMENTS = (
    Experiment(
        name="figure12",
        title="Figure 12: depth of the temperature hypernetwork",
        question="How deep must a network be that knows weights and temperatures? "
        "The mixture (of the configured depth) stands beside as a reference.",
        paper_says="Shallow networks give noisy, even concave fronts; five layers behave as expected.",
        entries=(*(temperature_entry(f"depth {depth}", depth) for depth in DEPTHS), MIXTURE),
        charts=("temperatures", "hypervolumes"),
        positions=DENSE_PAIR,
    ),
)
