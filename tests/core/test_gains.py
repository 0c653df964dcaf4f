"""Expected gains: written-out arithmetic, NDCG of scikit-learn, and orders found by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score

from hyperdpo.core.gains import gain_loss, gain_scores, gain_weights, total_loss
from hyperdpo.errors import InputError
from hyperdpo.ranking.metrics import NdcgSettings, relative_gains

ALL = torch.ones(1, 3, dtype=torch.bool)


def ndcg_of_order(relative: np.ndarray, order: tuple[int, ...], k: int) -> float:
    return sum(relative[i] / np.log2(2 + place) for place, i in enumerate(order[:k]))


def test_relative_gains_are_gains_over_the_ideal_dcg() -> None:
    ideal = 8 + 1 / np.log2(3) + 1 / np.log2(4)
    found = relative_gains(torch.tensor([[1.0, 1.0, 8.0]], dtype=torch.float64), ALL, NdcgSettings(k=3))
    np.testing.assert_allclose(found[0], np.array([1, 1, 8]) / ideal)
    first_place_only = relative_gains(torch.tensor([[1.0, 1.0, 8.0]]), ALL, NdcgSettings(k=1))
    assert first_place_only[0].tolist() == [0.125, 0.125, 1.0]


@pytest.mark.parametrize("k", [2, 10])
def test_the_discounted_sum_of_relative_gains_is_sklearns_ndcg(k: int) -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        gains, scores = rng.integers(0, 4, 7).astype(float), rng.normal(size=7)
        if not gains.any():
            continue
        relative = relative_gains(torch.tensor(gains[None]), torch.ones(1, 7, dtype=torch.bool), NdcgSettings(k=k))[
            0
        ].numpy()
        order = tuple(np.argsort(-scores))
        assert ndcg_of_order(relative, order, k) == pytest.approx(ndcg_score([gains], [scores], k=k))


def test_padding_and_lists_without_gain_are_zero() -> None:
    gains = torch.tensor([[2.0, 1.0, 99.0], [0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = relative_gains(gains, mask)
    assert found[0, 2] == 0
    assert (found[1] == 0).all()
    torch.testing.assert_close(found[:1, :2], relative_gains(gains[:1, :2], mask[:1, :2]))


@pytest.mark.parametrize("bad", [-1.0, torch.inf, torch.nan])
def test_gains_that_are_no_gains_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="finite labels >= 0"):
        relative_gains(torch.tensor([[1.0, bad, 0.0]]), ALL, NdcgSettings(k=3))


def test_the_minimiser_is_the_expected_gain_not_share_times_total() -> None:
    """Lists (2, 0, 0) and (1, 1, 8), equally likely, k = 3."""
    lists = torch.tensor([[2.0, 0, 0], [1, 1, 8]], dtype=torch.float64)
    relative = relative_gains(lists, ALL.expand(2, -1), NdcgSettings(k=3))
    scores = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    log_total = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [scores, log_total], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        both = gain_loss(scores.expand(2, -1), relative, ALL.expand(2, -1)) + total_loss(log_total, relative.sum(-1))
        both.mean().backward()
        return both.mean()

    optimizer.step(closure)
    column = (torch.softmax(scores, 0) * log_total.exp()).detach()
    np.testing.assert_allclose(column, [0.555, 0.055, 0.438], atol=2e-3)
    torch.testing.assert_close(column, relative.mean(0), atol=1e-5, rtol=0)
    shares = (lists / lists.sum(-1, keepdim=True)).mean(0) * relative.sum(-1).mean()
    np.testing.assert_allclose(shares, [0.576, 0.052, 0.419], atol=2e-3)


def test_sorting_by_the_weighted_sum_is_the_best_order_of_all() -> None:
    """Of all 120 orders of five items, under a distribution over label lists."""
    rng = np.random.default_rng(0)
    k, mask = 3, torch.ones(6, 5, dtype=torch.bool)
    for _ in range(10):
        labels = torch.tensor(rng.integers(0, 4, (3, 6, 5)).astype(float))  # two objectives and main, six likely lists
        relative = relative_gains(labels, mask, NdcgSettings(k=k))
        columns = relative.mean(1)  # (3, 5): E[g]
        w, share = rng.dirichlet([1, 1]), rng.uniform(0, 0.9)
        v = gain_weights(torch.tensor(w), share)
        assert v.sum().item() == pytest.approx(1)
        scores = gain_scores(columns[None], v[None, None])[0, 0]
        utility = (v[:, None, None] * relative).mean(1).sum(0).numpy()

        def value(order: tuple[int, ...], utility: np.ndarray = utility) -> float:
            return ndcg_of_order(utility, order, k)

        best = max(map(value, itertools.permutations(range(5))))
        assert value(tuple(np.argsort(-scores.numpy()))) == pytest.approx(best)


def test_a_share_of_each_group_gives_the_weights_of_that_group() -> None:
    weights = torch.tensor([[0.2, 0.8], [1.0, 0.0]])
    found = gain_weights(weights, torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(found, torch.tensor([[0.1, 0.4, 0.5], [1.0, 0.0, 0.0]]))
