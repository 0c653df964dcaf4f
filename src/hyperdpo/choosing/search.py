"""The search for a point of the front: a grid over weights, scales, temperatures and shares, then ever smaller steps.

Metrics of rankings are step functions of the point, so nothing here needs a gradient. A point is a row of 2 m + 1
numbers, (w, c, β): weights, scale and temperatures; with λ, 2 m + 2, for a ranker that takes the main label's share.
All points ever measured stay in a pool, and every question (what is best, what is it at another threshold) is answered
from the pool.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyperdpo.choosing.bootstrap import Resamples, bound
from hyperdpo.choosing.requirements import Requirement
from hyperdpo.core.preferences import stream, weight_grid

#: (P, 2 m + 1 or 2) points -> (P, K, G): of every metric the sums whose total, over that of its counts, is the metric.
Measure = Callable[[np.ndarray], np.ndarray]

#: Weights are multiples of one over this, so that a command line repeats a point exactly.
WEIGHT_PARTS = 10_000
#: Significant digits of scales and temperatures, and decimals of shares.
DIGITS = 3
#: Random vectors of temperatures per round and start.
VECTORS = 3
#: A requirement that is missed by less counts as met, because of rounding.
TOLERANCE = 1e-9
#: See :attr:`Effort.block_numbers`.
BLOCK_NUMBERS = 20_000_000
#: Prices move a requirement by this share of its metric's range over the grid, rounded to one digit.
PRICE_SHARE = 0.05
#: A threshold that can be raised by less than this part of that step counts as one that cannot be raised.
LEAST_STEP = 1e-3

#: The least and the largest value of each of the m temperatures.
Box = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Space:
    """Where a point may lie.

    Attributes:
        betas: the m temperatures of the run.
        scales: the grid of scales; the search stays between its ends.
        box: the ends of the temperatures; None: they stay as they are. Within the box, steps keep their geometric mean:
            a common factor is left to the scale.
        trained: whether the box is what the run was trained on, not only what is searched.
        shares: the grid of shares λ; the search stays between its ends. Empty: points have none.
    """

    betas: tuple[float, ...]
    scales: tuple[float, ...]
    box: Box | None = None
    trained: bool = False
    shares: tuple[float, ...] = ()

    @property
    def m(self) -> int:
        return len(self.betas)

    @property
    def at_one_scale(self) -> Space:
        """The same with only the scale that is nearest to 1."""
        return replace(self, scales=(min(max(1.0, self.scales[0]), self.scales[-1]),))

    @property
    def free(self) -> bool:
        """Whether temperatures are searched."""
        return self.box is not None and self.m > 1

    @property
    def reach(self) -> float:
        """Logarithm of the factor by which the grid moves a temperature: half the way through the widest side."""
        return max(math.log(high / low) for low, high in self.box or ((1.0, 1.0),)) / 2

    def boxed(self, temperatures: np.ndarray) -> np.ndarray:
        """(..., m) temperatures where they may lie."""
        if not self.free:
            return np.broadcast_to(np.array(self.betas), temperatures.shape)
        low, high = np.array(self.box).T
        return np.clip(temperatures, low, high)


def written_box(low: Sequence[float], high: Sequence[float]) -> Box:
    """A box whose ends have :data:`DIGITS` digits, none beyond the ends given; too narrow a side stays as it is."""
    found = []
    for ends in zip(low, high, strict=True):
        inner = _written(ends[0], up=True), _written(ends[1], up=False)
        found.append(inner if inner[0] <= inner[1] else (float(ends[0]), float(ends[1])))
    return tuple(found)


def _written(value: float, *, up: bool) -> float:
    """The nearest number of :data:`DIGITS` digits that is not below (``up``) or not above."""
    near = float(f"{value:.{DIGITS}g}")
    if near == value or (near > value) == up:
        return near
    step = 10.0 ** (math.floor(math.log10(value)) - DIGITS + 1)
    return float(f"{near + (step if up else -step):.{DIGITS}g}")


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        points: number of weightings in the grid; None: 21 for two objectives, 66 for three, 126 for more.
        rounds: most rounds of refinement.
        price_rounds: most rounds at each neighbouring threshold, for the prices.
        starts: points that each round steps from.
        random: steps in random directions, each round and start. They share a few vectors of temperatures, since
            another vector costs as much as many weightings.
        block_numbers: the most sums that are held at once, in numbers of 8 bytes.
    """

    points: int | None = None
    rounds: int = 12
    price_rounds: int = 4
    starts: int = 2
    random: int = 24
    block_numbers: int = BLOCK_NUMBERS

    def grid_points(self, m: int) -> int:
        """Number of weightings in the grid over m objectives."""
        return max(self.points or {1: 1, 2: 21, 3: 66}.get(m, 126), m)


