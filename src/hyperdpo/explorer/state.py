"""What both pages show of a run, without a page: metrics at a point, and the front."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.choosing.bootstrap import Resamples
from hyperdpo.choosing.choice import Sample
from hyperdpo.core.point import Point
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError, counted
from hyperdpo.explorer.front import Front
from hyperdpo.explorer.point import curve


class Explorer:
    """A run, and the groups that it is measured on; safe to use from several threads. It has K metrics.

    Args:
        path: the run, as the user named it.
        objectives: m names.
        betas: (m,) temperatures of the run.
        sample: the groups; None: there are no data, so nothing can be measured.
        split: what the groups are called.
        weightings: points of the front.
        working: held while the run's model works.
    """

    def __init__(
        self,
        path: Path,
        objectives: Sequence[str],
        betas: Sequence[float],
        sample: Sample | None,
        split: str,
        weightings: int,
        working: AbstractContextManager[Any],
    ):
        self.path, self.objectives, self.betas, self.split = path, tuple(objectives), tuple(betas), split
        self._sample, self._weightings, self._working = sample, weightings, working

    @property
    def sample(self) -> Sample:
        """The groups that metrics are measured on.

        Raises:
            InputError: there are no data.
        """
        if self._sample is None:
            raise InputError("no data; expected DATA, to measure on")
        return self._sample

    @property
    def metrics(self) -> tuple[str, ...]:
        """The K names, the objectives' first."""
        return self.sample.names

    @cached_property
    def base(self) -> np.ndarray:
        """(K,) metrics of the base on all groups."""
        return self._means(self.sample.base)

    def start(self) -> Point:
        """Equal weights at the run's temperatures."""
        m = len(self.objectives)
        return Point((1 / m,) * m, 1.0, self.betas)

    def measure(self, rows: np.ndarray) -> np.ndarray:
        """(P, K) metrics on all groups at (P, 2 m + 1) points, with shares (P, 2 m + 2); NaN where no group has one."""
        with self._working:
            return self._means(self.sample.measure(rows))

    def _means(self, sums: np.ndarray) -> np.ndarray:
        return Resamples(self.sample.counts).means(sums)

    def front(self, at: Point | None = None) -> Front:
        """The front at scale 1, over a grid of weights.

        Args:
            at: its temperatures and its share count; None: those of :meth:`start`.
        """
        m, other = len(self.objectives), replace(at or self.start(), scale=1.0)
        weights = weight_grid(m, max(self._weightings, m)).tolist()
        points = tuple(replace(other, weights=tuple(w)) for w in weights)
        return Front(str(self.path), points, self.measure(np.array([p.row() for p in points])), self.base)

    def here(self, point: Point) -> tuple[np.ndarray, np.ndarray]:
        """(K,) metrics at a point on all groups; (C + 1, K) on the way from there to the base, at growing scales."""
        found = self.measure(curve(point))
        return found[0], np.concatenate([found[1:], self.base[None]])


def measured_on(groups: int, split: str) -> str:
    """Which groups were measured, in words."""
    return f"all {counted(groups, 'group')}" if split == "all" else counted(groups, f"{split} group")
