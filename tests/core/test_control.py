"""The scores at temperature c * beta follow from those at beta, without training again."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from hyperdpo.core.control import linear_transformation
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