def whole_parts(exact: np.ndarray, total: int) -> np.ndarray:
    """(P, m) whole numbers with the sum ``total`` in every row, from (P, m) numbers with about that sum.

    All are rounded down, and those with the largest remainders up.
    """
    parts = np.floor(exact + 1e-9)
    order = np.argsort(np.argsort(parts - exact, axis=1, kind="stable"), axis=1, kind="stable")
    return np.asarray(parts + (order < total - parts.sum(1, keepdims=True)))


def rounded(points: np.ndarray, space: Space) -> np.ndarray:
    """Points as they can be written down: weights in 1/10,000 that sum to 1, three digits of all else."""
    m = space.m
    parts = whole_parts(points[:, :m] * WEIGHT_PARTS, WEIGHT_PARTS)
    numbers, shares = points[:, m : 2 * m + 1], points[:, 2 * m + 1 :].round(DIGITS)
    digits = np.array([[float(f"{x:.{DIGITS}g}") for x in row] for row in numbers]).reshape(numbers.shape)
    digits[:, 0] = np.clip(digits[:, 0], space.scales[0], space.scales[-1])
    digits[:, 1:] = space.boxed(digits[:, 1:])
    if space.shares:
        shares = shares.clip(space.shares[0], space.shares[-1])
    return np.concatenate([parts / WEIGHT_PARTS, digits, shares], axis=1)


