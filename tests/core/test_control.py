"""The scores at temperature c * beta follow from those at beta, without training again."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hyperdpo.core.control import (
    linear_transformation,
    normalised_temperatures,
    proportional_scale,
    temperature_transformation,
)
from hyperdpo.core.losses import hypernet_loss, listnet_dpo_loss
from hyperdpo.errors import InputError


def optimal_scores(base, targets, betas, weights):
    """The minimiser of the scalarised loss over free scores of one group, by BFGS; shifted to a mean of 0."""
    mask, signal = torch.ones(1, len(base), dtype=torch.bool), torch.ones(1, len(betas), dtype=torch.bool)

    def value_and_gradient(scores):
        free = torch.tensor(scores[None], requires_grad=True)
        losses = listnet_dpo_loss(free, torch.tensor(base[None]), torch.tensor(targets[None]), mask, betas)
        loss = hypernet_loss(losses, signal, torch.tensor(weights))
        loss.backward()
        return loss.item(), free.grad[0].numpy()

    found = minimize(value_and_gradient, np.zeros(len(base)), jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x - found.x.mean()


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.7])
@pytest.mark.parametrize("betas", [(0.8,), (1.0, 1.0), (0.5, 1.5)])
def test_the_optimum_at_c_beta_is_the_transformed_optimum_at_beta(scale, betas):
    rng = np.random.default_rng(0)
    base, targets = rng.normal(size=6), rng.dirichlet(np.ones(6), len(betas))
    weights = rng.dirichlet(np.ones(len(betas)))
    at_beta = optimal_scores(base, targets, betas, weights)
    at_c_beta = optimal_scores(base, targets, [scale * beta for beta in betas], weights)
    transformed = linear_transformation(at_beta, base, scale)
    np.testing.assert_allclose(transformed - transformed.mean(), at_c_beta, atol=2e-5)


@pytest.mark.parametrize("wrap", [np.array, torch.tensor])
def test_it_is_the_formula_for_arrays_and_for_tensors(wrap):
    scores, base = wrap([[1.0, 4.0], [2.0, 6.0]]), wrap([[3.0, 0.0], [1.0, 1.0]])
    assert linear_transformation(scores, base, 2.0).tolist() == [[2.0, 2.0], [1.5, 3.5]]
    assert linear_transformation(scores, base, 0.5).tolist() == [[-1.0, 8.0], [3.0, 11.0]]
    per_group = linear_transformation(scores, base, wrap([[2.0], [0.5]]))
    assert per_group.tolist() == [[2.0, 2.0], [3.0, 11.0]]


def test_a_large_scale_returns_to_the_base():
    base = np.array([3.0, -1.0])
    np.testing.assert_allclose(linear_transformation(np.array([100.0, 50.0]), base, 1e9), base, atol=1e-6)


def test_scales_compose_by_multiplication():
    scores, base = torch.rand(5), torch.rand(5)
    twice = linear_transformation(linear_transformation(scores, base, 2.0), base, 3.0)
    torch.testing.assert_close(twice, linear_transformation(scores, base, 6.0))


@pytest.mark.parametrize("one", [1, 1.0, np.float32(1)])
def test_scale_one_returns_the_scores_themselves_without_base_scores(one):
    scores = torch.rand(3)
    assert linear_transformation(scores, None, one) is scores


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, np.array([[1.0], [-2.0]]), torch.tensor([0.0])])
def test_a_scale_is_finite_and_positive(scale):
    with pytest.raises(InputError, match=r"expected .*finite numbers? > 0"):
        linear_transformation(torch.rand(2, 2), torch.rand(2, 2), scale)


def test_another_scale_needs_base_scores():
    with pytest.raises(InputError, match="needs base scores"):
        linear_transformation(np.zeros(2), None, 2.0)


def test_it_can_be_exported_with_the_scale_as_an_input():
    class Transformed(torch.nn.Module):
        def forward(self, scores, base, scale):
            return linear_transformation(scores, base, scale)

    scores, base, scale = torch.rand(2, 3), torch.rand(2, 3), torch.full((2, 1), 2.0)
    program = torch.export.export(Transformed(), (scores, base, scale))
    torch.testing.assert_close(program.module()(scores, base, 2 * scale), linear_transformation(scores, base, 4.0))


# --- Temperatures, and the transformation by their sum


@pytest.mark.parametrize("betas", [(0.4, 0.8), (2.0, 2.0), (0.1, 3.0, 1.0)])
def test_the_optimum_at_beta_is_the_transformed_optimum_at_the_normalised_temperatures(betas):
    rng = np.random.default_rng(1)
    base, targets = rng.normal(size=5), rng.dirichlet(np.ones(5), len(betas))
    weights = rng.dirichlet(np.ones(len(betas)))
    at_normalised = optimal_scores(base, targets, normalised_temperatures(np.array(betas)).tolist(), weights)
    transformed = temperature_transformation(at_normalised, base, betas)
    at_beta = optimal_scores(base, targets, betas, weights)
    np.testing.assert_allclose(transformed - transformed.mean(), at_beta, atol=2e-5)


@pytest.mark.parametrize("wrap_scores", [np.array, torch.tensor])
@pytest.mark.parametrize("wrap_betas", [tuple, np.array, torch.tensor])
def test_it_is_the_linear_transformation_with_the_sum_of_the_temperatures(wrap_scores, wrap_betas):
    scores, base = wrap_scores([[1.0, 4.0], [2.0, 6.0]]), wrap_scores([[3.0, 0.0], [1.0, 1.0]])
    transformed = temperature_transformation(scores, base, wrap_betas([0.5, 1.5]))
    assert type(transformed) is type(scores)
    assert transformed.tolist() == [[2.0, 2.0], [1.5, 3.5]]
    per_group = temperature_transformation(scores, base, wrap_betas([[0.5, 1.5], [0.25, 0.25]]))
    assert per_group.tolist() == [[2.0, 2.0], [3.0, 11.0]]
    weightings = temperature_transformation(wrap_scores([scores.tolist()] * 3), base, wrap_betas([[0.5, 1.5], [1, 1]]))
    assert weightings.tolist() == [[[2.0, 2.0], [1.5, 3.5]]] * 3


def test_temperatures_that_sum_to_one_leave_the_scores_as_they_are():
    scores = torch.rand(2, 3)
    assert temperature_transformation(scores, None, (0.25, 0.75)) is scores
    torch.testing.assert_close(temperature_transformation(scores, scores + 1, torch.tensor([0.25, 0.75])), scores)


def test_transformed_scores_keep_their_precision():
    for betas in ((0.5, 1.0), np.array([[0.5, 1.0]]), torch.tensor([[0.5, 1.0]], dtype=torch.float64)):
        assert temperature_transformation(torch.rand(1, 2), torch.rand(1, 2), betas).dtype == torch.float32
        single = np.ones((1, 2), dtype=np.float32)
        assert temperature_transformation(single, single, betas).dtype == np.float32


@pytest.mark.parametrize("wrap", [np.array, torch.tensor])
@pytest.mark.parametrize("betas", [[2.0, -1.0], [0.0, 1.0], [math.nan, 1.0], [[1.0, 1.0], [1.0, math.inf]]])
def test_each_temperature_is_finite_and_positive_not_only_their_sum(wrap, betas):
    with pytest.raises(InputError, match="expected finite numbers > 0"):
        temperature_transformation(torch.rand(2, 2), torch.rand(2, 2), wrap(betas))


def test_it_can_be_exported_with_the_temperatures_as_an_input():
    class Transformed(torch.nn.Module):
        def forward(self, scores, base, temperatures):
            return temperature_transformation(scores, base, temperatures)

    scores, base, betas = torch.rand(2, 3), torch.rand(2, 3), torch.rand(2, 4) + 0.1
    program = torch.export.export(Transformed(), (scores, base, betas))
    expected = temperature_transformation(scores, base, 2 * betas)
    torch.testing.assert_close(program.module()(scores, base, 2 * betas), expected)


@pytest.mark.parametrize("wrap", [np.array, torch.tensor])
def test_normalised_temperatures_sum_to_one_and_keep_their_proportions(wrap):
    normalised = normalised_temperatures(wrap([[1.0, 3.0], [0.2, 0.2]]))
    np.testing.assert_allclose(normalised, [[0.25, 0.75], [0.5, 0.5]])


def test_proportional_temperatures_are_one_scale_apart():
    assert proportional_scale((0.5, 1.0), (0.5, 1.0)) == 1
    assert proportional_scale((1.5, 3.0), (0.5, 1.0)) == pytest.approx(3)
    assert proportional_scale(torch.tensor([0.1, 0.3]), np.array([1.0, 3.0])) == pytest.approx(0.1)
    assert proportional_scale((0.33333, 1.0), (1 / 3, 1.0)) is None
    assert proportional_scale((0.3333333, 1.0), (1 / 3, 1.0)) == pytest.approx(1)
    assert proportional_scale((0.5, 1.0), (1.0, 0.5)) is None
    assert proportional_scale((1e-6, 1.0), (2e-6, 1.0)) is None, "relative to each temperature, not to the largest"


@pytest.mark.parametrize("values", [(1.0,), (1.0, -1.0)])
def test_the_scale_of_other_temperatures_is_an_error(values):
    with pytest.raises(InputError, match="temperatures"):
        proportional_scale(values, (1.0, 1.0))
    with pytest.raises(InputError, match="temperatures"):
        proportional_scale((1.0, 1.0), values)
