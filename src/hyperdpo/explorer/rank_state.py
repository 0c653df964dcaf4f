"""What the page of a ranker shows, without the page: lists re-ranked at a point, metrics, the front.

K metrics: those of the m objectives and, where the label is known, main.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from hyperdpo.choosing.rankers import PointMeasure, metric_names, trained_box
from hyperdpo.choosing.search import Box
from hyperdpo.core.point import Point
from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.splits import Part, split_groups
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.explorer.front import Front, measured_on
from hyperdpo.explorer.point import curve
from hyperdpo.ranking.metrics import NdcgSettings
from hyperdpo.ranking.run import RankRun

#: Weightings of the front for 1, 2, 3 objectives; more have MOST_POINTS.
FRONT_POINTS = {1: 1, 2: 21, 3: 66}
MOST_POINTS = 126
#: Lists whose features and heads are kept.
KEPT_LISTS = 32
#: Points of a list whose scores are kept.
KEPT_POINTS = 4
#: How far the temperatures of a mixture can be moved on the page, by a factor.
MIXTURE_RANGE = 8.0


@dataclass(frozen=True)
class Row:
    """One document of a ranked list."""

    place: int
    """From 1."""
    moved: int
    """Places it went up since the pinned point; negative: down."""
    document: int
    """Its row in DATA, from 1."""
    labels: tuple[float, ...]
    """(K,) as they stand in DATA."""
    score: float


class QueryList:
    """The documents of one query, scored at any point."""

    def __init__(self, measure: PointMeasure, rows: np.ndarray, labels: np.ndarray):
        self._measure = measure
        self.rows, self.labels = rows, labels
        self._counted = measure.counts[:, 0] > 0
        self._known: OrderedDict[Point | None, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def at(self, point: Point | None) -> tuple[np.ndarray, np.ndarray]:
        """(n,) scores in the order of DATA, and (K,) metrics, NaN where the list has none; of None: the base's.

        Those of the last points are kept: a pinned one is asked for again and again.
        """
        if point not in self._known:
            if point is None:
                scores, found = np.asarray(self._measure.examples.base_scores), self._measure.base()
            else:
                scores, found = self._measure.at(point.row())
            self._known[point] = scores, np.where(self._counted, found[:, 0], np.nan)
        self._known.move_to_end(point)
        while len(self._known) > KEPT_POINTS:
            self._known.popitem(last=False)
        return self._known[point]

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


class RankExplorer:
    """A ranker on the groups of one split; safe to use from several threads.

    Args:
        path: of the run, as the user named it.
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
        self.run, self.path, self.part, self.split = run, path, part, split
        self.settings = settings or run.config.metric
        self._given, self._device = base_scores, device
        run.to(device)
        self._whole = PointMeasure(run, run.examples(part, base_scores=base_scores, device=device), device, settings)
        examples = self._whole.examples
        self.objectives = run.objectives
        self.betas = tuple(run.betas)
        names = metric_names(run)
        self.metrics = names if examples.main_gains is not None else names[: len(self.objectives)]
        main = run.config.main
        labels = [*examples.labels, *([main] if main is not None and examples.main_gains is not None else [])]
        self._columns = tuple(label.column for label in labels)
        self.labels = tuple(f"{label.name} ({label.direction} {label.column})" for label in labels)
        """(K,): what is measured, in words."""
        self.minimized = tuple(label.direction == "minimize" for label in labels)
        """(K,): less of the label is better. Its metric is turned round, so that more is better always."""
        self._counts = self._whole.counts.sum(1)
        self._base: np.ndarray | None = None
        self._lists: OrderedDict[int, QueryList] = OrderedDict()
        # Two, so that a list never waits for the metrics of all groups.
        self._list_lock, self._whole_lock = threading.RLock(), threading.Lock()

    @property
    def description(self) -> str:
        """The metric and what it is measured on."""
        return f"{self.settings.describe()}, {measured_on(len(self.part.groups), self.split)}"

    @property
    def temperature_range(self) -> Box | None:
        """(m,) ends of the temperatures that the ranker is asked at; None: it has one vector of them only.

        Of a ``temperature`` run they are those of its training.
        """
        if not self.run.ranker.takes_temperatures:
            return None
        mixture = tuple((beta / MIXTURE_RANGE, beta * MIXTURE_RANGE) for beta in self.betas)
        return trained_box(self.run) or mixture

    def start(self) -> Point:
        """Equal weights, the run's temperatures; of a ``temperature`` run the nearest that it was trained on."""
        m = len(self.objectives)
        ends = self.temperature_range
        return Point(tuple(1 / m for _ in range(m)), 1.0, self.betas if ends is None else clipped(self.betas, ends))

    def at_trained_end(self, point: Point) -> str:
        """Which temperatures lie at an end of what the run was trained on, in words; empty: none."""
        at = [
            f"β of {name} lies at an end of what the run was trained on ({low:g} to {high:g})"
            for name, beta, (low, high) in zip(
                self.objectives, point.temperatures, trained_box(self.run) or (), strict=False
            )
            if beta in (low, high)
        ]
        return "; ".join(at)

    def queries(self) -> list[str]:
        """What each group is called, with its size."""
        qids, sizes = self.part.table.qids[self.part.groups], self.part.sizes
        return [f"{qid} · {n} documents" for qid, n in zip(qids.tolist(), sizes.tolist(), strict=True)]

    def list_of(self, group: int) -> QueryList:
        """The list of a group of the split, by position; the last ones asked for are kept."""
        with self._list_lock:
            if group not in self._lists:
                part = Part(self.part.table, self.part.groups[[group]])
                examples = self.run.examples(part, base_scores=self._given, device=self._device)
                measure = PointMeasure(self.run, examples, self._device, self.settings)
                self._lists[group] = QueryList(measure, part.rows(), column_values(part, self._columns))
                if len(self._lists) > KEPT_LISTS:
                    self._lists.popitem(last=False)
            self._lists.move_to_end(group)
            return self._lists[group]

    def list_view(self, group: int, point: Point, pinned: Point | None) -> tuple[list[Row], np.ndarray, np.ndarray]:
        """The ranked list, and its (K,) metrics at the point and at the pinned one."""
        found = self.list_of(group)
        with self._list_lock:
            (before, metrics_before), (scores, metrics) = found.at(pinned), found.at(point)
            return found.ranked(scores, before), metrics, metrics_before

    def measure(self, rows: np.ndarray) -> np.ndarray:
        """(P, K) metrics on all groups of the split, of (P, 2 m + 1) points; NaN where no group counts."""
        with self._whole_lock:
            return self._mean(self._whole(np.atleast_2d(rows)))

    def at(self, point: Point | None) -> np.ndarray:
        """(K,) metrics on all groups; of None: the base's, measured once."""
        if point is not None:
            return self.measure(point.row())[0]
        with self._whole_lock:
            if self._base is None:
                self._base = self._mean(self._whole.base())
            return self._base

    def _mean(self, sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(sums.sum(-1) / self._counts)

    def front(self, temperatures: tuple[float, ...]) -> Front:
        """At scale 1, over a grid of weights."""
        m = len(self.objectives)
        weights = weight_grid(m, max(FRONT_POINTS.get(m, MOST_POINTS), m))
        points = [Point(tuple(w), 1.0, temperatures) for w in weights.tolist()]
        values = self.measure(np.array([p.row() for p in points]))
        return Front(str(self.path), tuple(points), values, self.at(None))

    def here(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """(K,) metrics at a point on all groups; (C + 1, K) on the way from there to the base, at growing scales."""
        found = self.measure(curve(point))
        return found[0], np.concatenate([found[1:], self.at(None)[None]])


def clipped(temperatures: Sequence[float], ends: Box) -> tuple[float, ...]:
    """(m,) temperatures, none beyond its ends."""
    return tuple(min(max(beta, low), high) for beta, (low, high) in zip(temperatures, ends, strict=True))


def shared_range(explorers: Sequence[RankExplorer]) -> Box | None:
    """(m,) ends of the temperatures of the first run and of all others that have some; None: nothing is shared."""
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
    """How many groups of a part the run was trained on, as far as it knows the table."""
    if run.data["fingerprints"].get("train") != part.table.fingerprint or not part.table.fingerprint:
        return 0
    if "fractions" not in run.data:
        return len(part.groups)
    groups = split_groups(part.table.num_groups, tuple(run.data["fractions"]), run.data["split_seed"])
    return int(np.isin(part.groups, groups["train"]).sum())
