"""What a requirement costs: how the best goal changes when its threshold is moved.

V(t) is the best goal among the points that meet the thresholds t, turned so that more is better. It never rises with a
threshold, so neither number below is negative: fewer points meet a higher one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyperdpo.choosing.search import LEAST_STEP, Pool


@dataclass(frozen=True)
class Slope:
    """A difference of best goals over that of their thresholds."""

    per_unit: float
    """>= 0."""
    interval: tuple[float, float]
    """The interval of ``per_unit``, with both points kept and the groups resampled; not below 0."""
    step: float
    """The distance of the thresholds."""


def tightening(pool: Pool, r: int, confidence: float) -> Slope | None:
    """(V(t) - V(t + h)) / h for requirement r: what one more unit costs.

    h is the pool's step, or less where only less can be met while the others are; None: nothing more can be.
    """
    most, step = pool.attainable(r), float(pool.steps[r])
    reach = 0.0 if most is None else most - float(pool.thresholds[r])
    if reach < LEAST_STEP * step:
        return None
    return _slope(pool, r, 0.0, min(step, reach), confidence)


def loosening(pool: Pool, r: int, confidence: float) -> Slope:
    """(V(t - h) - V(t)) / h for requirement r: what one unit less would gain. h is the pool's step."""
    return _slope(pool, r, -float(pool.steps[r]), 0.0, confidence)


def _slope(pool: Pool, r: int, low: float, high: float, confidence: float) -> Slope:
    """The slope between two thresholds of requirement r, given as distances from the one that was asked for."""
    unit, step = np.eye(len(pool.thresholds))[r], high - low
    loose, tight = (pool.best(pool.thresholds + move * unit)[0] for move in (low, high))
    per_unit = float(pool.goals[loose] - pool.goals[tight]) / step
    if loose == tight:
        return Slope(per_unit, (per_unit, per_unit), step)
    sums = pool.measure(pool.points[[loose, tight]])[:, pool.goal]
    values = pool.goal_sign * pool.resamples.resampled(sums, pool.goal)
    ends = np.nanquantile((values[0] - values[1]) / step, [(1 - confidence) / 2, (1 + confidence) / 2])
    low_end, high_end = np.maximum(ends, 0).tolist()
    return Slope(per_unit, (low_end, high_end), step)