def grid(space: Space, points: int) -> np.ndarray:
    """Weights times scales times shares at the run's temperatures; fewer weights with one temperature up or down.

    Fewer weights, too, where both scales and shares are searched.
    """
    m = space.m
    betas = space.boxed(np.array(space.betas))
    moves = space.reach * _turns(m) if space.free else np.empty((0, m))
    vectors = [betas, *space.boxed(betas * np.exp(moves))]
    shares: list[tuple[float, ...]] = [(share,) for share in space.shares] or [()]
    fewer = max(points // 4, m)
    rows: list[list[float]] = []
    for number, vector in enumerate(vectors):
        many = number == 0 and min(len(space.scales), len(shares)) == 1
        weights = weight_grid(m, points if many else fewer)
        rows += [[*w, c, *vector, *share] for share in shares for c in space.scales for w in weights]
    return np.array(rows)


class Pool:
    """All points measured so far, with their metrics.

    Args:
        measure: measures points; called once for each.
        resamples: resamples of the same groups.
        requirements: R of them, with the positions of their metrics.
        goal: position of the metric that is to be as good as possible, and 1 if more of it is better, else -1.
        certain: the confidence with which requirements have to be met; None: on average.
        block_numbers: see :class:`Effort`.
    """

    def __init__(
        self,
        measure: Measure,
        space: Space,
        resamples: Resamples,
        requirements: Sequence[tuple[Requirement, int]],
        goal: tuple[int, float],
        certain: float | None = None,
        block_numbers: int = BLOCK_NUMBERS,
    ):
        self.measure, self.space, self.resamples, self.certain = measure, space, resamples, certain
        self.requirements, (self.goal, self.goal_sign) = list(requirements), goal
        self.block_numbers = block_numbers
        k, m = len(resamples.counts), space.m
        self.points, self.means = np.empty((0, 2 * m + 1 + bool(space.shares))), np.empty((0, k))
        self.judged = np.empty((0, len(self.requirements)))
        """(N, R): what is held against the thresholds, turned so that more is safer."""
        self._known: set[bytes] = set()
        self.norms = np.ones(len(self.requirements))
        """(R,): the ranges of the required metrics over the grid, in which violations are measured."""

    def add(self, candidates: np.ndarray) -> int:
        """Measure the points that are new, and return how many they were."""
        fresh = []
        for point in rounded(candidates, self.space):
            key = point.tobytes()
            if key not in self._known:
                self._known.add(key)
                fresh.append(point)
        if not fresh:
            return 0
        points = np.array(fresh)
        means = np.empty((len(points), self.means.shape[1]))
        judged = np.empty((len(points), len(self.requirements)))
        each = self.resamples.counts.size + (0 if self.certain is None else self.resamples.number)
        m, size = self.space.m, max(self.block_numbers // each, 1)
        # Points that differ in their scale alone come together: a measure scores them once.
        order = np.lexsort(np.concatenate([points[:, m : m + 1], points[:, :m], points[:, m + 1 :]], axis=1).T)
        for block in (order[start : start + size] for start in range(0, len(order), size)):
            means[block], judged[block] = self._judged(self.measure(points[block]))
        self.points = np.concatenate([self.points, points])
        self.means = np.concatenate([self.means, means])
        self.judged = np.concatenate([self.judged, judged])
        return len(points)

    def _judged(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P, K) means and (P, R), see :attr:`judged`, from (P, K, G) sums."""
        means = self.resamples.means(sums)
        judged = np.empty((len(sums), len(self.requirements)))
        for r, (requirement, metric) in enumerate(self.requirements):
            if self.certain is None:
                judged[:, r] = requirement.sign * means[:, metric]
            else:
                judged[:, r] = bound(self.resamples.turned(sums[:, metric], metric, requirement.sign), self.certain)
        return means, judged

    def turned(self, means: np.ndarray) -> np.ndarray:
        """(P, R) required metrics of (P, K) means, turned so that more is safer."""
        return np.stack([r.sign * means[:, k] for r, k in self.requirements], 1) if self.requirements else means[:, :0]

    @property
    def thresholds(self) -> np.ndarray:
        """(R,), turned as :attr:`judged` is."""
        return np.array([r.sign * r.threshold for r, _ in self.requirements])

    @property
    def goals(self) -> np.ndarray:
        """(N,): the goal, turned so that more is better."""
        return np.asarray(self.goal_sign * self.means[:, self.goal])

    def violations(self, thresholds: np.ndarray, judged: np.ndarray | None = None) -> np.ndarray:
        """(N,) distances from the region where all requirements are met, in units of the metrics' ranges.

        Args:
            judged: (N, R) of other points than the pool's, as :attr:`judged`.
        """
        judged = self.judged if judged is None else judged
        asked = np.isfinite(thresholds)  # -inf asks for nothing, not even for a bound
        short = np.maximum(thresholds[asked] - judged[:, asked] - TOLERANCE, 0) / self.norms[asked]
        return np.asarray(np.sqrt((short**2).sum(1)))

    def order(self, thresholds: np.ndarray, instead: int | None = None) -> np.ndarray:
        """(N,) positions, best first: least violation, then the best goal, then the earliest measurement.

        Args:
            instead: a requirement whose metric replaces the goal.
        """
        goals = self.goals if instead is None else self.judged[:, instead]
        return np.lexsort((-goals, self.violations(thresholds)))

    def best(self, thresholds: np.ndarray, instead: int | None = None) -> tuple[int, bool]:
        """Position of the best point, and whether it meets all requirements."""
        position = int(self.order(thresholds, instead)[0])
        return position, bool(self.violations(thresholds)[position] == 0)

    def attainable(self, r: int) -> float | None:
        """The most of requirement r's metric, turned, among points that meet the other requirements.

        None: no point meets the others, or none has a bound.
        """
        allowed = self.violations(without(self.thresholds, r)) == 0
        most = float(self.judged[allowed, r].max(initial=-np.inf))
        return most if math.isfinite(most) else None

    @property
    def steps(self) -> np.ndarray:
        """(R,): how far thresholds are moved for the prices."""
        return np.array([float(f"{PRICE_SHARE * norm:.1g}") for norm in self.norms])

    def search_grid(self, points: int) -> None:
        """Measure the grid, and set :attr:`norms`."""
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
        """Neighbours of a point: along every axis together with scale or share, and in random directions.

        A step of 1 moves a fifth of the weight, the share by a fifth, and the scale and temperatures by a factor of 2.
        """
        m, free, scaled, shared = self.space.m, self.space.free, len(self.space.scales) > 1, len(self.space.shares) > 1
        w, log_scale, share = point[:m], math.log(point[m]), point[2 * m + 1 :]
        offsets, factor = np.log(point[m + 1 : 2 * m + 1] / self.space.betas), step * math.log(2)
        moves = [(w, offsets)]
        moves += [(_moved(w, i, j, step / 5), offsets) for i in range(m) for j in range(m) if i != j and w[j] > 0]
        moves += [(w, offsets + move) for move in factor * _turns(m)] if free else []
        shifts = [(0.0, 0.0), *([(factor, 0.0), (-factor, 0.0)] if scaled else [])]
        shifts += [(0.0, step / 5), (0.0, -step / 5)] if shared else []
        rows = [(weights, log_scale + c, betas, share + part) for weights, betas in moves for c, part in shifts]
        vectors = [offsets, *(offsets + _centred(rng.normal(size=m) * step / 2) for _ in range(VECTORS if free else 0))]
        for number in range(effort.random if m > 1 else 0):
            towards = rng.dirichlet(np.full(m, 0.5)) - rng.dirichlet(np.full(m, 0.5))
            weights = np.maximum(w + rng.random() * step / 5 * towards, 0)
            shift = rng.normal() * step / 2 if scaled else 0.0
            part = rng.normal() * step / 10 if shared else 0.0
            rows.append((weights / weights.sum(), log_scale + shift, vectors[number % len(vectors)], share + part))
        low, high = math.log(self.space.scales[0]), math.log(self.space.scales[-1])
        run = np.array(self.space.betas)
        found = [
            [*weights, math.exp(min(max(scale, low), high)), *self.space.boxed(run * np.exp(betas)), *share]
            for weights, scale, betas, share in rows
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
    return np.asarray(offsets - offsets.mean(-1, keepdims=True))


def _turns(m: int) -> np.ndarray:
    """(2 m, m) offsets that move one logarithm up or down, and the others the other way, so that the mean stays."""
    return _centred(np.kron(np.eye(m), [[1.0], [-1.0]]))


def _distance(first: np.ndarray, second: np.ndarray, m: int) -> float:
    """The distance of two points in steps; see :meth:`Pool._steps`."""
    weights = 2.5 * float(np.abs(first[:m] - second[:m]).sum())
    factors = float(np.abs(np.log(first[m : 2 * m + 1] / second[m : 2 * m + 1])).max()) / math.log(2)
    shares = 5 * float(np.abs(first[2 * m + 1 :] - second[2 * m + 1 :]).sum())
    return max(weights, factors, shares)


def without(thresholds: np.ndarray, r: int) -> np.ndarray:
    """The thresholds without requirement r."""
    return np.where(np.arange(len(thresholds)) == r, -np.inf, thresholds)


def searched(pool: Pool, effort: Effort, seed: int) -> None:
    """Fill the pool. Where points have a share, other scales are searched only if requirements cannot be met at 1."""
    space = pool.space
    if space.shares and len(space.scales) > 1:
        pool.space = space.at_one_scale
        _search(pool, effort, seed)
        if pool.best(pool.thresholds)[1]:
            return
        pool.space = space
    _search(pool, effort, seed)


def _search(pool: Pool, effort: Effort, seed: int) -> None:
    """The grid, refinement at the thresholds, and at each of them moved either way.

    Where a threshold cannot be met or raised, its metric is made as good as possible while the others are met.
    """
    thresholds = pool.thresholds
    pool.search_grid(effort.grid_points(pool.space.m))
    pool.refine(thresholds, effort.rounds, effort, stream(seed, 18))

    def raise_alone(r: int) -> None:
        pool.refine(without(thresholds, r), effort.price_rounds, effort, stream(seed, 21, r), instead=r)

    if not pool.best(thresholds)[1]:
        for r in range(len(thresholds)):  # what could be required instead
            raise_alone(r)
        return
    for r in range(len(thresholds)):
        step = pool.steps[r] * np.eye(len(thresholds))[r]
        pool.refine(thresholds + step, effort.price_rounds, effort, stream(seed, 18, r, 0), 0.25)
        if not pool.best(thresholds + step)[1]:
            raise_alone(r)
        pool.refine(thresholds - step, effort.price_rounds, effort, stream(seed, 18, r, 1), 0.25)
    pool.refine(thresholds, effort.price_rounds, effort, stream(seed, 19), 0.125)
