"""What the page of a ranker shows, without the page: lists re-ranked at a point.

The K metrics are NDCG of the m objectives and, where its label is known, of main.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperdpo.choosing.rankers import PointMeasure, rank_sample, trained_box
from hyperdpo.choosing.search import Box, Effort
from hyperdpo.core.control import proportional_scale
from hyperdpo.core.point import Point
from hyperdpo.data.splits import Part, split_groups
from hyperdpo.data.transform import label_values
from hyperdpo.errors import InputError
from hyperdpo.explorer.state import Explorer, measured_on
from hyperdpo.ranking.explain import explain
from hyperdpo.ranking.explanation import Explanation
from hyperdpo.ranking.metrics import NdcgSettings
from hyperdpo.ranking.run import RankRun

#: Lists whose features and heads are kept, and points of a list whose scores are.
KEPT_LISTS, KEPT_POINTS = 32, 4
#: The largest factor by which the page moves the temperatures of a mixture, up or down.
MIXTURE_RANGE = 8.0


@dataclass(frozen=True)
class Row:
    """One document of a ranked list."""

    place: int
    """The place in the list, from 1."""
    moved: int
    """How many places it is higher than at the pinned point; negative: lower."""
    document: int
    """Its row in DATA, from 1."""
    labels: tuple[float, ...]
    """(K,) as they stand in DATA."""
    score: float


class QueryList:
    """The documents of one query, scored at any point.

    Args:
        rows: (n,) rows of the documents in DATA, from 0.
        labels: (n, K) as they stand in DATA.
    """

    def __init__(self, measure: PointMeasure, rows: np.ndarray, labels: np.ndarray):
        self._measure = measure
        self.rows, self.labels = rows, labels
        #: As :meth:`_at`, for the last points: a pinned one is asked for again and again.
        self.at = lru_cache(KEPT_POINTS)(self._at)

    def _at(self, point: Point | None) -> tuple[np.ndarray, np.ndarray]:
        """(n,) scores in the order of DATA, and (K,) metrics, NaN where the list has none; None: those of the base."""
        if point is None:
            scores, found = np.asarray(self._measure.examples.base_scores), self._measure.base()
        else:
            scores, found = self._measure.at(point.row())
        return scores, np.where(self._measure.counts[:, 0] > 0, found[:, 0], np.nan)

    def ranked(self, scores: np.ndarray, pinned: np.ndarray) -> list[Row]:
        """The list by falling score; equal scores keep the order of DATA.

        Args:
            scores, pinned: (n,) at the current and the pinned point.
        """
        order = ranking(scores)
        before = np.empty(len(order), dtype=np.int64)
        before[ranking(pinned)] = np.arange(len(order))
        return [
            Row(
                place=place + 1,
                moved=int(before[i]) - place,
                document=int(self.rows[i]) + 1,
                labels=tuple(self.labels[i].tolist()),
                score=float(scores[i]),
            )
            for place, i in enumerate(order.tolist())
        ]


def ranking(scores: np.ndarray) -> np.ndarray:
    """(n,) positions by falling score, ties in the order given."""
    return np.argsort(-scores, kind="stable")


class RankExplorer(Explorer):
    """A ranker on the groups of one split.

    Args:
        path: the run, as the user named it.
        split: what the groups are called.
        base_scores: (N of the table,), where the run has none of its own.
        settings: another NDCG than the run's own.

    Raises:
        InputError: the data lack a column, or base scores are missing.
    """

    def __init__(
        self,
        run: RankRun,
        path: Path,
        part: Part,
        split: str,
        *,
        base_scores: np.ndarray | None = None,
        settings: NdcgSettings | None = None,
        device: torch.device | str = "cpu",
    ):
        run.to(device)
        examples = run.examples(part, base_scores=base_scores, device=device)
        sample = rank_sample(run, examples, device=device, settings=settings)
        weightings = Effort().grid_points(len(run.objectives))
        super().__init__(path, run.objectives, run.betas, sample, split, weightings, threading.Lock())
        self.run, self.part, self.settings = run, part, settings or run.config.metric
        self._given, self._device = base_scores, device
        main = run.config.main
        labels = [*examples.labels, *([main] if main is not None and examples.main_gains is not None else [])]
        self._columns = tuple(label.column for label in labels)
        self.labels = tuple(f"{label.name} ({label.direction} {label.column})" for label in labels)
        """(K,): what is measured, in words."""
        self.minimized = tuple(label.direction == "minimize" for label in labels)
        """(K,): less of the label is better. Its metric is turned round, so that more is always better."""
        self._list_lock = threading.Lock()  # a list never waits for the metrics of all groups
        #: As :meth:`_list_of`, for the last lists.
        self.list_of = lru_cache(KEPT_LISTS)(self._list_of)
        #: As :meth:`_explanation_of`, for the last ones: documents of one list are asked about one after the other.
        self.explanation_of = lru_cache(KEPT_POINTS)(self._explanation_of)

    @property
    def description(self) -> str:
        """The metric and what it is measured on."""
        return f"{self.settings.describe()}, {measured_on(len(self.part.groups), self.split)}"

    @property
    def temperature_range(self) -> Box | None:
        """(m,) ends between which temperatures can be moved; None: the ranker has one vector of them only.

        For a ``temperature`` run they are the ends of its training.
        """
        if not self.run.ranker.takes_temperatures:
            return None
        mixture = tuple((beta / MIXTURE_RANGE, beta * MIXTURE_RANGE) for beta in self.betas)
        return trained_box(self.run) or mixture

    def start(self) -> Point:
        """Equal weights, the run's own share if it takes one, and its temperatures (the nearest ones that a
        ``temperature`` run was trained on)."""
        ends, share = self.temperature_range, self.run.ranker.chosen.get("main_share")
        found = replace(super().start(), main_share=share)
        return found if ends is None else replace(found, temperatures=clipped(self.betas, ends))

    def at_trained_end(self, point: Point) -> str:
        """A text that names temperatures at an end of what the run was trained on; empty: there are none."""
        at = [
            f"β of {name} lies at an end of what the run was trained on ({low:g} to {high:g})"
            for name, beta, (low, high) in zip(
                self.objectives, point.temperatures, trained_box(self.run) or (), strict=False
            )
            if beta in (low, high)
        ]
        return "; ".join(at)

    def queries(self) -> list[str]:
        """The name of each group, with its size."""
        qids, sizes = self.part.table.qids[self.part.groups], self.part.sizes
        return [f"{qid} · {n} documents" for qid, n in zip(qids.tolist(), sizes.tolist(), strict=True)]

    def _list_of(self, group: int) -> QueryList:
        """The list of a group of the split, by position."""
        part = Part(self.part.table, self.part.groups[[group]])
        examples = self.run.examples(part, base_scores=self._given, device=self._device)
        measure = PointMeasure(self.run, examples, self._device, self.settings)
        rows, order = part.rows(), part.table.order
        return QueryList(measure, rows if order is None else order[rows], label_values(part, self._columns))

    def _explanation_of(self, group: int, point: Point) -> Explanation:
        factor = proportional_scale(point.temperatures, self.betas)
        if factor is None or len(set(point.temperatures)) > 1:
            raise InputError("β is not the same for all objectives here; only equal β give a weighted sum to explain")
        part, share = Part(self.part.table, self.part.groups[[group]]), point.main_share
        asked: dict[str, Any] = {"main_share": share, "base_scores": self._given, "device": self._device}
        return explain(self.run, part, point.weights, point.scale * factor, **asked)

    def explanation(self, group: int, point: Point) -> Explanation:
        """Why the list of a group is ranked as it is at a point.

        Raises:
            InputError: a run or a point whose ranking is not that of a weighted sum.
        """
        with self._list_lock:
            return self.explanation_of(group, point)

    def list_view(self, group: int, point: Point, pinned: Point | None) -> tuple[list[Row], np.ndarray, np.ndarray]:
        """The ranked list, and its (K,) metrics at the point and at the pinned one."""
        with self._list_lock:
            found = self.list_of(group)
            (before, metrics_before), (scores, metrics) = found.at(pinned), found.at(point)
            return found.ranked(scores, before), metrics, metrics_before

    def at(self, point: Point | None) -> np.ndarray:
        """(K,) metrics on all groups; None: those of the base."""
        return self.base if point is None else self.measure(point.row()[None])[0]


def clipped(temperatures: Sequence[float], ends: Box) -> tuple[float, ...]:
    """(m,) temperatures, none of them beyond its ends."""
    return tuple(min(max(beta, low), high) for beta, (low, high) in zip(temperatures, ends, strict=True))


def shared_range(explorers: Sequence[RankExplorer]) -> Box | None:
    """(m,) ends that the first run shares with all others that have some; None: it shares none."""
    if explorers[0].temperature_range is None:
        return None
    ranges = [one.temperature_range for one in explorers if one.temperature_range is not None]
    ends = tuple((max(low for low, _ in of), min(high for _, high in of)) for of in zip(*ranges, strict=True))
    return ends if all(low <= high for low, high in ends) else None


def check_same_labels(first: RankExplorer, second: RankExplorer) -> None:
    """Raise unless two runs are measured by the same labels.

    Raises:
        InputError: a label is another column, has another direction, or is known to one of them only.
    """
    for one, other in zip_longest(first.labels, second.labels):
        if one != other:
            raise InputError(
                f"--compare {second.path}: measured by {other or 'no further label'}; expected {one or 'none'}, as of "
                f"{first.path}"
            )


def trained_on(run: RankRun, part: Part) -> int:
    """How many groups of a part the run was trained on; 0 for a table that it does not know."""
    if run.data["fingerprints"].get("train") != part.table.fingerprint or not part.table.fingerprint:
        return 0
    if "fractions" not in run.data:
        return len(part.groups)
    groups = split_groups(part.table.num_groups, tuple(run.data["fractions"]), run.data["split_seed"])
    return int(np.isin(part.groups, groups["train"]).sum())
