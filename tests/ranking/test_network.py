"""The networks: what their scores may and may not depend on, and how large they are."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional

from hyperdpo.ranking.config import ScorerConfig
from hyperdpo.ranking.examples import Batch
from hyperdpo.ranking.network import Scorer
from hyperdpo.ranking.parametrizations import AugmentationRanker, Ranker

KINDS = pytest.mark.parametrize("kind", ["transformer", "mlp"])
F, M = 5, 3


def scorer(kind: str = "transformer", *, weights: int = M, heads: int = 2) -> Scorer:
    torch.manual_seed(1)
    return Scorer(ScorerConfig(kind=kind, width=8, heads=heads), F, weights).double().eval()


def ranker(parametrization: str, kind: str = "transformer", *, weights: int = M) -> Ranker:
    torch.manual_seed(2)
    made = AugmentationRanker if parametrization == "augmentation" else Ranker
    return made(ScorerConfig(kind=kind, width=8), F, weights).double().eval()


def many(model: Ranker, one: Batch, grid: torch.Tensor) -> torch.Tensor:
    """(P, G, n) scores of (P, m) weightings."""
    return model.scores(one, grid.unsqueeze(1).expand(-1, len(one.mask), -1), [1.0] * M)


def groups(G: int = 4, n: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (G, n, F), a mask of 1 to n items, and one w per group."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(G, n, F, generator=generator).double()
    sizes = torch.randint(1, n + 1, (G, 1), generator=generator)
    weights = torch.rand(G, M, generator=generator).double()
    return features, torch.arange(n) < sizes, weights / weights.sum(-1, keepdim=True)


def batch(features: torch.Tensor, mask: torch.Tensor, seed: int = 9) -> Batch:
    base = torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed)).double()
    return Batch(features, mask, base.masked_fill(~mask, 0))


# --- what scores depend on


@KINDS
@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_reordering_the_items_reorders_the_scores(kind, seed):
    features, _, w = groups(seed=seed)
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    order = torch.randperm(features.shape[1], generator=torch.Generator().manual_seed(seed))
    score = scorer(kind)
    torch.testing.assert_close(score(features[:, order], mask, w), score(features, mask, w)[:, order])


@KINDS
@given(seed=st.integers(0, 1000), more=st.integers(0, 5), junk=st.sampled_from([0.0, -7.0, 1e4]))
@settings(max_examples=15, deadline=None)
def test_scores_do_not_see_how_wide_the_padding_is_or_what_is_in_it(kind, seed, more, junk):
    features, mask, w = groups(seed=seed)
    wider = functional.pad(features, (0, 0, 0, more))
    wider_mask = functional.pad(mask, (0, more))
    wider = wider.masked_fill(~wider_mask.unsqueeze(-1), junk)
    score = scorer(kind)
    found = score(wider, wider_mask, w)
    assert found.isfinite().all()
    torch.testing.assert_close(found[:, : mask.shape[1]][mask], score(features, mask, w)[mask])


def test_a_group_that_fills_its_batch_scores_as_it_does_beside_a_longer_one():
    """Where nothing is padded the attention runs without a mask; the scores must be the same."""
    features, _, w = groups(G=2, n=6)
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    score = scorer()
    together = score(features, mask, w)[0, :4]
    alone = score(features[:1, :4], mask[:1, :4], w[:1])[0]
    torch.testing.assert_close(together, alone)


def test_the_mlp_scores_each_item_independently_of_the_others():
    features, mask, w = groups()
    mask = torch.ones_like(mask)
    score = scorer("mlp")
    changed = features.clone()
    changed[:, 1:] += 3.0
    torch.testing.assert_close(score(changed, mask, w)[:, 0], score(features, mask, w)[:, 0])
    assert not torch.allclose(score(changed, mask, w)[:, 1:], score(features, mask, w)[:, 1:])


def test_the_transformer_scores_an_item_in_view_of_the_others():
    features, mask, w = groups()
    mask = torch.ones_like(mask)
    changed = features.clone()
    changed[:, 1:] += 3.0
    score = scorer("transformer")
    assert not torch.allclose(score(changed, mask, w)[:, 0], score(features, mask, w)[:, 0])


@KINDS
def test_what_stands_before_the_conditions_is_the_same_for_all_of_them(kind):
    features, mask, w = groups()
    config = ScorerConfig(kind=kind, width=8, heads=2, conditioning="head")
    score = Scorer(config, F, M).double().eval()
    assert score.shares_blocks
    assert not Scorer(ScorerConfig(kind=kind, width=8, conditioning="modulation"), F, M).shares_blocks
    assert not Scorer(config, F).shares_blocks
    hidden = score.before_conditions(features, mask)
    for conditions in (w, torch.stack([w, w.flip(-1)])):
        torch.testing.assert_close(
            score(features * torch.nan, mask, conditions, hidden), score(features, mask, conditions)
        )


@KINDS
def test_groups_of_a_batch_do_not_see_each_other(kind):
    features, mask, w = groups()
    score = scorer(kind)
    alone = torch.cat([score(features[g : g + 1], mask[g : g + 1], w[g : g + 1]) for g in range(len(mask))])
    torch.testing.assert_close(score(features, mask, w)[mask], alone[mask])


@KINDS
def test_the_weights_change_the_order_of_the_items_scores(kind):
    """A shift of all scores would not count: no loss and no metric sees it."""
    features, mask, w = groups()
    mask = torch.ones_like(mask)
    score = scorer(kind)
    first, second = (score(features, mask, torch.eye(M).double()[j].expand(len(w), M)) for j in (0, 1))
    difference = first - second
    assert (difference - difference.mean(-1, keepdim=True)).abs().max() > 1e-3


# --- the first layer


def test_the_sum_of_two_maps_is_one_linear_layer_over_features_and_weights():
    features, mask, w = groups()
    score = Scorer(ScorerConfig(width=8, conditioning="input"), F, M).double().eval()
    plain = Scorer(score.config, F + M).double().eval()
    tensors = score.state_dict()
    tensors["features_in.weight"] = torch.cat([tensors["features_in.weight"], tensors.pop("weights_in.weight")], 1)
    plain.load_state_dict(tensors)
    together = torch.cat([features, w.unsqueeze(1).expand(-1, features.shape[1], -1)], -1)
    torch.testing.assert_close(plain(together, mask), score(features, mask, w))


@pytest.mark.parametrize("parametrization", ["scratch", "augmentation"])
@KINDS
def test_many_weightings_in_one_pass_score_as_one_by_one(kind, parametrization):
    features, mask, _ = groups()
    one, model = batch(features, mask), ranker(parametrization, kind)
    torch.nn.init.normal_(model.scorer.out.weight)
    grid = torch.tensor([[1, 0, 0], [0.2, 0.3, 0.5], [0, 0, 1]]).double()
    found = many(model, one, grid)
    assert found.shape == (3, *mask.shape)
    for p, w in enumerate(grid):
        torch.testing.assert_close(found[p][mask], model(one, w.expand(len(mask), M))[mask])


# --- parametrisations


@KINDS
def test_augmentation_starts_exactly_at_the_base_scores_whatever_the_weights(kind):
    features, mask, w = groups()
    one = batch(features, mask)
    model = ranker("augmentation", kind)
    assert torch.equal(model(one, w), one.base_scores)
    assert torch.equal(many(model, one, w)[2], one.base_scores)


def test_scratch_does_not_see_the_base_scores():
    features, mask, w = groups()
    model = ranker("scratch")
    assert torch.equal(model(batch(features, mask, seed=1), w), model(batch(features, mask, seed=2), w))


# --- sizes


@pytest.mark.parametrize(("weights", "parameters"), [(0, 50_112), (5, 50_432)])
def test_the_parameter_counts_are_those_of_the_paper(weights, parameters):
    """Table 1: eleven models have 551,232 parameters, the conditioned one 50,432."""
    config = ScorerConfig(width=64, layers=2, conditioning="input")
    assert Ranker(config, 131, weights).num_parameters() == parameters
    assert 551_232 == 11 * 50_112


def test_a_weight_more_costs_one_number_per_unit_of_the_first_layer():
    config = ScorerConfig(width=8, layers=3, conditioning="input")
    sizes = [Ranker(config, F, m).num_parameters() for m in (1, 2, 3)]
    assert (sizes[1] - sizes[0], sizes[2] - sizes[1]) == (8, 8)
