"""The exact front of two objectives: metrics at all weights in steps of 1/10,000, at one share, scale and temperature.

A list is ordered by w a_i + (1 - w) b_i, so each pair of documents swaps at one w at most. Where two weights give the
same first k places, ties included, every weight between them does: a difference that has one sign at both ends has it
between them, and one that is 0 at both ends is 0 between them. So intervals are halved only while the places at their
ends differ, and few of the 10,001 weights have to be sorted for each list.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from hyperdpo.choosing.search import WEIGHT_PARTS, Pool

#: (R,) lists and as many parts, w = part / 10,000 -> (L, R) numbers of :func:`order_keys`, or (K, R) metrics.
AtParts = Callable[[np.ndarray, np.ndarray], np.ndarray]

#: So many of the best weights are measured once more, as all points are.
CONFIRMED = 32
#: Metrics are in single precision: measured in other batches, their means differ by less.
TOLERANCE = 1e-6


def order_keys(scores: torch.Tensor, mask: torch.Tensor, k: int | None) -> torch.Tensor:
    """Numbers that two rankings of a list share if their first k places are the same, ties included, and only then.

    Args:
        scores: (R, n).
        mask: (R, n), or (L, R, n) where labels are known for different items.
        k: None: all places.

    Returns:
        (L, R) int64, L = 1 for a mask (R, n). Different rankings share one with a probability of about 2^-62.
    """
    known = scores.masked_fill(~mask, -torch.inf).reshape(-1, *scores.shape)
    n = scores.shape[-1]
    top, items = known.topk(n if k is None else min(k, n), dim=-1)
    marks = torch.randint(2**62, (n,), generator=torch.Generator().manual_seed(0)).to(scores.device)
    starts = torch.nn.functional.pad(top[..., 1:] != top[..., :-1], (1, 0), value=True)
    place = torch.arange(1, top.shape[-1] + 1, device=top.device)
    first = place.where(starts, 0).cummax(-1).values  # the first place of the items that are tied
    last = top[..., -1:]
    above = (marks[items] * first).masked_fill(top == last, 0).sum(-1)
    return above + first[..., -1] * (marks * (known == last)).sum(-1)


def in_blocks(function: AtParts, size: int) -> AtParts:
    """The same, called for so many lists at once."""

    def blocks(rows: np.ndarray, parts: np.ndarray) -> np.ndarray:
        starts = range(0, max(len(rows), 1), size)
        return np.hstack([function(rows[i : i + size], parts[i : i + size]) for i in starts])

    return blocks


def pieces(keys: AtParts, lists: int, parts: int = WEIGHT_PARTS) -> tuple[np.ndarray, np.ndarray]:
    """The pieces of the edge on which the first places of a list stay the same.

    Returns:
        (R,) lists, and the first part of each piece: sorted, from 0 in every list.
    """
    rows = np.arange(lists)
    low, high = np.zeros_like(rows), np.full_like(rows, parts)
    low_key, high_key = keys(rows, low), keys(rows, high)
    found = [(rows, low)]
    while True:
        differ = (low_key != high_key).any(0)
        apart = high - low > 1
        found.append((rows[differ & ~apart], high[differ & ~apart]))
        going = np.flatnonzero(differ & apart)
        if not len(going):
            break
        rows, middle = rows[going], (low[going] + high[going]) // 2
        key = keys(rows, middle)
        rows = np.concatenate([rows, rows])
        low, high = np.concatenate([low[going], middle]), np.concatenate([middle, high[going]])
        low_key, high_key = np.hstack([low_key[:, going], key]), np.hstack([key, high_key[:, going]])
    rows, begins = (np.concatenate(one) for one in zip(*found, strict=True))
    order = np.lexsort((begins, rows))
    return rows[order], begins[order]


def edge_sums(keys: AtParts, metrics: AtParts, lists: int, parts: int = WEIGHT_PARTS) -> np.ndarray:
    """(K, parts + 1) sums over the lists of K metrics, at the weights 0, 1 / parts, ..., 1 of the first objective."""
    rows, begins = pieces(keys, lists, parts)
    values = metrics(rows, begins)
    changes = np.diff(values, axis=1, prepend=0.0)
    changes[:, begins == 0] = values[:, begins == 0]
    return np.cumsum([np.bincount(begins, change, parts + 1) for change in changes], axis=1)


def take_best_weight(pool: Pool, edge: Callable[[np.ndarray], np.ndarray | None]) -> bool:
    """Add the best of all weights at the best point's share, scale and temperatures to a pool of two objectives.

    Args:
        edge: the (K, 10,001) sums of :func:`edge_sums` at a point; None: its ranking is not that of a weighted sum.

    Returns:
        Whether the pool's best point is now the best of all those weights, as it was measured.
    """
    thresholds = pool.thresholds
    start = pool.points[pool.best(thresholds)[0]]
    sums = edge(start)
    if sums is None:
        return False
    means = pool.resamples.means(sums.T[:, :, None])
    part = np.arange(len(means))
    violations, goals = pool.violations(thresholds, pool.turned(means)), pool.goal_sign * means[:, pool.goal]
    distance = np.abs(part - start[0] * WEIGHT_PARTS)
    order = np.lexsort((distance, -goals.round(9), violations.round(9)))
    tried = np.tile(start, (min(CONFIRMED, len(order)), 1))
    tried[:, 0] = part[order[: len(tried)]] / WEIGHT_PARTS
    tried[:, 1] = 1 - tried[:, 0]
    pool.add(tried)
    best, following = pool.best(thresholds)[0], order[min(len(tried), len(order) - 1)]
    ahead = violations[following] - pool.violations(thresholds)[best]
    return bool(ahead > TOLERANCE or (ahead >= -TOLERANCE and pool.goals[best] >= goals[following] - TOLERANCE))
