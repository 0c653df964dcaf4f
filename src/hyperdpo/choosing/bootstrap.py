"""Means over groups and their confidence: percentile bootstrap, with the same resamples for everything compared.

A metric of a sample is a ratio of sums over its groups, sum_g s_g / sum_g n_g. n is 1 for groups that have the metric
and 0 for others; for a share of pairs it is the number of pairs.

A threshold is met with confidence if the share of all resamples that meet it is at least the confidence. A resample in
which no group has the metric meets none. A bound is the largest threshold that is met with confidence.
"""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np

from hyperdpo.core.preferences import stream
from hyperdpo.errors import InputError

#: The default number of resamples, and the most numbers (of 4 bytes) that they may then hold together.
RESAMPLES, MOST_NUMBERS = 2000, 20_000_000
#: The most numbers in any case.
LARGEST_NUMBERS = 400_000_000
#: At least so many resamples lie beyond a bound.
TAIL = 10
#: Fewer groups with a metric are too few for confidence.
FEWEST_GROUPS = 20


def number_of_resamples(confidence: float, groups: int, asked: int | None = None) -> int:
    """2,000; fewer above 10,000 groups, more for a confidence above 99.5%: 10 have to lie beyond the bound.

    Args:
        confidence: from 0.5 to 1.
        groups: G.
        asked: the number that the user wants instead.

    Raises:
        InputError: too few were asked for, or they do not fit into memory.
    """
    least = math.ceil(TAIL / (1 - confidence) - 1e-6)
    if asked is not None and asked < least:
        raise InputError(
            f"resamples: found {asked:,}; expected at least {least:,} for a confidence of {confidence:g} "
            f"({TAIL} of them beyond the bound)"
        )
    number = asked or max(least, min(RESAMPLES, MOST_NUMBERS // max(groups, 1)))
    if number * groups > LARGEST_NUMBERS:
        raise InputError(
            f"confidence: found {confidence:g} and {groups:,} groups; expected a confidence for which "
            f"{LARGEST_NUMBERS // groups:,} resamples are enough (this one takes {number:,})"
        )
    return number


def bound(turned: np.ndarray, confidence: float) -> np.ndarray:
    """(...) largest threshold that is met with the confidence in (..., B) resamples, turned so that more is safer."""
    number = turned.shape[-1]
    needed = max(math.floor(confidence * number), 1)
    while needed / number < confidence:
        needed += 1
    return np.asarray(np.partition(turned, number - needed, axis=-1)[..., number - needed])


class Resamples:
    """Draws of G groups with replacement, shared by all points and metrics, so that differences are sharp.

    Args:
        counts: (K, G), the n of each metric.
        seed: seed of the draws.
        number: B, see :func:`number_of_resamples`.
    """

    def __init__(self, counts: np.ndarray, seed: int = 0, number: int = RESAMPLES):
        self.counts = np.asarray(counts, dtype=np.float32)
        self.number = number
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
        """(P, K) metrics of the sample itself, from (P, K, G) sums; NaN where no group has the metric."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums.sum(-1, dtype=np.float64) / self.counts.sum(-1, dtype=np.float64)

    def resampled(self, sums: np.ndarray, metric: int) -> np.ndarray:
        """(P, B) values of one metric in every resample, from its (P, G) sums; NaN without a group that has it."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((sums.astype(np.float32) @ self._draws.T) / self._totals[metric], dtype=np.float64)

    def turned(self, sums: np.ndarray, metric: int, sign: float) -> np.ndarray:
        """(P, B) values as of :meth:`resampled`, times ``sign``, so that more is safer; -inf instead of NaN."""
        return np.nan_to_num(sign * self.resampled(sums, metric), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
