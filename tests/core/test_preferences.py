"""Grids of weights, and random streams."""

import numpy as np
import pytest

from hyperdpo.core.preferences import stream, weight_grid
from hyperdpo.core.sampling import sample_dirichlet
from hyperdpo.errors import InputError


def assert_on_simplex(weights):
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=0, atol=5e-16)


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
