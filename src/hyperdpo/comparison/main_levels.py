"""Rankers compared at equal main scores: each method is moved to the same mean main score by a dial of its own.

The dial is the main label's share λ for expected gains and for LightGBM, and the scale c for the others. It is turned
until the mean main score of a few weightings on the validation groups is at a level; then the front is measured on the
test groups. The levels lie inside the interval that every method reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.methods import Conditioned, needs_lightgbm
from hyperdpo.comparison.rank import RankTrainings, few_weightings, spread_of_main
from hyperdpo.ranking.evaluation import Front, evaluate_front
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.gbdt import choose_main_share
from hyperdpo.ranking.parametrizations import Ranker

#: The ends of the dials.
SHARES, SCALES = (0.0, 0.95), (0.25, 32.0)
#: Halvings of the interval in which a network's dial is searched, and the shares that are tried for trees.
HALVINGS, TREE_TRIALS = 12, 6


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
        reached = [[self.main(entry, end) for end in self.dials[entry.label].ends] for entry in entries]
        #: The mean main scores that are aimed at.
        self.targets = common_levels(reached, count)

    def measured(self, entry: Entry, grid: np.ndarray, test: Examples) -> list[dict[str, Any]]:
        """The entry's front at each level.

        Args:
            grid: (P, m) weights.

        Returns:
            ``target_main``, on validation groups; ``main``, the mean on the test groups; ``hypervolume``,
            ``hypervolume_with_main``; ``main_share`` and ``scale``, where one of them is None if it is not the dial.
        """
        found = []
        for target in self.targets:
            value, dial = self._chosen(entry, target), self.dials[entry.label]
            front = self._front(entry, value, grid, test)
            found.append(
                {
                    "target_main": target,
                    "main": spread_of_main(front)["main_mean"],
                    "hypervolume": front.hypervolume,
                    "hypervolume_with_main": front.hypervolume_with_main,
                    "main_share": value if dial.name == "main_share" else None,
                    "scale": value if dial.name == "scale" else None,
                }
            )
        return found

    def _dial(self, entry: Entry) -> Dial:
        if needs_lightgbm(entry.method):
            return Dial("main_share", SHARES, trains=True)
        if entry.one_shot:
            ranker = self.trainings.trained(Conditioned(), entry).model
            assert isinstance(ranker, Ranker)
            if ranker.takes_main_share:
                return Dial("main_share", SHARES)
        return Dial("scale", SCALES)

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
        return float("nan") if found is None else found

    def _chosen(self, entry: Entry, target: float) -> float:
        """The value of the dial whose main score is at a target."""
        dial = self.dials[entry.label]
        if dial.trains:
            return choose_main_share(lambda share: self.main(entry, share), target, most=TREE_TRIALS)[0]
        low, high = dial.ends
        for _ in range(HALVINGS):
            middle = dial.between(low, high)
            low, high = (low, middle) if self.main(entry, middle) >= target else (middle, high)
        return dial.between(low, high)


def common_levels(reached: Sequence[Sequence[float]], count: int) -> list[float]:
    """Evenly spaced numbers strictly inside what all methods reach; none where they reach no common ones.

    Args:
        reached: the least and the largest score of each method; NaN where it is not known.
        count: of levels.
    """
    low, high = max(ends[0] for ends in reached), min(ends[1] for ends in reached)
    return np.linspace(low, high, count + 2)[1:-1].tolist() if low < high else []
