"""Weights are points of the simplex, however they come about."""

import math

import numpy as np
import pytest

from hyperdpo.core.preferences import check_weights, sample_dirichlet, stream, weight_grid
from hyperdpo.errors import InputError


def assert_on_simplex(weights):
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=0, atol=4e-16)


# --- check_weights


def test_weights_within_the_tolerance_are_renormalised():
    assert_on_simplex(check_weights((0.3333333, 0.3333333, 0.3333333), 3))
    assert check_weights([[1, 0], [0.25, 0.75]], 2).tolist() == [[1, 0], [0.25, 0.75]]


def test_checked_weights_are_a_copy():
    mine = np.array([0.5, 0.5])
    assert check_weights(mine, 2) is not mine
    assert not np.shares_memory(check_weights(mine, 2), mine)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ((0.3, 0.8), r"weights 0.3, 0.8 \(sum 1.1\)"),
        ((-0.1, 1.1), "weights -0.1, 1.1"),
        ((math.nan, 1.0), "weights nan, 1"),
        ((math.inf, 0.0), "weights inf, 0"),
        ((0.2, 0.3, 0.5), "found 3 values, expected 2"),
        (1.0, "found a single number, expected 2"),
        ([[0.5, 0.5], [0.9, 0.2]], "weights 0.9, 0.2"),
        ([[0.5, 0.5], [1.0]], "expected 2 numbers per row"),
        ("half", "weights 'half'"),
    ],
)
def test_other_weights_are_an_error_that_shows_them(weights, found):
    with pytest.raises(InputError, match=found):
        check_weights(weights, 2)


# --- sample_dirichlet


@pytest.mark.parametrize("alpha", [(1.0, 1.0), (0.2, 1.5, 4.0), (0.05, 0.05, 0.05), (0.5, 0.02)])
def test_mean_and_covariance_are_those_of_the_dirichlet_distribution(alpha):
    count = 200_000
    drawn = sample_dirichlet(alpha, count, stream(0))
    total = sum(alpha)
    mean = np.array(alpha) / total
    covariance = (np.diag(mean) - np.outer(mean, mean)) / (total + 1)
    assert_on_simplex(drawn)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * math.sqrt(0.25 / count))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=5 * math.sqrt(0.25 / count))


@pytest.mark.parametrize("alpha", [1e-3, 1e-6, 1e-100])
def test_a_tiny_alpha_gives_vertices_and_never_nan(alpha):
    drawn = sample_dirichlet([alpha] * 5, 20_000, stream(0))
    assert_on_simplex(drawn)
    assert (drawn.max(-1) > 0.99).mean() > 0.95
    np.testing.assert_allclose(drawn.mean(0), 0.2, atol=0.02)


@pytest.mark.parametrize("alpha", [(), (1.0, 0.0), (1.0, -1.0), (math.nan, 1.0), (math.inf, 1.0), 1.0])
def test_alpha_is_a_vector_of_finite_positive_numbers(alpha):
    with pytest.raises(InputError, match="expected one finite number > 0 per objective"):
        sample_dirichlet(alpha, 1, stream(0))


# --- stream


def test_a_stream_depends_on_its_seed_and_key_alone():
    assert stream(3, 1, 7).random() == stream(3, 1, 7).random()
    before = stream(3, 1, 6)
    before.random(1000)
    assert stream(3, 1, 7).random() == stream(3, 1, 7).random()


def test_different_keys_give_different_streams():
    keys = [(1,), (1, 0), (1, 0, 0), (0, 1), (2**32, 1), (0, 1, 1), (1, 2), (2, 1)]
    assert len({stream(*key).random() for key in keys}) == len(keys)


def test_a_stream_leaves_the_global_generator_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    sample_dirichlet((1.0, 1.0), 5, stream(0))
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_a_negative_seed_is_an_error():
    with pytest.raises(InputError, match="seed -1"):
        stream(-1)


# --- weight_grid


@pytest.mark.parametrize("m", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("points", [9, 11, 66, 500])
def test_a_grid_has_its_vertices_no_duplicates_and_the_same_rows_every_time(m, points):
    grid = weight_grid(m, points)
    assert grid.shape == ((1, 1) if m == 1 else (points, m))
    assert_on_simplex(grid)
    assert len(np.unique(grid, axis=0)) == len(grid)
    assert {tuple(row) for row in np.eye(m)} <= {tuple(row) for row in grid}
    assert np.array_equal(grid, weight_grid(m, points))


def test_two_objectives_are_evenly_spaced_from_the_first_to_the_second():
    np.testing.assert_allclose(weight_grid(2, 5), [[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]])


def test_whole_lattice_layers_come_first_and_random_interior_points_fill_up():
    grid = weight_grid(3, 15)
    halves = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    assert grid[:6].tolist() == halves
    thirds = grid[6:13]
    np.testing.assert_allclose(thirds * 3, np.round(thirds * 3), atol=1e-12)
    assert (grid[13:] > 0).all()
    assert not np.array_equal(grid[13:], weight_grid(3, 15, seed=1)[13:])


def test_a_grid_that_is_exactly_a_lattice_holds_all_of_it():
    every_fourth = {(a / 4, b / 4, (4 - a - b) / 4) for a in range(5) for b in range(5 - a)}
    # 3 vertices, 3 halves, 7 thirds, 9 quarters that are not halves
    grid = weight_grid(3, 22)
    assert every_fourth <= {tuple(row) for row in grid}


@pytest.mark.parametrize(("m", "points"), [(3, 2), (2, 1), (0, 5)])
def test_fewer_points_than_objectives_are_an_error(m, points):
    with pytest.raises(InputError, match="expected at least"):
        weight_grid(m, points)
