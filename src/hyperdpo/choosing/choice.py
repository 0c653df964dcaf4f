"""The choice of a point from measured metrics: how sure its requirements are met, and what they cost.

Nothing here knows files or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hyperdpo.choosing.bootstrap import FEWEST_GROUPS, Resamples, bound, number_of_resamples
from hyperdpo.choosing.edge import take_best_weight
from hyperdpo.choosing.prices import Slope, loosening, tightening
from hyperdpo.choosing.requirements import Requirement, check_metrics
from hyperdpo.choosing.search import Effort, Measure, Pool, Space, searched
from hyperdpo.errors import InputError

#: Resampled means are in single precision.
TOLERANCE_OF_RESAMPLES = 1e-6


@dataclass(frozen=True)
class Sample:
    """Groups on which points can be measured.

    Attributes:
        names: the K metrics.
        larger_is_better: (K,).
        counts: (K, G), see :mod:`hyperdpo.choosing.bootstrap`.
        measure: gives (P, K, G) sums of points.
        base: (K, G) sums of the base.
        edge: of two objectives, the (K, 10,001) sums over groups at all weights in steps of 1/10,000, from a point that
            gives all else; None where the ranking there is not that of a weighted sum.
    """

    names: tuple[str, ...]
    larger_is_better: tuple[bool, ...]
    counts: np.ndarray
    measure: Measure
    base: np.ndarray
    description: str = ""
    edge: Callable[[np.ndarray], np.ndarray | None] | None = None


@dataclass(frozen=True)
class Measured:
    """One metric of the chosen point."""

    value: float
    low: float
    high: float
    """Two-sided confidence interval."""
    base: float
    """The base's value."""


@dataclass(frozen=True)
class Verdict:
    """One requirement at the chosen point."""

    requirement: Requirement
    value: float
    bound: float | None
    """The one-sided confidence bound, below the value for ``>=``: the largest (for ``<=`` the least) threshold that is
    met with the confidence; None: too many resamples have no group with the metric."""
    holds: bool | None
    """Whether the bound meets the threshold: ``share`` is at least the confidence. None: too few groups."""
    share: float
    """The share of resamples that meet it; a resample in which no group has the metric does not."""
    groups: int
    """How many groups have the metric; fewer than 20 are too few."""
    tightening: Slope | None
    """What one more unit of the requirement costs; None where it cannot be tightened (or met)."""
    loosening: Slope | None
    """What one unit less would gain; None where requirements cannot be met."""
    attainable: float | None
    """The most (for ``<=`` the least) of its metric among points that meet the others; None: there is no such point."""

    @property
    def price(self) -> float | None:
        """What one more unit of the requirement costs of the goal, >= 0; None where it cannot be tightened."""
        return None if self.tightening is None else self.tightening.per_unit

    @property
    def gain(self) -> float | None:
        """What one unit less of the requirement gains of the goal, >= 0; None where requirements cannot be met."""
        return None if self.loosening is None else self.loosening.per_unit

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "requirement": str(self.requirement),
            "metric": self.requirement.name,
            "sense": self.requirement.sense,
            "threshold": self.requirement.threshold,
            "value": self.value,
            "bound": self.bound,
            "holds": self.holds,
            "share_of_resamples": self.share,
            "groups": self.groups,
            **_named("price", self.tightening),
            **_named("gain", self.loosening),
            "attainable": self.attainable,
        }


def _named(name: str, slope: Slope | None) -> dict[str, Any]:
    per_unit, interval, step = (None,) * 3 if slope is None else (slope.per_unit, list(slope.interval), slope.step)
    return {name: per_unit, f"{name}_interval": interval, f"{name}_step": step}


