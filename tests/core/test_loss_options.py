"""Smoothed targets, anchors and desensitised scores against arithmetic written out."""

from itertools import product
from math import exp, log

import numpy as np
import pytest
import torch

from hyperdpo.core.loss_options import anchor_losses, best_items, desensitised_scores, smoothed_targets
from hyperdpo.core.losses import listnet_loss
from hyperdpo.errors import InputError

BOTH = torch.ones(1, 2, dtype=torch.bool)
#: Three responses, the last one padding.
LIST = torch.tensor([[True, True, True, False]])


def test_a_smoothed_pair_is_the_loss_of_robust_dpo_and_of_conservative_dpo():
    difference, rate = 0.7, 0.2
    scores, pair = torch.tensor([[difference, 0.0]]).double(), torch.tensor([[[1.0, 0.0]]]).double()
    right, wrong = log(1 / (1 + exp(-difference))), log(1 / (1 + exp(difference)))
    robust = listnet_loss(scores, smoothed_targets(pair, BOTH, rate), BOTH)
    assert robust.item() == pytest.approx((-(1 - rate) * right + rate * wrong) / (1 - 2 * rate))
    conservative = listnet_loss(scores, smoothed_targets(pair, BOTH, rate, "conservative"), BOTH)
    assert conservative.item() == pytest.approx(-(1 - rate) * right - rate * wrong)


def test_targets_of_a_list_are_smoothed_over_its_own_responses():
    targets = torch.tensor([[[0.5, 0.3, 0.2, 0.0]]])
    mixed = smoothed_targets(targets, LIST, 0.15, "conservative")
    np.testing.assert_allclose(mixed[0, 0], [0.7 * 0.5 + 0.1, 0.7 * 0.3 + 0.1, 0.7 * 0.2 + 0.1, 0], rtol=1e-6)
    undone = smoothed_targets(targets, LIST, 0.15)
    np.testing.assert_allclose(undone[0, 0], [0.4 / 0.7, 0.2 / 0.7, 0.1 / 0.7, 0], rtol=1e-6)
    # An objective without a label of the first response has two.
    labelled = torch.tensor([[[False, True, True, False]]])
    part = smoothed_targets(torch.tensor([[[0.0, 0.6, 0.4, 0.0]]]), labelled, 0.1, "conservative")
    np.testing.assert_allclose(part[0, 0], [0, 0.8 * 0.6 + 0.1, 0.8 * 0.4 + 0.1, 0], rtol=1e-6)


def test_over_the_noise_the_robust_loss_is_the_loss_at_the_true_targets():
    """With probability 2 rate each group's labels say nothing: all 2^3 cases, written out."""
    rate, mask = 0.2, torch.ones(3, 4, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    true = torch.rand(3, 1, 4, generator=generator, dtype=torch.float64)
    true /= true.sum(-1, keepdim=True)
    uniform, expected = torch.full_like(true[0], 0.25), torch.zeros(3, 1, dtype=torch.float64)
    for noisy in product([True, False], repeat=3):
        chance = float(np.prod([2 * rate if one else 1 - 2 * rate for one in noisy]))
        seen = torch.stack([uniform if one else own for one, own in zip(noisy, true, strict=True)])
        expected += chance * listnet_loss(scores, smoothed_targets(seen, mask, rate), mask)
    torch.testing.assert_close(expected, listnet_loss(scores, true, mask))


@pytest.mark.parametrize("kind", ["robust", "conservative"])
def test_smoothing_by_nothing_changes_nothing_and_targets_sum_to_one(kind):
    targets = torch.tensor([[[0.5, 0.3, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0]]])
    torch.testing.assert_close(smoothed_targets(targets, LIST, 0.0, kind), targets)
    torch.testing.assert_close(smoothed_targets(targets, LIST, 0.3, kind).sum(-1), torch.ones(1, 2))
    for rate in (-0.1, 0.5):
        with pytest.raises(InputError, match="below 0"):
            smoothed_targets(targets, LIST, rate, kind)


def test_the_anchor_is_the_likelihood_of_the_best_response_per_token():
    scores = torch.tensor([[-6.0, -9.0, -4.0, -100.0], [-2.0, -3.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    targets = torch.tensor([[[0.2, 0.5, 0.3, 0.0], [0.4, 0.2, 0.4, 0.0]], [[0.9, 0.1, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]])
    found = anchor_losses(scores, targets, mask, torch.tensor([3.0, 2.0]))
    # The first objective's best are the second and the first response; the second's a tie of two, and the second.
    np.testing.assert_allclose(found, [[9 / 3, (6 + 4) / 2 / 2], [2 / 3, 3 / 2]])
    assert best_items(targets, mask)[0, 1].tolist() == [True, False, True, False]
    # Without its label a response is nobody's best.
    labelled = mask.unsqueeze(1).repeat(1, 2, 1)
    labelled[0, 0, 1] = False
    assert anchor_losses(scores, targets, labelled, torch.ones(2))[0, 0].item() == 4


def test_only_the_best_response_gets_a_gradient_from_its_anchor():
    scores = torch.tensor([[-6.0, -9.0, -4.0, 0.0]], requires_grad=True)
    anchor_losses(scores, torch.tensor([[[0.2, 0.5, 0.3, 0.0]]]), LIST, torch.tensor([4.0])).sum().backward()
    assert scores.grad.tolist() == [[0, -0.25, 0, 0]]


def test_a_tail_counts_alpha_times():
    whole, tails = torch.tensor([[-5.0, -9.0]]), torch.tensor([[0.0, -4.0]])
    assert desensitised_scores(whole, tails, 0.25).tolist() == [[-5.0, -6.0]]
    assert desensitised_scores(whole, tails, 1.0).tolist() == whole.tolist()
    assert desensitised_scores(whole, tails, 0.0).tolist() == [[-5.0, -5.0]]
