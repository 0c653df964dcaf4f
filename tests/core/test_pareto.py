"""Hypervolume and dominance against their definitions."""

import itertools
import math

import numpy as np
import pytest

from hyperdpo.core.pareto import hypervolume, hypervolume_method, non_dominated
from hyperdpo.errors import InputError


def mixed_directions(m):
    return [("maximize", "minimize")[j % 2] for j in range(m)]


DIRECTIONS = pytest.mark.parametrize(
    "directions_of",
    [lambda m: ["maximize"] * m, lambda m: ["minimize"] * m, mixed_directions],
    ids=["max", "min", "mixed"],
)


def gains_over(points, reference, directions):
    """How much better than the reference each point is, (P, m): the corner of its box seen from the reference."""
    signs = np.where([direction == "maximize" for direction in directions], 1, -1)
    return (points - reference) * signs


def inclusion_exclusion(points, reference, directions):
    """The volume of a union of boxes that share a corner: sums and differences of the boxes' intersections."""
    boxes = np.maximum(gains_over(points, reference, directions), 0)
    return sum(
        (-1) ** (size + 1)
        * sum(boxes[list(chosen)].min(0).prod() for chosen in itertools.combinations(range(len(boxes)), size))
        for size in range(1, len(boxes) + 1)
    )


def unit_cells(points, reference, directions):
    """For whole numbers: how many unit cells lie inside at least one box."""
    boxes = gains_over(points, reference, directions)
    side = max(int(boxes.max()), 0)
    cells = np.array(list(itertools.product(range(side), repeat=boxes.shape[1]))).reshape(-1, boxes.shape[1])
    return int((cells[:, None] + 1 <= boxes).all(-1).any(-1).sum())


# --- non_dominated


@DIRECTIONS
@pytest.mark.parametrize("m", [1, 2, 3, 5])
def test_non_dominated_is_its_definition(m, directions_of):
    points = np.random.default_rng(m).integers(0, 4, (40, m)).astype(float)  # many ties and duplicates
    gains = gains_over(points, 0, directions_of(m))
    dominated = [any((b >= a).all() and (b > a).any() for b in gains) for a in gains]
    assert non_dominated(points, directions_of(m)).tolist() == [not one for one in dominated]


def test_of_equal_points_all_are_kept():
    assert non_dominated([[1, 2], [1, 2], [0, 0]], ["maximize"] * 2).tolist() == [True, True, False]


def test_no_points_have_no_front():
    assert non_dominated([], ["maximize", "minimize"]).shape == (0,)


# --- hypervolume


@DIRECTIONS
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_hypervolume_is_the_volume_of_the_union_of_boxes(m, directions_of):
    rng = np.random.default_rng(m)
    points, reference = rng.normal(size=(9, m)), np.full(m, 0.1)
    expected = inclusion_exclusion(points, reference, directions_of(m))
    assert hypervolume(points, reference, directions_of(m)) == pytest.approx(expected, rel=1e-12)


@DIRECTIONS
@pytest.mark.parametrize("m", [2, 3, 5])
def test_hypervolume_of_whole_numbers_counts_unit_cells(m, directions_of):
    points = np.random.default_rng(m).integers(-6, 7, (30, m))
    cells = unit_cells(points, np.zeros(m), directions_of(m))
    assert hypervolume(points, np.zeros(m), directions_of(m)) == pytest.approx(cells, rel=1e-12)


@pytest.mark.parametrize(("m", "points"), [(2, 200), (3, 100), (5, 60), (7, 20)])
def test_hypervolume_is_the_one_of_pagmo(m, points):
    pygmo = pytest.importorskip("pygmo")
    rng = np.random.default_rng(m)
    costs = rng.random((points, m))
    expected = pygmo.hypervolume(costs.tolist()).compute([1.1] * m)
    assert hypervolume(costs, [1.1] * m, ["minimize"] * m, method="exact") == pytest.approx(expected, rel=1e-9)
    gains = 1.1 - costs
    assert hypervolume(gains, [0.0] * m, ["maximize"] * m, method="exact") == pytest.approx(expected, rel=1e-9)


