"""The search for a point of the front: a grid over weights, scales and temperatures, then ever smaller steps.

Metrics of rankings are step functions of the point, so nothing here needs a gradient. A point is a row of 2 m + 1
numbers, (w, c, β): weights, scale and temperatures. All points ever measured stay in a pool, and every question (what
is best, what is it at another threshold) is answered from the pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hyperdpo.choosing.bootstrap import Resamples
from hyperdpo.choosing.requirements import Requirement
from hyperdpo.core.preferences import stream, weight_grid

#: (P, 2 m + 1) points -> (P, K, G): of every metric the sums whose total, over that of its counts, is the metric.
Measure = Callable[[np.ndarray], np.ndarray]

#: Weights are multiples of one over this, so that a command line repeats a point exactly.
WEIGHT_PARTS = 10_000
#: Scales and temperatures have so many significant digits.
DIGITS = 3
#: Random vectors of temperatures, each round and start.
VECTORS = 3
#: A requirement that is missed by less is met: means are sums of floating point numbers.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Space:
    """Where a point may lie.

    Attributes:
        betas: the m temperatures of the run.
        scales: the grid of scales; the search stays between its ends.
        spread: how far a temperature may move from the run's, by a factor, while their geometric mean stays; 1: they
            stay as they are. Their common factor is the scale's business.
    """

    betas: tuple[float, ...]
    scales: tuple[float, ...]
    spread: float = 1.0

    @property
    def m(self) -> int:
        return len(self.betas)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        points: weightings of the grid; None: 21 for two objectives, 66 for three, 126 for more.
        rounds: of refinement, at most.
        price_rounds: at each neighbouring threshold, for the prices.
        starts: points that each round steps from.
        random: steps in random directions, each round and start; a mixture's take a handful of vectors of temperatures
            between them, since another vector costs as much as many weightings.
    """

    points: int | None = None
    rounds: int = 12
    price_rounds: int = 4
    starts: int = 2
    random: int = 24

    def grid_points(self, m: int) -> int:
        return max(self.points or {1: 1, 2: 21, 3: 66}.get(m, 126), m)


def rounded(points: np.ndarray, space: Space) -> np.ndarray:
    """Points as they can be written down: weights in 1/10,000 that sum to 1, three digits of scale and temperatures."""
    m = space.m
    exact = points[:, :m] * WEIGHT_PARTS
    parts = np.floor(exact + 1e-9)
    order = np.argsort(np.argsort(-(exact - parts), axis=1, kind="stable"), axis=1, kind="stable")
    parts += order < (WEIGHT_PARTS - parts.sum(1, keepdims=True))  # largest remainders
    digits = np.array([[float(f"{x:.{DIGITS}g}") for x in row] for row in points[:, m:]]).reshape(len(points), m + 1)
    digits[:, 0] = np.clip(digits[:, 0], space.scales[0], space.scales[-1])
    if space.spread == 1:
        digits[:, 1:] = space.betas
    return np.concatenate([parts / WEIGHT_PARTS, digits], axis=1)


