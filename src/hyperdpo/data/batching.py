"""Batches of whole groups under a token budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Groups are sorted by size inside windows of this many batches: little padding, still a random order.
WINDOW_BATCHES = 32


@dataclass(frozen=True)
class GroupBatch:
    """Positions of some groups, and the padded length that holds the longest of them."""

    groups: np.ndarray
    """(G,) int64."""
    length: int


def shuffled_batches(sizes: np.ndarray, budget: int, rng: np.random.Generator) -> list[GroupBatch]:
    """All groups once, in a random order of batches of similar sizes.

    Args:
        sizes: (N,) items of each group.
        budget: the most items of a batch, padding included; a larger group is a batch of its own.
    """
    order = rng.permutation(len(sizes))
    per_window = max(int(WINDOW_BATCHES * budget / max(sizes.mean(), 1)), 1)
    batches: list[GroupBatch] = []
    for start in range(0, len(order), per_window):
        window = order[start : start + per_window]
        batches.extend(sorted_batches(sizes, budget, window))
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(
    sizes: np.ndarray, budget: int, groups: np.ndarray | None = None, *, shortest: float = 0.0
) -> list[GroupBatch]:
    """Groups by falling size, cut where the padded batch would pass the budget.

    Args:
        shortest: also cut before a group below this part of the batch's length, so that small data, all of which would
            fit into one batch, is not mostly padding.
    """
    groups = np.arange(len(sizes)) if groups is None else groups
    ordered = groups[np.argsort(-sizes[groups], kind="stable")]
    falling = -sizes[ordered]
    batches = []
    start = 0
    while start < len(ordered):
        length = max(int(-falling[start]), 1)
        count = max(budget // length, 1)
        if shortest > 0:
            count = min(count, max(int(np.searchsorted(falling, -shortest * length, side="right")) - start, 1))
        batches.append(GroupBatch(ordered[start : start + count], length))
        start += count
    return batches


def row_index(starts: np.ndarray, sizes: np.ndarray, batch: GroupBatch) -> tuple[np.ndarray, np.ndarray]:
    """Rows and mask of a padded batch.

    Returns:
        (G, length) int64 rows, where padding repeats the group's last row, and (G, length) bool, True for items.
    """
    place = np.arange(batch.length)
    size = sizes[batch.groups][:, None]
    mask = place < size
    return starts[batch.groups][:, None] + np.minimum(place, size - 1), mask
