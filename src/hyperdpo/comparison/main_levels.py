"""Rankers compared at equal main scores: each method is moved to the same mean main score by a dial of its own.

The dial is the main label's share λ for expected gains and for LightGBM, and the scale c for the others. It is turned
until the mean main score of a few weightings on the validation groups is at a level; then the front is measured on the
test groups. The levels lie inside the interval that every method reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.methods import Conditioned, needs_lightgbm
from hyperdpo.comparison.rank import DENSE_POINTS, VOLUMES, RankTrainings, few_weightings, spread_of_main
from hyperdpo.core.preferences import weight_grid
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.parametrizations import Ranker

#: The ends of the dials.
SHARES, SCALES = (0.0, 0.95), (0.25, 32.0)
#: Halvings of the interval in which a dial is searched that needs no trainings.
HALVINGS = 12
#: Shares at which trees are trained first; each level then gets two more between them, the second of which is measured.
TREE_SHARES, TREE_TRIALS = (SHARES[0], 0.25, 0.5, 0.75, SHARES[1]), 2
#: Methods whose trainings do not depend on the weightings of their front.
UNTRAINED = ("hyperdpo", "dpo-soup")


@dataclass(frozen=True)
class Dial:
    """What moves an entry towards the main label.

    Attributes:
        name: the share λ, or the scale c.
        ends: its least and its largest value; the main score rises from one to the other.
        trains: every value needs trainings of its own.
    """

    name: Literal["main_share", "scale"]
    ends: tuple[float, float]
    trains: bool = False

    def between(self, low: float, high: float) -> float:
        """The middle of two values: of scales on a logarithmic axis."""
        return float(np.sqrt(low * high)) if self.name == "scale" else (low + high) / 2


class MainLevels:
    """Fronts of one repeat at equal main scores.

    Args:
        trainings: of the repeat.
        entries: all methods.
        count: levels, strictly inside the interval that all of them reach.
    """

    def __init__(self, trainings: RankTrainings, entries: Sequence[Entry], count: int):
        self.trainings = trainings
        self.few = few_weightings(len(trainings.prepared.betas))
        self.dials = {entry.label: self._dial(entry) for entry in entries}
        self._tried: dict[str, dict[float, float]] = {}
        reached = [[self.main(entry, value) for value in self._first(entry)] for entry in entries]
        #: The mean main scores that are aimed at.
        self.targets = common_levels(reached, count)

    def measured(self, entry: Entry, grid: np.ndarray, test: Examples) -> list[dict[str, Any]]:
        """The entry's front at each level.

        Args:
            grid: (P, m) weights.

        Returns:
            ``target_main``, on validation groups; ``main``, the mean on the test groups; ``hypervolume``,
            ``hypervolume_with_main``; ``main_share`` and ``scale``, where one of them is None if it is not the dial;
            ``dense``, the hypervolumes at 101 weightings, None where those are more trainings.
        """
        found = []
        dense_grid = weight_grid(grid.shape[1], DENSE_POINTS) if entry.method in UNTRAINED else None
        for target in self.targets:
            value, dial = self._chosen(entry, target), self.dials[entry.label]
            front = self._front(entry, value, grid, test)
            dense = self._front(entry, value, dense_grid, test) if dense_grid is not None else None
            found.append(
                {
                    "target_main": target,
                    "main": spread_of_main(front)["main_mean"],
                    "hypervolume": front.hypervolume,
                    "hypervolume_with_main": front.hypervolume_with_main,
                    "main_share": value if dial.name == "main_share" else None,
                    "scale": value if dial.name == "scale" else None,
                    "dense": dense and {name: getattr(dense, name) for name in VOLUMES},
                }
            )
        return found

    def freest(self, entry: Entry, test: Examples) -> Front:
        """The front of single-objective weightings at the end of the dial that is farthest from the main label."""
        weights = np.eye(self.few.shape[1])
        return self._front(entry, self.dials[entry.label].ends[0], weights, test)

    def _dial(self, entry: Entry) -> Dial:
        if needs_lightgbm(entry.method):
            return Dial("main_share", SHARES, trains=True)
        if entry.one_shot:
            ranker = self.trainings.trained(Conditioned(), entry).model
            assert isinstance(ranker, Ranker)
            if ranker.takes_main_share:
                return Dial("main_share", SHARES)
        return Dial("scale", SCALES)

    def _first(self, entry: Entry) -> tuple[float, ...]:
        """The values of the dial that are tried first, from end to end."""
        dial = self.dials[entry.label]
        return TREE_SHARES if dial.trains else dial.ends

    def _front(self, entry: Entry, value: float, weights: np.ndarray, on: Examples) -> Front:
        """The front at a value of the dial."""
        trainings, dial = self.trainings, self.dials[entry.label]
        prepared = trainings.prepared
        share = value if dial.name == "main_share" else None
        score = trainings.score(entry, weights, prepared.betas, on, main_share=share)
        scale, metric, device = (
            1.0 if share is not None else value,
            prepared.config.metric,
            trainings.accelerator.device,
        )
        return evaluate_front(score, on, weights, [scale], prepared.betas, metric, device=device, with_losses=False)

    def main(self, entry: Entry, value: float) -> float:
        """The mean main score of a few weightings on validation groups, at a value of the dial; NaN without a main
        label."""
        found = spread_of_main(self._front(entry, value, self.few, self.trainings.validation))["main_mean"]
        main = float("nan") if found is None else found
        self._tried.setdefault(entry.label, {})[value] = main
        return main

    def _interpolated(self, entry: Entry, target: float) -> float:
        """The share at which the main score is a target, on straight lines between those that were tried.

        A main score that falls where the share rises, by the noise of validation groups, is lifted to the largest
        before it.
        """
        tried = self._tried[entry.label]
        shares = sorted(tried)
        mains = np.maximum.accumulate([tried[share] for share in shares])
        return float(round(np.interp(target, mains, shares), 4))

    def _chosen(self, entry: Entry, target: float) -> float:
        """The value of the dial whose main score is at a target."""
        dial = self.dials[entry.label]
        if dial.trains:
            for _ in range(TREE_TRIALS - 1):
                self.main(entry, self._interpolated(entry, target))
            return self._interpolated(entry, target)
        low, high = dial.ends
        for _ in range(HALVINGS):
            middle = dial.between(low, high)
            low, high = (low, middle) if self.main(entry, middle) >= target else (middle, high)
        return dial.between(low, high)


def common_levels(reached: Sequence[Sequence[float]], count: int) -> list[float]:
    """Evenly spaced numbers strictly inside what all methods reach; none where they reach no common ones.

    Args:
        reached: scores of each method, from the least to the largest; NaN where they are not known.
        count: of levels.
    """
    low, high = max(ends[0] for ends in reached), min(ends[-1] for ends in reached)
    return np.linspace(low, high, count + 2)[1:-1].tolist() if low < high else []


def level_differences(methods: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each one-shot method against the best of the others, level by level: hypervolumes with main, paired by repeat.

    The best of the others is the one with the largest mean over the R repeats. The difference is the mean of R
    differences d_r, and its standard error sd(d) / sqrt(R).

    Args:
        methods: of ``compare.json``.

    Returns:
        For each one-shot method and level: ``of``, ``target_main`` and, twice, ``to`` (the best of the others),
        ``ratio`` of the means, ``difference`` and ``error`` (None for one repeat): at the points of every front, and
        below ``dense`` at 101 weightings of all methods that have as many without another training. Empty where there
        are no levels, or no other methods.
    """
    ours = [name for name, one in methods.items() if one["one_shot"]]
    others = [name for name in methods if name not in ours]
    if not others:
        return []
    return [
        {"of": name, "target_main": level["target_main"]}
        | _over_best(methods, name, others, k, dense=False)
        | {"dense": _over_best(methods, name, others, k, dense=True)}
        for name in ours
        for k, level in enumerate(methods[name]["main_levels"])
    ]


def _over_best(
    methods: Mapping[str, Mapping[str, Any]], name: str, others: Sequence[str], level: int, *, dense: bool
) -> dict[str, Any]:
    def volumes(of: str) -> np.ndarray:
        """(R,) of a method."""
        levels = [seed["main_levels"][level] for seed in methods[of]["seeds"]]
        return np.array([((dense and one["dense"]) or one)["hypervolume_with_main"] for one in levels])

    found = {other: volumes(other) for other in others}
    best = max(others, key=lambda other: found[other].mean())
    differences = volumes(name) - found[best]
    mean = found[best].mean()
    return {
        "to": best,
        "ratio": float(volumes(name).mean() / mean) if mean > 0 else None,
        "difference": float(differences.mean()),
        "error": float(differences.std(ddof=1) / np.sqrt(len(differences))) if len(differences) > 1 else None,
    }