def test_two_boxes_by_hand():
    # 2 x 1 and 1 x 3 share 1 x 1
    assert hypervolume([[2, 1], [1, 3]], [0, 0], ["maximize"] * 2) == 4
    assert hypervolume([[0.1, 0.6], [0.5, 0.2]], [1.1, 1.1], ["minimize"] * 2) == pytest.approx(0.5 + 0.54 - 0.3)


@pytest.mark.parametrize("method", ["exact", "approximate"])
def test_points_that_are_not_better_than_the_reference_everywhere_add_nothing(method):
    directions = ["maximize", "minimize"]
    inside, outside = [2.0, 1.0], [[9.0, 3.0], [9.0, 4.0], [0.0, -5.0], [-1.0, -5.0]]
    both = hypervolume([inside, *outside], [0, 3], directions, method=method)
    assert both == pytest.approx(4, rel=1e-3)
    assert both == hypervolume([inside], [0, 3], directions, method=method)
    assert hypervolume(outside, [0, 3], directions, method=method) == 0


def test_no_points_have_no_volume():
    assert hypervolume([], [0, 0], ["maximize"] * 2) == 0
    assert hypervolume(np.empty((0, 3)), [0, 0, 0], ["minimize"] * 3) == 0


def test_dominated_and_equal_points_change_nothing():
    front = [[1.0, 3.0], [2.0, 1.0]]
    assert hypervolume([*front, *front, [0.5, 0.5]], [0, 0], ["maximize"] * 2) == hypervolume(
        front, [0, 0], ["maximize"] * 2
    )


@pytest.mark.parametrize("m", [3, 8])
def test_the_approximation_is_within_one_percent(m):
    points = np.abs(np.random.default_rng(0).normal(size=(30, m)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    arguments = (points, np.zeros(m), ["maximize"] * m)
    exact = hypervolume(*arguments, method="exact")
    assert hypervolume(*arguments) == exact
    assert hypervolume(*arguments, method="approximate") == pytest.approx(exact, rel=1e-2)


def test_only_many_points_in_many_objectives_are_approximated():
    assert hypervolume_method(5, 100_000) == "exact"
    assert hypervolume_method(7, 500) == "exact"
    assert hypervolume_method(8, 100) == "exact"
    assert hypervolume_method(8, 101) == "approximate"
    points = np.abs(np.random.default_rng(0).normal(size=(120, 9)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    arguments = (points, np.zeros(9), ["maximize"] * 9)
    assert hypervolume(*arguments) == hypervolume(*arguments, method="approximate")


@pytest.mark.parametrize(
    ("points", "reference", "directions", "message"),
    [
        ([[math.nan, 1.0]], [0, 0], ["maximize"] * 2, "point 0 holds NaN"),
        ([[math.inf, 1.0]], [0, 0], ["maximize"] * 2, "infinite"),
        ([[1.0, 1.0]], [0, math.nan], ["maximize"] * 2, "infinite or NaN"),
        ([[1.0, 1.0]], [0], ["maximize"] * 2, r"reference of shape \(1,\), expected \(2,\)"),
        ([[1.0, 1.0, 1.0]], [0, 0], ["maximize"] * 2, r"points of shape \(1, 3\)"),
        ([1.0, 1.0], [0, 0], ["maximize"] * 2, r"points of shape \(2,\)"),
        ([[1.0, 1.0]], [0, 0], ["maximize", "up"], "direction 'up', expected maximize or minimize"),
    ],
)
def test_bad_input_is_an_error_that_says_what_was_found(points, reference, directions, message):
    with pytest.raises(InputError, match=message):
        hypervolume(points, reference, directions)


def test_an_unknown_method_is_an_error():
    with pytest.raises(InputError, match="method 'fast'"):
        hypervolume([[1.0]], [0], ["maximize"], method="fast")
