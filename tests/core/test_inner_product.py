"""The mean inner product of weights and rewards, written out."""

from __future__ import annotations

import numpy as np
import pytest

from hyperdpo.core.inner_product import mean_inner_product
from hyperdpo.errors import InputError


def test_it_is_the_mean_over_weightings_of_w_times_rewards_in_standard_deviations_of_the_base() -> None:
    weights = [[1, 0], [0.5, 0.5], [0, 1]]
    scores = [[0.8, -9.0], [0.5, -10.0], [0.2, -8.0]]
    expected = (
        1 * (0.8 - 0.3) / 0.5 + (0.5 * (0.5 - 0.3) / 0.5 + 0.5 * (-10.0 - -10.5) / 2.0) + 1 * (-8.0 - -10.5) / 2.0
    ) / 3
    assert mean_inner_product(weights, scores, [0.3, -10.5], [0.5, 2.0]) == pytest.approx(expected)


def test_the_base_has_none_and_units_do_not_count() -> None:
    rng = np.random.default_rng(0)
    weights, scores = rng.dirichlet(np.ones(3), 5), rng.normal(size=(5, 3))
    mean, sd = rng.normal(size=3), rng.uniform(0.5, 2, 3)
    assert mean_inner_product(weights, np.tile(mean, (5, 1)), mean, sd) == pytest.approx(0)
    unit, shift = np.array([10.0, 0.1, 3.0]), np.array([1.0, -5.0, 0.0])
    other = mean_inner_product(weights, scores * unit + shift, mean * unit + shift, sd * unit)
    assert other == pytest.approx(mean_inner_product(weights, scores, mean, sd))


def test_many_samples_at_once_are_each_of_them() -> None:
    rng = np.random.default_rng(1)
    weights, scores = rng.dirichlet(np.ones(2), 4), rng.normal(size=(6, 4, 2))
    found = mean_inner_product(weights, scores, [0, 0], [1, 2])
    assert found.shape == (6,)
    assert found[3] == pytest.approx(float(mean_inner_product(weights, scores[3], [0, 0], [1, 2])))


@pytest.mark.parametrize(("scores", "sd"), [([[1.0, 2.0]], [1.0, 0.0]), ([[1.0], [2.0]], [1.0, 1.0])])
def test_what_has_no_scale_or_does_not_fit_is_refused(scores: list[list[float]], sd: list[float]) -> None:
    with pytest.raises(InputError):
        mean_inner_product([[0.5, 0.5]], scores, [0, 0], sd)