def grid(space: Space, points: int) -> np.ndarray:
    """Weights times scales at the run's temperatures, and fewer weights with one temperature doubled or halved."""
    m = space.m
    betas = np.array(space.betas)
    vectors = [betas]
    if space.spread > 1 and m > 1:
        step = math.log(space.spread)
        for j in range(m):
            for sign in (1, -1):
                vectors.append(betas * np.exp(_centred(sign * step * np.eye(m)[j])))
    blocks = []
    for number, vector in enumerate(vectors):
        weights = weight_grid(m, points if number == 0 else max(points // 4, m))
        tiled = np.tile(weights, (len(space.scales), 1))
        scales = np.repeat(space.scales, len(weights))[:, None]
        blocks.append(np.concatenate([tiled, scales, np.tile(vector, (len(tiled), 1))], axis=1))
    return np.concatenate(blocks)


class Pool:
    """All points measured so far, with their metrics.

    Args:
        measure: of points; called once for each.
        resamples: of the same groups.
        requirements: R of them, with the positions of their metrics.
        goal: position of the metric that is to be as good as possible, and 1 if more of it is better, else -1.
        certain: requirements are to be met with this confidence; None: on average.
    """

    def __init__(
        self,
        measure: Measure,
        space: Space,
        resamples: Resamples,
        requirements: Sequence[tuple[Requirement, int]],
        goal: tuple[int, float],
        certain: float | None = None,
    ):
        self.measure, self.space, self.resamples, self.certain = measure, space, resamples, certain
        self.requirements, (self.goal, self.goal_sign) = list(requirements), goal
        k, m = len(resamples.counts), space.m
        self.points, self.means = np.empty((0, 2 * m + 1)), np.empty((0, k))
        self.judged = np.empty((0, len(self.requirements)))
        """(N, R): what is held against the thresholds, turned so that more is safer."""
        self._known: set[bytes] = set()
        self.norms = np.ones(len(self.requirements))
        """(R,): the ranges of the required metrics over the grid, in which violations are measured."""

    def add(self, candidates: np.ndarray) -> int:
        """Measure those that are new; how many they were."""
        fresh = []
        for point in rounded(candidates, self.space):
            key = point.tobytes()
            if key not in self._known:
                self._known.add(key)
                fresh.append(point)
        if not fresh:
            return 0
        points = np.array(fresh)
        sums = self.measure(points)
        means = self.resamples.means(sums)
        judged = np.empty((len(points), len(self.requirements)))
        for r, (requirement, metric) in enumerate(self.requirements):
            found = means[:, metric]
            if self.certain is not None:
                found = self.resamples.bounds(sums[:, metric], metric, requirement.sign, self.certain)
            judged[:, r] = requirement.sign * found
        self.points = np.concatenate([self.points, points])
        self.means = np.concatenate([self.means, means])
        self.judged = np.concatenate([self.judged, judged])
        return len(points)

    @property
    def thresholds(self) -> np.ndarray:
        """(R,), turned as :attr:`judged` is."""
        return np.array([r.sign * r.threshold for r, _ in self.requirements])

    @property
    def goals(self) -> np.ndarray:
        """(N,): the goal, turned so that more is better."""
        return np.asarray(self.goal_sign * self.means[:, self.goal])

    def violations(self, thresholds: np.ndarray) -> np.ndarray:
        """(N,): distance from the region where all requirements are met, in units of the metrics' ranges."""
        short = np.maximum(thresholds - self.judged - TOLERANCE, 0) / self.norms
        return np.asarray(np.sqrt((short**2).sum(1)))

    def order(self, thresholds: np.ndarray, instead: int | None = None) -> np.ndarray:
        """(N,) positions, best first: least violation, then the best goal, then what was measured first.

        Args:
            instead: a requirement, whose metric takes the place of the goal.
        """
        goals = self.goals if instead is None else self.judged[:, instead]
        return np.lexsort((-goals, self.violations(thresholds)))

    def best(self, thresholds: np.ndarray, instead: int | None = None) -> tuple[int, bool]:
        """Position of the best point, and whether it meets all requirements."""
        position = int(self.order(thresholds, instead)[0])
        return position, bool(self.violations(thresholds)[position] == 0)

    def search_grid(self, points: int) -> None:
        self.add(grid(self.space, points))
        for r, (_, metric) in enumerate(self.requirements):
            values = self.means[:, metric]
            width = float(values.max() - values.min())
            self.norms[r] = width if width > 0 else 1.0

    def refine(
        self,
        thresholds: np.ndarray,
        rounds: int,
        effort: Effort,
        rng: np.random.Generator,
        step: float = 0.5,
        instead: int | None = None,
    ) -> None:
        """Step from the best points to their neighbours; shorter steps whenever nothing better was found."""
        for _ in range(rounds):
            before, _ = self.best(thresholds, instead)
            starts = self._apart(self.order(thresholds, instead), effort.starts, step)
            self.add(np.concatenate([self._steps(self.points[i], step, effort, rng) for i in starts]))
            after, _ = self.best(thresholds, instead)
            if after == before:
                step /= 2
                if step < 1 / 64:
                    return

    def _apart(self, order: np.ndarray, count: int, step: float) -> list[int]:
        """The first of an order, without those within a step of an earlier one."""
        chosen: list[int] = []
        for i in order[: 50 * count]:
            if all(_distance(self.points[i], self.points[j], self.space.m) > step / 4 for j in chosen):
                chosen.append(int(i))
            if len(chosen) == count:
                break
        return chosen

    def _steps(self, point: np.ndarray, step: float, effort: Effort, rng: np.random.Generator) -> np.ndarray:
        """Neighbours of a point: along every axis together with the scale, and in random directions.

        A step of 1 moves a fifth of the weight, and the scale and temperatures by a factor of 2.
        """
        m = self.space.m
        w, log_scale = point[:m], math.log(point[m])
        offsets = np.log(point[m + 1 :] / self.space.betas)
        moves: list[tuple[np.ndarray, np.ndarray]] = [(w, offsets)]
        for i in range(m):
            for j in range(m):
                if i != j and w[j] > 0:
                    moves.append((_moved(w, i, j, step / 5), offsets))
        free = self.space.spread > 1 and m > 1
        if free:
            for j in range(m):
                for sign in (1, -1):
                    moves.append((w, offsets + _centred(sign * step * math.log(2) * np.eye(m)[j])))
        shifts = [0.0]
        if len(self.space.scales) > 1:
            shifts += [step * math.log(2), -step * math.log(2)]
        rows = [(weights, log_scale + shift, betas) for weights, betas in moves for shift in shifts]
        vectors = [offsets, *(offsets + _centred(rng.normal(size=m) * step / 2) for _ in range(VECTORS if free else 0))]
        for number in range(effort.random if m > 1 else 0):
            towards = rng.dirichlet(np.full(m, 0.5)) - rng.dirichlet(np.full(m, 0.5))
            weights = np.maximum(w + rng.random() * step / 5 * towards, 0)
            shift = rng.normal() * step / 2 if len(self.space.scales) > 1 else 0.0
            rows.append((weights / weights.sum(), log_scale + shift, vectors[number % len(vectors)]))
        low, high = math.log(self.space.scales[0]), math.log(self.space.scales[-1])
        limit = math.log(self.space.spread)
        found = [
            [
                *weights,
                math.exp(min(max(scale, low), high)),
                *(np.array(self.space.betas) * np.exp(np.clip(betas, -limit, limit))),
            ]
            for weights, scale, betas in rows
        ]
        return np.array(found)


def _moved(w: np.ndarray, to: int, source: int, amount: float) -> np.ndarray:
    """Weights with some of one objective's given to another."""
    amount = min(amount, w[source])
    moved = w.copy()
    moved[to] += amount
    moved[source] -= amount
    return moved


def _centred(offsets: np.ndarray) -> np.ndarray:
    return np.asarray(offsets - offsets.mean())


def _distance(first: np.ndarray, second: np.ndarray, m: int) -> float:
    """In steps; see :meth:`Pool._steps`."""
    weights = 2.5 * float(np.abs(first[:m] - second[:m]).sum())
    factors = float(np.abs(np.log(first[m:] / second[m:])).max()) / math.log(2)
    return max(weights, factors)


def without(thresholds: np.ndarray, r: int) -> np.ndarray:
    """The thresholds with one requirement that asks for nothing."""
    return np.where(np.arange(len(thresholds)) == r, -np.inf, thresholds)


def neighbours(pool: Pool, share: float) -> np.ndarray:
    """(R,): how far thresholds are moved for the prices: a share of each required metric's range over the grid."""
    return share * pool.norms


def searched(pool: Pool, effort: Effort, seed: int, share: float) -> None:
    """Fill the pool: the grid, refinement at the thresholds, and at each of them moved either way.

    Where they cannot be met, each metric in turn is made as good as it gets while the others are met.
    """
    thresholds = pool.thresholds
    pool.search_grid(effort.grid_points(pool.space.m))
    pool.refine(thresholds, effort.rounds, effort, stream(seed, 18))
    if not pool.best(thresholds)[1]:
        for r in range(len(thresholds)):  # what could be required instead
            pool.refine(without(thresholds, r), effort.price_rounds, effort, stream(seed, 21, r), instead=r)
        return
    moved = neighbours(pool, share)
    for r in range(len(thresholds)):
        for side, sign in enumerate((1, -1)):
            other = thresholds + sign * moved[r] * np.eye(len(thresholds))[r]
            pool.refine(other, effort.price_rounds, effort, stream(seed, 18, r, side), 0.25)
    pool.refine(thresholds, effort.price_rounds, effort, stream(seed, 19), 0.125)
