"""The closed form: nothing that is optimised directly does better."""

from __future__ import annotations

import pytest
import torch

from hyperdpo.core.losses import listnet_dpo_loss, scalarise
from hyperdpo.core.mixture import mixture_scores
from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.errors import InputError

GRID = torch.tensor([[1.0, 0.0], [0.8, 0.2], [0.5, 0.5], [0.0, 1.0]]).double()


def problem(G=3, n=6, seed=0):
    """Dense targets for one objective and l1 targets with zeros for another, on groups of 2 to n items."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(n) < torch.randint(2, n + 1, (G, 1), generator=generator)
    dense, dense_signal = softmax_targets(torch.randn(G, n, generator=generator).double(), mask)
    counts = torch.randint(0, 3, (G, n), generator=generator).double()
    counts[:, 0] = 1
    sparse, sparse_signal = l1_targets(counts, mask)
    base = torch.randn(G, n, generator=generator).double().masked_fill(~mask, 0)
    return torch.stack([dense, sparse], 1), torch.stack([dense_signal, sparse_signal], 1), mask, base


def loss(scores, base, targets, mask, w, beta):
    """The scalarised loss of each group."""
    return scalarise(listnet_dpo_loss(scores, base, targets, mask, [beta, beta]), w)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(2))
def test_scores_optimised_directly_reach_the_closed_forms_loss_and_not_less(beta, seed):
    targets, signal, mask, base = problem(seed=seed)
    closed = mixture_scores(targets, signal, mask, base, GRID, [beta, beta])
    for p, w in enumerate(GRID):
        distance = torch.zeros_like(base, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [distance], lr=1, max_iter=2000, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
        )

        def step(w=w, distance=distance, optimiser=optimiser):
            optimiser.zero_grad()
            value = loss(base + distance, base, targets, mask, w, beta).sum()
            value.backward()
            return value

        optimiser.step(step)
        best = loss(base + distance.detach(), base, targets, mask, w, beta)
        torch.testing.assert_close(loss(closed[p], base, targets, mask, w, beta), best, atol=1e-5, rtol=0)


def test_the_closed_form_leaves_no_gradient():
    targets, signal, mask, base = problem()
    for p, w in enumerate(GRID[1:3], 1):
        scores = mixture_scores(targets, signal, mask, base, GRID, [2.0, 2.0])[p].requires_grad_()
        loss(scores, base, targets, mask, w, 2.0).sum().backward()
        torch.testing.assert_close(scores.grad, torch.zeros_like(scores), atol=1e-8, rtol=0)


def test_the_top_one_probabilities_of_the_distance_are_the_mixture_of_the_targets():
    targets, signal, mask, base = problem()
    scores = mixture_scores(targets, signal, mask, base, GRID, [0.5, 0.5])
    for p, w in enumerate(GRID[:3]):
        distance = (0.5 * (scores[p] - base)).masked_fill(~mask, -torch.inf)
        expected = (w[:, None] * targets).sum(1)
        torch.testing.assert_close(distance.softmax(-1), expected, atol=1e-8, rtol=0)


def test_an_item_without_mass_scores_far_below_the_others_and_stays_finite():
    mask = torch.ones(1, 3, dtype=torch.bool)
    targets = torch.tensor([[[0.5, 0.5, 0.0]]]).double()
    base = torch.tensor([[0.0, 1.0, 9.0]]).double()
    w, signal = torch.ones(1, 1).double(), torch.ones(1, 1, dtype=torch.bool)
    scores = mixture_scores(targets, signal, mask, base, w, [1.0])[0, 0]
    assert scores.isfinite().all()
    assert scores[2] < scores[:2].min() - 10


def test_a_group_without_any_signal_keeps_its_base_scores():
    targets, signal, mask, base = problem()
    signal[1] = False
    scores = mixture_scores(targets * signal[..., None], signal, mask, base, GRID, [1.0, 1.0])
    torch.testing.assert_close(scores[:, 1], base[1].expand(len(GRID), -1))
    assert scores.isfinite().all()


def test_an_objective_without_signal_leaves_its_weight_to_the_others():
    targets, signal, mask, base = problem()
    signal[1, 1] = False
    targets[1, 1] = 0
    scores = mixture_scores(targets, signal, mask, base, GRID, [1.0, 1.0])[:, 1]
    torch.testing.assert_close(scores[1], scores[0])
    torch.testing.assert_close(scores[2], scores[0])
    torch.testing.assert_close(scores[3], base[1]), "no weight remains"


def test_padding_keeps_the_base_scores_and_does_not_move_the_items():
    targets, signal, mask, base = problem()
    wide = [torch.nn.functional.pad(t, (0, 4)) for t in (targets, mask, base)]
    scores = mixture_scores(targets, signal, mask, base, GRID, [1.0, 1.0])
    wider = mixture_scores(wide[0], signal, wide[1], wide[2], GRID, [1.0, 1.0])
    torch.testing.assert_close(wider[..., : base.shape[1]], scores)
    assert (wider[..., base.shape[1] :] == 0).all()


def test_different_temperatures_are_refused():
    with pytest.raises(InputError, match="equal temperatures"):
        mixture_scores(*problem()[:4], GRID, [1.0, 2.0])
