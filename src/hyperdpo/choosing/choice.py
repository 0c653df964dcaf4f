"""From measured fronts to an answer: the point, how sure its requirements are, what they cost. No files, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hyperdpo.choosing.bootstrap import Resamples
from hyperdpo.choosing.requirements import Requirement, check_metrics
from hyperdpo.choosing.search import Effort, Measure, Pool, Space, neighbours, searched, without
from hyperdpo.errors import InputError

#: A price is the slope between thresholds this share of the metric's range apart from the one that was asked for.
PRICE_SHARE = 0.05


@dataclass(frozen=True)
class Sample:
    """Groups on which points can be measured.

    Attributes:
        names: of the K metrics.
        larger_is_better: (K,).
        counts: (K, G), see :mod:`hyperdpo.choosing.bootstrap`.
        measure: of points; (P, K, G) sums.
        base: (K, G) sums of the base.
    """

    names: tuple[str, ...]
    larger_is_better: tuple[bool, ...]
    counts: np.ndarray
    measure: Measure
    base: np.ndarray
    description: str = ""

    def position(self, name: str) -> int:
        return self.names.index(name)


@dataclass(frozen=True)
class Measured:
    """One metric of the chosen point."""

    value: float
    low: float
    high: float
    """Two-sided confidence interval."""
    base: float
    """Of the base."""


@dataclass(frozen=True)
class Verdict:
    """One requirement at the chosen point."""

    requirement: Requirement
    value: float
    bound: float
    """The one-sided confidence bound on the side that matters: below the value for ``>=``."""
    holds: bool
    """The bound meets the threshold."""
    share: float
    """Of the resamples in which it is met."""
    price: float | None
    """How much of the goal one more unit of the requirement costs, >= 0; None where requirements cannot be met."""
    price_interval: tuple[float, float] | None
    price_step: float
    """How far the threshold was moved either way for the price."""
    attainable: float | None
    """The most (for ``<=`` the least) of its metric that a point has which meets the others; None: no point does."""


@dataclass(frozen=True)
class Choice:
    """A point of the front, and what is known of it."""

    weights: dict[str, float]
    scale: float
    temperatures: dict[str, float]
    met: bool
    """Whether all requirements are met on the groups that the point was chosen on; if not, the point is the nearest."""
    goal: str
    maximize: bool
    confidence: float
    certain: bool
    metrics: dict[str, Measured]
    """On the groups that are reported on."""
    requirements: tuple[Verdict, ...]
    joint_share: float
    """Of the resamples in which all requirements are met."""
    chosen_on: dict[str, Any]
    reported_on: dict[str, Any]
    """Of both: what they are (``description``), the number of groups, and the metrics of the point."""
    points_measured: int
    resamples: int
    temperatures_searched: bool = False
    scale_at_end: bool = False
    """The scale lies at an end of the grid: one beyond it may be better."""
    details: dict[str, Any] = field(default_factory=dict)
    """From commands: how to use the point."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "weights": self.weights,
            "scale": self.scale,
            "temperature": list(self.temperatures.values()),
            "met": self.met,
            "goal": {"metric": self.goal, "direction": "maximize" if self.maximize else "minimize"},
            "confidence": self.confidence,
            "certain": self.certain,
            "metrics": {
                name: {"value": one.value, "interval": [one.low, one.high], "base": one.base}
                for name, one in self.metrics.items()
            },
            "requirements": [
                {
                    "requirement": str(v.requirement),
                    "metric": v.requirement.name,
                    "sense": v.requirement.sense,
                    "threshold": v.requirement.threshold,
                    "value": v.value,
                    "bound": v.bound,
                    "holds": v.holds,
                    "share_of_resamples": v.share,
                    "price": v.price,
                    "price_interval": None if v.price_interval is None else list(v.price_interval),
                    "price_step": v.price_step,
                    "attainable": v.attainable,
                }
                for v in self.requirements
            ],
            "share_of_resamples_all_met": self.joint_share,
            "chosen_on": self.chosen_on,
            "reported_on": self.reported_on,
            "points_measured": self.points_measured,
            "resamples": self.resamples,
            "temperatures_searched": self.temperatures_searched,
            "scale_at_end": self.scale_at_end,
            **self.details,
        }


