"""Means over groups and how sure they are: percentile bootstrap, with the same resamples for everything compared.

A metric of a sample is a ratio of sums over its groups, sum_g s_g / sum_g n_g: n is 1 for groups that have the metric
and 0 for others, or the number of pairs where the metric is a share of pairs.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hyperdpo.core.preferences import stream

#: Resamples where nothing else is asked for, and the most numbers that they may hold together (of 4 bytes).
RESAMPLES, MOST_NUMBERS = 2000, 20_000_000


class Resamples:
    """Draws of G groups with replacement, common to all points and metrics, so that differences are sharp.

    Args:
        counts: (K, G), the n of each metric.
        seed: of the draws.
        resamples: B; None: 2000, fewer (at least 200) above 10,000 groups.
    """

    def __init__(self, counts: np.ndarray, seed: int = 0, resamples: int | None = None):
        self.counts = np.asarray(counts, dtype=np.float32)
        groups = self.counts.shape[1]
        self.number = resamples or min(RESAMPLES, max(200, MOST_NUMBERS // max(groups, 1)))
        self._seed = seed

    @cached_property
    def _draws(self) -> np.ndarray:
        """(B, G): how often each resample holds each group."""
        groups = self.counts.shape[1]
        rng = stream(self._seed, 17)
        draws = np.empty((self.number, groups), dtype=np.float32)
        for row in draws:
            row[:] = np.bincount(rng.integers(groups, size=groups), minlength=groups)
        return draws

    @cached_property
    def _totals(self) -> np.ndarray:
        """(K, B)."""
        return self.counts @ self._draws.T

    def means(self, sums: np.ndarray) -> np.ndarray:
        """(P, K): the metrics of the sample itself, from (P, K, G) sums; NaN where no group has the metric."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums.sum(-1, dtype=np.float64) / self.counts.sum(-1, dtype=np.float64)

    def resampled(self, sums: np.ndarray, metric: int) -> np.ndarray:
        """(P, B): one metric in every resample, from its (P, G) sums; NaN where a resample has no group with it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((sums.astype(np.float32) @ self._draws.T) / self._totals[metric], dtype=np.float64)

    def bounds(self, sums: np.ndarray, metric: int, sign: float, confidence: float) -> np.ndarray:
        """(P,): one-sided confidence bounds of a metric, below it for sign 1, above it for -1."""
        level = 1 - confidence if sign > 0 else confidence
        return np.asarray(np.nanquantile(self.resampled(sums, metric), level, axis=1))