@dataclass(frozen=True)
class Choice:
    """A point of the front, with its metrics and its requirements."""

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
    """The share of resamples that meet all requirements."""
    holds: bool | None
    """Whether ``joint_share`` is at least the confidence; None: too few groups."""
    chosen_on: dict[str, Any]
    reported_on: dict[str, Any]
    """The groups of each: what they are (``description``), how many (``groups``), and the point's ``metrics`` there."""
    points_measured: int
    resamples: int
    temperature_ends: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The ends between which each temperature was searched; empty: they were left as they are."""
    temperatures_trained: bool = False
    """Those ends are what the run was trained on."""
    scale_at_end: bool = False
    """The scale lies at an end of the grid: one beyond it may be better."""
    main_share: float | None = None
    """λ, the main label's share; None for a model that takes none."""
    best_of_all_weights: bool = False
    """No weight in steps of 1/10,000 is better at this share, scale and temperature."""
    details: dict[str, Any] = field(default_factory=dict)
    """What a command adds: how to use the point, and of a language model the GGUF file of its base."""

    @property
    def temperatures_searched(self) -> bool:
        """Whether temperatures were searched, not left as they are."""
        return bool(self.temperature_ends)

    @property
    def temperatures_at_end(self) -> list[str]:
        """The objectives whose temperature lies at an end of its search."""
        return [name for name, ends in self.temperature_ends.items() if self.temperatures[name] in ends]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "weights": self.weights,
            "scale": self.scale,
            **({} if self.main_share is None else {"main_share": self.main_share}),
            "temperature": list(self.temperatures.values()),
            "met": self.met,
            "goal": {"metric": self.goal, "direction": "maximize" if self.maximize else "minimize"},
            "confidence": self.confidence,
            "certain": self.certain,
            "metrics": {
                name: {"value": one.value, "interval": [one.low, one.high], "base": one.base}
                for name, one in self.metrics.items()
            },
            "requirements": [v.to_dict() for v in self.requirements],
            "share_of_resamples_all_met": self.joint_share,
            "holds": self.holds,
            "chosen_on": self.chosen_on,
            "reported_on": self.reported_on,
            "points_measured": self.points_measured,
            "best_of_all_weights": self.best_of_all_weights,
            "resamples": self.resamples,
            "temperatures_searched": self.temperatures_searched,
            "temperatures_at_end": self.temperatures_at_end,
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
        confidence: confidence of the intervals (two-sided) and of the requirements (one-sided).
        certain: choose among points whose requirements are met with that confidence, not only on average.
        holdout: other groups with the same metrics, for intervals and verdicts; None: those of ``sample``.
        effort: how much is measured.
        seed: seed of resamples and random steps.
        resamples: number of resamples; None: see :func:`~hyperdpo.choosing.bootstrap.number_of_resamples`.

    Raises:
        InputError: an unknown metric, one that no group has, a goal in the wrong direction, a confidence that is not
            between 0.5 and 1, or resamples too few for it.
    """
    if not 0.5 <= confidence < 1:
        raise InputError(f"confidence: found {confidence:g}; expected a number from 0.5 to 1, below 1")
    effort = effort or Effort()
    check_metrics(requirements, goal, maximize=maximize, names=sample.names, larger_is_better=sample.larger_is_better)
    reported = sample if holdout is None else holdout
    for one in (sample, reported):
        for name in (*(r.name for r in requirements), goal):
            if not one.counts[one.names.index(name)].any():
                raise InputError(f"{one.description or 'data'}: no group has labels for {name}; expected at least one")
    placed = [(r, sample.names.index(r.name)) for r in requirements]
    k, sign = sample.names.index(goal), 1.0 if maximize else -1.0
    draws = _resamples(sample, confidence, seed, resamples)
    pool = Pool(sample.measure, space, draws, placed, (k, sign), confidence if certain else None, effort.block_numbers)
    searched(pool, effort, seed)
    of_all = not certain and sample.edge is not None and take_best_weight(pool, sample.edge)
    position, met = pool.best(pool.thresholds)
    point = pool.points[position]
    m, scales = space.m, pool.space.scales

    report_draws = draws if holdout is None else _resamples(reported, confidence, seed, resamples)
    sums = reported.measure(point[None])
    metrics = _measured(reported, report_draws, sums, confidence)
    verdicts, all_met = [], np.ones(report_draws.number, dtype=bool)
    for r, (requirement, metric) in enumerate(placed):
        side, attainable = requirement.sign, pool.attainable(r)
        turned = report_draws.turned(sums[:, metric], metric, side)[0]
        enough = side * requirement.threshold - TOLERANCE_OF_RESAMPLES
        edge, groups = float(bound(turned, confidence)), int(np.count_nonzero(reported.counts[metric]))
        all_met &= turned >= enough
        verdicts.append(
            Verdict(
                requirement=requirement,
                value=metrics[requirement.name].value,
                bound=side * edge if np.isfinite(edge) else None,
                holds=None if groups < FEWEST_GROUPS else edge >= enough,
                share=float((turned >= enough).mean()),
                groups=groups,
                tightening=tightening(pool, r, confidence) if met else None,
                loosening=loosening(pool, r, confidence) if met else None,
                attainable=None if attainable is None else side * attainable,
            )
        )
    joint = float(all_met.mean())

    def described(one: Sample, values: np.ndarray) -> dict[str, Any]:
        found = {name: float(v) for name, v in zip(one.names, values, strict=True) if not np.isnan(v)}
        return {"description": one.description, "groups": one.counts.shape[1], "metrics": found}

    return Choice(
        weights=dict(zip(objectives, map(float, point[:m]), strict=True)),
        scale=float(point[m]),
        temperatures=dict(zip(objectives, map(float, point[m + 1 : 2 * m + 1]), strict=True)),
        main_share=float(point[-1]) if space.shares else None,
        met=met,
        goal=goal,
        maximize=maximize,
        confidence=confidence,
        certain=certain,
        metrics=metrics,
        requirements=tuple(verdicts),
        joint_share=joint,
        holds=None if any(v.holds is None for v in verdicts) else joint >= confidence,
        chosen_on=described(sample, pool.means[position]),
        reported_on=described(reported, pool.means[position] if holdout is None else report_draws.means(sums)[0]),
        points_measured=len(pool.points),
        resamples=report_draws.number,
        temperature_ends=dict(zip(objectives, space.box, strict=True)) if space.box and space.free else {},
        temperatures_trained=space.trained,
        scale_at_end=len(scales) > 1 and float(point[m]) in (scales[0], scales[-1]),
        best_of_all_weights=of_all,
    )


def _resamples(sample: Sample, confidence: float, seed: int, asked: int | None) -> Resamples:
    return Resamples(sample.counts, seed, number_of_resamples(confidence, sample.counts.shape[1], asked))


def _measured(sample: Sample, draws: Resamples, sums: np.ndarray, confidence: float) -> dict[str, Measured]:
    """Value, two-sided interval and base of every metric that a group has, from the (1, K, G) sums of a point.

    The interval leaves out resamples in which no group has the metric.
    """
    values, base = draws.means(sums)[0], draws.means(sample.base[None])[0]
    found = {}
    for i, name in enumerate(sample.names):
        if sample.counts[i].any():
            ends = [(1 - confidence) / 2, (1 + confidence) / 2]
            low, high = np.nanquantile(draws.resampled(sums[:, i], i)[0], ends).tolist()
            found[name] = Measured(float(values[i]), low, high, float(base[i]))
    return found
