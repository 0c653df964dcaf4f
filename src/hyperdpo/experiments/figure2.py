"""Figure 2: fronts of all methods on two objectives."""

from __future__ import annotations

from hyperdpo.experiments.experiment import ALL_METHODS, DENSE_PAIR, SPARSE_PAIR, Experiment

_QUESTION = "Does one conditioned model reach the front of eleven separate ones, at no cost for the main objective?"

EXPERIMENTS = (
    Experiment(
        name="figure2a",
        title="Figure 2a: two sparse objectives, I and II",
        question=_QUESTION,
        paper_says="HyperDPO's front dominates those of the baselines; its mean main NDCG@10 is comparable or better.",
        entries=ALL_METHODS,
        charts=("front", "regret"),
        positions=SPARSE_PAIR,
    ),
    Experiment(
        name="figure2b",
        title="Figure 2b: two dense objectives, IV and V",
        question=_QUESTION,
        paper_says="HyperDPO obtains a smooth front where the baselines fail to.",
        entries=ALL_METHODS,
        charts=("front", "regret"),
        positions=DENSE_PAIR,
    ),
)