def choose_point(
    sample: Sample,
    space: Space,
    objectives: Sequence[str],
    requirements: Sequence[Requirement],
    goal: str,
    *,
    maximize: bool = True,
    confidence: float = 0.95,
    certain: bool = False,
    holdout: Sample | None = None,
    effort: Effort | None = None,
    seed: int = 0,
    resamples: int | None = None,
) -> Choice:
    """The point of a front that makes one metric as good as possible and meets requirements on others.

    Args:
        sample: the groups to choose on.
        space: where points may lie.
        objectives: the m names, in the order of the weights.
        requirements: bounds on means. Where no point meets them all, the answer is the one nearest to that.
        goal: the metric that is maximised (minimised with ``maximize=False``).
        confidence: of the intervals (two-sided) and of the requirements (one-sided).
        certain: choose among points whose requirements are met with that confidence, not just on average.
        holdout: other groups of the same metrics, from which intervals and verdicts come; None: those of ``sample``.
        effort: how much is measured.
        seed: of resamples and random steps.
        resamples: of the bootstrap.

    Raises:
        InputError: an unknown metric, one that no group has, a goal in the wrong direction, or a confidence that is not
            between 0.5 and 1.
    """
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence: found {confidence:g}; expected a number from 0.5 to 1, below 1")
    effort = effort or Effort()
    check_metrics(requirements, goal, maximize=maximize, names=sample.names, larger_is_better=sample.larger_is_better)
    reported = sample if holdout is None else holdout
    for one in (sample, reported):
        for name in (*(r.name for r in requirements), goal):
            if not one.counts[one.position(name)].any():
                raise InputError(f"{one.description or 'data'}: no group says anything about {name}; expected labels")
    placed = [(r, sample.position(r.name)) for r in requirements]
    k, sign = sample.position(goal), 1.0 if maximize else -1.0
    draws = Resamples(sample.counts, seed, resamples)
    pool = Pool(sample.measure, space, draws, placed, (k, sign), confidence if certain else None)
    searched(pool, effort, seed, PRICE_SHARE)
    thresholds = pool.thresholds
    position, met = pool.best(thresholds)
    point = pool.points[position]
    m = space.m

    report_draws = draws if holdout is None else Resamples(reported.counts, seed, resamples)
    sums = reported.measure(point[None])
    means = report_draws.means(sums)[0]
    base = report_draws.means(reported.base[None])[0]
    metrics, by_metric = {}, {}
    for i, name in enumerate(reported.names):
        if not reported.counts[i].any():
            continue
        by_metric[name] = report_draws.resampled(sums[:, i], i)[0]
        low, high = np.nanquantile(by_metric[name], [(1 - confidence) / 2, (1 + confidence) / 2])
        metrics[name] = Measured(float(means[i]), float(low), float(high), float(base[i]))

    verdicts, all_met = [], np.ones(report_draws.number, dtype=bool)
    moved = neighbours(pool, PRICE_SHARE)
    for r, (requirement, _) in enumerate(placed):
        values = by_metric[requirement.name]
        side = requirement.sign
        bound = float(np.nanquantile(values, 1 - confidence if side > 0 else confidence))
        meets = side * values >= side * requirement.threshold - TOLERANCE_OF_RESAMPLES
        all_met &= meets
        price, interval = (None, None) if not met else _price(pool, thresholds, r, moved[r], confidence)
        verdicts.append(
            Verdict(
                requirement=requirement,
                value=metrics[requirement.name].value,
                bound=bound,
                holds=bool(side * bound >= side * requirement.threshold - TOLERANCE_OF_RESAMPLES),
                share=float(meets.mean()),
                price=price,
                price_interval=interval,
                price_step=float(moved[r]),
                attainable=_attainable(pool, thresholds, r),
            )
        )

    def described(one: Sample, values: np.ndarray) -> dict[str, Any]:
        found = {name: float(v) for name, v in zip(one.names, values, strict=True) if not np.isnan(v)}
        return {"description": one.description, "groups": one.counts.shape[1], "metrics": found}

    return Choice(
        weights=dict(zip(objectives, map(float, point[:m]), strict=True)),
        scale=float(point[m]),
        temperatures=dict(zip(objectives, map(float, point[m + 1 :]), strict=True)),
        met=met,
        goal=goal,
        maximize=maximize,
        confidence=confidence,
        certain=certain,
        metrics=metrics,
        requirements=tuple(verdicts),
        joint_share=float(all_met.mean()),
        chosen_on=described(sample, pool.means[position]),
        reported_on=described(reported, pool.means[position] if holdout is None else means),
        points_measured=len(pool.points),
        resamples=report_draws.number,
        temperatures_searched=space.spread > 1 and m > 1,
        scale_at_end=len(space.scales) > 1 and float(point[m]) in (space.scales[0], space.scales[-1]),
    )


#: Resampled means are in single precision.
TOLERANCE_OF_RESAMPLES = 1e-6


def _price(
    pool: Pool, thresholds: np.ndarray, r: int, step: float, confidence: float
) -> tuple[float | None, tuple[float, float] | None]:
    """The slope of the best goal between two thresholds of requirement r, and its interval with both points fixed.

    Where the tighter threshold cannot be met, the slope up to the threshold itself.
    """
    shift = step * np.eye(len(thresholds))[r]
    tight, possible = pool.best(thresholds + shift)
    width = 2 * step
    if not possible:
        tight, _ = pool.best(thresholds)
        width = step
    loose, _ = pool.best(thresholds - shift)
    price = float(pool.goals[loose] - pool.goals[tight]) / width
    if tight == loose:
        return price, (price, price)
    sums = pool.measure(pool.points[[loose, tight]])[:, pool.goal]
    values = pool.goal_sign * pool.resamples.resampled(sums, pool.goal)
    low, high = np.nanquantile((values[0] - values[1]) / width, [(1 - confidence) / 2, (1 + confidence) / 2])
    return price, (float(low), float(high))


def _attainable(pool: Pool, thresholds: np.ndarray, r: int) -> float | None:
    allowed = pool.violations(without(thresholds, r)) == 0
    if not allowed.any():
        return None
    requirement, _ = pool.requirements[r]
    return float(requirement.sign * pool.judged[allowed, r].max())
