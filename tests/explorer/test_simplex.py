"""Sliders that stay on the simplex."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperdpo.explorer.simplex import PARTS, Simplex, apportioned

shares = st.lists(st.floats(0, 1), min_size=2, max_size=6).filter(lambda values: sum(values) > 1e-3)


@given(shares, st.lists(st.tuples(st.integers(0, 5), st.floats(-0.5, 1.5)), max_size=12))
def test_whatever_is_moved_the_sum_is_exactly_one(start, moves):
    simplex = Simplex(start)
    for index, value in moves:
        index %= len(start)
        simplex.move(index, value)
        assert sum(Fraction(part, PARTS) for part in simplex.parts) == 1
        assert min(simplex.parts) >= 0
        assert simplex.weights[index] == pytest.approx(min(max(value, 0), 1), abs=0.5 / PARTS)
    assert simplex.weights == tuple(part / PARTS for part in simplex.parts)


@given(shares, st.integers(0, 5), st.floats(0, 1))
def test_the_others_keep_their_proportions(start, index, value):
    simplex = Simplex(start)
    index %= len(start)
    others = [start[j] for j in range(len(start)) if j != index]
    simplex.move(index, value)
    found = [w for j, w in enumerate(simplex.weights) if j != index]
    rest = 1 - simplex.weights[index]
    total = sum(others)
    expected = [rest * (x / total) if total else rest / len(others) for x in others]
    assert found == pytest.approx(expected, abs=1.01 / PARTS)


@given(shares, st.integers(0, 5), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_one_slider_there_and_back_changes_nothing(start, index, way):
    simplex = Simplex(start)
    index %= len(start)
    if not sum(start[j] for j in range(len(start)) if j != index):
        return  # nothing to remember
    before = simplex.parts
    for value in (*way, 1.0, before[index] / PARTS):
        simplex.move(index, value)
    assert simplex.parts == pytest.approx(before, abs=1)


def test_a_vertex_that_is_left_by_another_slider_gives_to_that_one_only():
    simplex = Simplex([0.2, 0.3, 0.5])
    simplex.move(0, 1.0)
    assert simplex.weights == (1, 0, 0)
    simplex.move(1, 0.4)
    assert simplex.weights == (0.6, 0.4, 0)


def test_others_of_which_nothing_is_known_share_equally():
    simplex = Simplex([1, 0, 0])
    simplex.move(0, 0.5)
    assert simplex.weights == (0.5, 0.25, 0.25)


def test_a_single_weight_is_one_and_nan_is_nothing():
    simplex = Simplex([0.7])
    simplex.move(0, 0.3)
    assert simplex.weights == (1,)
    simplex = Simplex([0.7, 0.3])
    simplex.move(0, float("nan"))
    assert simplex.weights == (0.7, 0.3)


@given(shares, st.integers(0, 10_000))
def test_parts_sum_to_what_is_shared(values, parts):
    found = apportioned(values, parts)
    assert sum(found) == parts
    assert all(abs(k - x / sum(values) * parts) < 1 + 1e-6 for k, x in zip(found, values, strict=True))
