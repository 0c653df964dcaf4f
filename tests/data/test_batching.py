"""Batches: every group once, whole, within the budget."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from hyperdpo.data.batching import GroupBatch, row_index, shuffled_batches, sorted_batches

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=80).map(np.array)


def batches_of(kind: str, sizes: np.ndarray, budget: int, seed: int = 0) -> list[GroupBatch]:
    if kind == "sorted":
        return sorted_batches(sizes, budget)
    return shuffled_batches(sizes, budget, np.random.default_rng(seed))


@given(sizes=SIZES, budget=st.integers(1, 200), kind=st.sampled_from(["sorted", "shuffled"]))
@settings(deadline=None)
def test_every_group_is_in_exactly_one_batch_and_the_budget_holds(sizes, budget, kind):
    batches = batches_of(kind, sizes, budget)
    assert sorted(np.concatenate([b.groups for b in batches])) == list(range(len(sizes)))
    for batch in batches:
        assert batch.length == sizes[batch.groups].max(), "padded to the longest, no further"
        assert len(batch.groups) * batch.length <= budget or len(batch.groups) == 1, "a large group is alone"


def test_little_is_padded():
    sizes = np.random.default_rng(0).integers(5, 200, 3000)
    for kind in ("sorted", "shuffled"):
        batches = batches_of(kind, sizes, 4096)
        padded = sum(len(b.groups) * b.length for b in batches)
        assert padded < 1.06 * sizes.sum(), kind


def test_an_epoch_depends_on_its_generator_and_on_nothing_else():
    sizes = np.random.default_rng(0).integers(1, 30, 200)
    first, again, other = (batches_of("shuffled", sizes, 100, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a.groups, b.groups) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.groups, b.groups) for a, b in zip(first, other, strict=False))


def test_batches_come_in_a_random_order_of_sizes():
    sizes = np.random.default_rng(0).integers(5, 200, 500)
    lengths = np.array([b.length for b in batches_of("shuffled", sizes, 1000)])
    rises = (np.diff(lengths) > 0).mean()
    assert 0.3 < rises < 0.7


def test_large_and_small_groups_meet_other_groups_in_every_epoch():
    """Windows are drawn anew: who shares a batch with group 0 changes."""
    sizes = np.full(400, 10)
    partners = {
        tuple(sorted(b.groups)) for s in range(5) for b in batches_of("shuffled", sizes, 40, s) if 0 in b.groups
    }
    assert len(partners) == 5


def test_the_rows_of_a_batch_are_those_of_its_groups_and_padding_repeats_the_last():
    sizes = np.array([3, 1, 4])
    starts = np.cumsum(sizes) - sizes
    rows, mask = row_index(starts, sizes, GroupBatch(np.array([2, 0, 1]), 4))
    assert rows.tolist() == [[4, 5, 6, 7], [0, 1, 2, 2], [3, 3, 3, 3]]
    assert mask.tolist() == [[True] * 4, [True, True, True, False], [True, False, False, False]]
