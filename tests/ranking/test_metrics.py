"""NDCG against scikit-learn and LightGBM, and under padding, reordering and ties."""

import math
from itertools import permutations, product
from math import log2

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from hyperdpo.errors import InputError
from hyperdpo.ranking.metrics import NdcgSettings, ideal_dcg, mrr, ndcg


def mean_ndcg(*given):
    """The mean over the groups that count, and their number."""
    values = ndcg(*given)
    return values.nanmean(-1), (~values.isnan()).sum(-1)


PLACES = pytest.mark.parametrize("k", [1, 3, 10, None])


def random_groups(G=40, n=25, levels=5, seed=0):
    """Scores from a few levels (many ties), labels 0 to 3 and a mask; every group has a positive label."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (G, n)) / 8
    labels = rng.integers(0, 4, (G, n)) * (rng.random((G, n)) < 0.5)
    labels[:, 0] = 1
    mask = np.arange(n) < rng.integers(2, n + 1, (G, 1))
    return torch.tensor(scores).double(), torch.tensor(labels).double(), torch.tensor(mask)


@st.composite
def groups(draw):
    shape = draw(st.integers(1, 3)), draw(st.integers(1, 8))
    scores = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([-2.0, 0.0, 0.5, 1.0, 3.0])))
    labels = draw(hnp.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.0, 1.0, 2.0, 7.5])))
    return torch.from_numpy(scores), torch.from_numpy(labels), torch.from_numpy(draw(hnp.arrays(bool, shape)))


# --- NDCG against its definition


def test_ndcg_is_dcg_over_the_best_dcg():
    scores, labels = torch.tensor([[3.0, 2.0, 1.0]]).double(), torch.tensor([[1, 0, 2]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    linear = (1 / log2(2) + 2 / log2(4)) / (2 / log2(2) + 1 / log2(3))
    exponential = (1 / log2(2) + 3 / log2(4)) / (3 / log2(2) + 1 / log2(3))
    first_place = 1 / 2
    assert ndcg(scores, labels, mask).item() == pytest.approx(linear)
    assert ndcg(scores, labels, mask, NdcgSettings(gain="exponential")).item() == pytest.approx(exponential)
    assert ndcg(scores, labels, mask, NdcgSettings(k=1)).item() == pytest.approx(first_place)


@PLACES
def test_tied_scores_get_the_mean_over_all_orders_of_the_tied_items(k):
    labels = torch.tensor([[2.0, 0.0, 1.0, 3.0, 0.0]]).double()
    scores = torch.tensor([[1.0, 1.0, 1.0, 0.0, 1.0]]).double()
    mask = torch.ones(1, 5, dtype=torch.bool)
    broken = [scores + 1e-3 * torch.tensor([[a, b, c, 0, d]]) for a, b, c, d in permutations(range(4))]
    expected = torch.cat([ndcg(one, labels, mask, NdcgSettings(k=k)) for one in broken]).mean()
    assert ndcg(scores, labels, mask, NdcgSettings(k=k)).item() == pytest.approx(expected.item())


@PLACES
@pytest.mark.parametrize("levels", [1, 3, 10, 10**6])
def test_linear_gain_is_the_ndcg_of_scikit_learn_ties_included(k, levels):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, labels, mask = random_groups(levels=levels)
    expected = [metrics.ndcg_score(labels[g, mask[g]][None], scores[g, mask[g]][None], k=k) for g in range(len(scores))]
    np.testing.assert_allclose(ndcg(scores, labels, mask, NdcgSettings(k=k)), expected, rtol=1e-12)


def test_exponential_gain_is_the_ndcg_of_lightgbm_with_empty_groups_counted_as_one():
    lightgbm = pytest.importorskip("lightgbm")
    scores, labels, mask = random_groups(levels=10**6)
    labels[::5] = 0  # groups without a positive label
    sizes = mask.sum(1).numpy()
    features = np.zeros((sizes.sum(), 1))
    data = lightgbm.Dataset(
        features, labels[mask].numpy(), group=sizes, init_score=scores[mask].numpy(), free_raw_data=False
    )
    reported = {}
    lightgbm.train(  # a constant feature cannot be split on: the model stays at the initial scores
        {"objective": "lambdarank", "metric": "ndcg", "eval_at": [1, 3, 10], "verbosity": -1, "num_threads": 1},
        data,
        num_boost_round=1,
        valid_sets=[data],
        valid_names=["all"],
        callbacks=[lightgbm.record_evaluation(reported)],
    )
    for k in (1, 3, 10):
        ours, counted = mean_ndcg(scores, labels, mask, NdcgSettings(k=k, gain="exponential", empty="one"))
        assert ours.item() == pytest.approx(reported["all"][f"ndcg@{k}"][0], rel=1e-6)
        assert counted.item() == len(scores)


# --- conventions


@pytest.mark.parametrize(
    ("empty", "value", "mean", "counted"), [("skip", math.nan, 0.5, 1), ("one", 1, 0.75, 2), ("zero", 0, 0.25, 2)]
)
def test_each_rule_for_groups_without_a_positive_label(empty, value, mean, counted):
    scores = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    labels = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    settings_ = NdcgSettings(k=1, empty=empty)
    mask = torch.ones(2, 2, dtype=torch.bool)
    np.testing.assert_equal(ndcg(scores, labels, mask, settings_).tolist(), [0.5, value])
    assert [x.item() for x in mean_ndcg(scores, labels, mask, settings_)] == [mean, counted]


def test_the_mean_over_no_group_is_nan_and_counts_none():
    mean, counted = mean_ndcg(torch.rand(3, 2), torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool))
    assert math.isnan(mean.item())
    assert counted.item() == 0


def test_the_settings_describe_themselves():
    assert NdcgSettings().describe() == "NDCG@10 (linear gain, groups without a positive label: skip)"
    everything = NdcgSettings(k=None, gain="exponential", empty="one").describe()
    assert everything == "NDCG (exponential gain, groups without a positive label: one)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": 0}, "k is 0; expected an integer of at least 1, or null"),
        ({"gain": "cubic"}, "gain is 'cubic'; expected linear or exponential"),
        ({"empty": "ignore"}, "empty is 'ignore'; expected skip, one or zero"),
    ],
)
def test_unknown_settings_are_an_error(wrong, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        NdcgSettings(**wrong)


# --- many objectives and weightings at once


@pytest.mark.parametrize("levels", [4, 10**6])
@pytest.mark.parametrize("gain", ["linear", "exponential"])
def test_weightings_and_objectives_broadcast(levels, gain):
    convention = NdcgSettings(k=5, gain=gain)
    many = [random_groups(levels=levels, seed=seed) for seed in range(4)]
    mask = many[0][2]
    scores, labels = torch.stack([one[0] for one in many]), torch.stack([one[1] for one in many[:3]])
    ideal = ideal_dcg(labels, mask, convention)
    together = ndcg(scores.unsqueeze(1), labels, mask, convention, ideal)
    assert together.shape == (4, 3, len(mask))
    for p in range(4):
        torch.testing.assert_close(ndcg(scores[p], labels, mask, convention), together[p], equal_nan=True)
        for j in range(3):
            alone = ndcg(scores[p], labels[j], mask, convention)
            torch.testing.assert_close(together[p, j], alone, equal_nan=True)
    means, ranks = (
        mean_ndcg(scores.unsqueeze(1), labels, mask, convention, ideal)[0],
        mrr(scores.unsqueeze(1), labels, mask),
    )
    for p, j in product(range(4), range(3)):
        torch.testing.assert_close(means[p, j], mean_ndcg(scores[p], labels[j], mask, convention)[0])
        torch.testing.assert_close(ranks[p, j], mrr(scores[p], labels[j], mask), equal_nan=True)


# --- padding, order, range


@PLACES
@pytest.mark.parametrize("gain", ["linear", "exponential"])
@given(data=groups(), junk=st.sampled_from([math.nan, math.inf, 1e30, -5.0]), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_metrics_ignore_padding_and_the_order_of_the_items(k, gain, data, junk, seed):
    scores, labels, mask = data
    convention = NdcgSettings(k=k, gain=gain)
    value = ndcg(scores, labels, mask, convention)
    positive = ((labels > 0) & mask).any(-1)
    assert torch.equal(value.isnan(), ~positive)
    assert ((value[positive] >= 0) & (value[positive] <= 1 + 1e-12)).all()

    order = torch.randperm(scores.shape[1] + 3, generator=torch.Generator().manual_seed(seed))

    def widened(x, fill):
        return torch.nn.functional.pad(x, (0, 3), value=fill)[:, order]

    wide_scores = widened(scores.masked_fill(~mask, junk), junk)
    wide_labels = widened(labels.masked_fill(~mask, junk), junk)
    wide_mask = widened(mask, False)
    torch.testing.assert_close(ndcg(wide_scores, wide_labels, wide_mask, convention), value, equal_nan=True)
    torch.testing.assert_close(mrr(wide_scores, wide_labels, wide_mask), mrr(scores, labels, mask), equal_nan=True)


@given(data=groups())
@settings(deadline=None)
def test_scoring_by_the_label_is_perfect(data):
    _, labels, mask = data
    value = ndcg(labels, labels, mask)
    torch.testing.assert_close(value[~value.isnan()], torch.ones_like(value[~value.isnan()]))


# --- reciprocal rank


def test_mrr_is_one_over_the_place_of_the_first_positive_item():
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0]]).expand(3, 4)
    labels = torch.tensor([[0.0, 0.0, 1.0, 5.0], [2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(mrr(scores, labels, torch.ones(3, 4, dtype=torch.bool)), [1 / 3, 1, math.nan], rtol=1e-6)


def test_mrr_of_ties_is_one_over_the_mean_place():
    scores = torch.tensor([[9.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    labels = torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0, 0.0]])
    orders = set(permutations([1, 0, 1, 0, 0]))
    mean_place = 1 + sum(order.index(1) + 1 for order in orders) / len(orders)
    assert mrr(scores, labels, torch.ones(1, 6, dtype=torch.bool)).item() == pytest.approx(1 / mean_place)


# --- what is refused

REAL = torch.ones(1, 2, dtype=torch.bool)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_negative_or_infinite_label_is_an_error(value):
    with pytest.raises(InputError, match=f"label {value:g}, expected finite labels >= 0"):
        ndcg(torch.rand(1, 2), torch.tensor([[1.0, value]]), REAL)


def test_a_label_too_large_for_exponential_gain_is_an_error_that_says_what_to_do():
    labels = torch.tensor([[1.0, 61.0]])
    best_last = torch.tensor([[1.0, 0.0]])
    assert ndcg(best_last, labels, REAL).item() == pytest.approx((1 + 61 / log2(3)) / (61 + 1 / log2(3)))
    with pytest.raises(InputError, match=r"label 61 .* transform the label or use linear gain"):
        ndcg(torch.rand(1, 2), labels, REAL, NdcgSettings(gain="exponential"))


@pytest.mark.parametrize("metric", [ndcg, mrr])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_diverged_model_gets_an_error_and_not_a_figure(metric, value):
    with pytest.raises(InputError, match="expected finite scores"):
        metric(torch.tensor([[1.0, value]]), torch.ones(1, 2), REAL)
