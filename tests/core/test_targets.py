"""Targets are a distribution over the real items of a group, or 0 where the labels say nothing."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from hyperdpo.core.targets import l1_targets, softmax_targets
from hyperdpo.errors import InputError

ALL = torch.ones(3, dtype=torch.bool)
BOTH = pytest.mark.parametrize("normalise", [softmax_targets, l1_targets])


@st.composite
def padded_labels(draw):
    """Labels (G, n) >= 0 with many zeros, and a mask of any shape, empty groups included."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 7)))
    values = st.one_of(st.just(0.0), st.floats(0, 1e6, allow_subnormal=False))
    labels = draw(hnp.arrays(np.float64, shape, elements=values))
    return torch.from_numpy(labels), torch.from_numpy(draw(hnp.arrays(bool, shape)))


def test_softmax_is_the_exponential_over_the_sum_of_exponentials():
    targets, signal = softmax_targets(torch.tensor([0.0, 1.0, 2.0]), ALL)
    total = 1 + math.e + math.e**2
    torch.testing.assert_close(targets, torch.tensor([1 / total, math.e / total, math.e**2 / total]))
    assert signal.item()


def test_softmax_at_a_temperature_is_softmax_of_the_labels_divided_by_it():
    quality = torch.tensor([1.0, 100.0, 254.0])
    torch.testing.assert_close(softmax_targets(quality, ALL, 50.0)[0], torch.softmax(quality / 50, -1))
    torch.testing.assert_close(softmax_targets(quality, ALL, 1.0)[0], torch.tensor([0.0, 0.0, 1.0]))


def test_l1_is_the_label_over_the_sum_of_labels():
    targets, signal = l1_targets(torch.tensor([[3, 0, 1]]), ALL)
    torch.testing.assert_close(targets, torch.tensor([[0.75, 0.0, 0.25]]))
    assert signal.tolist() == [True]


def test_a_group_without_a_positive_label_has_no_l1_signal_and_zero_targets():
    targets, signal = l1_targets(torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), ALL)
    assert signal.tolist() == [False, True]
    assert targets.tolist() == [[0, 0, 0], [0, 1, 0]]


@BOTH
def test_a_group_of_one_item_has_no_signal(normalise):
    targets, signal = normalise(torch.tensor([[5.0, 7.0, 9.0]]), torch.tensor([[False, True, False]]))
    assert not signal.any()
    assert not targets.any()


@BOTH
def test_one_mask_serves_every_objective(normalise):
    labels = torch.rand(4, 2, 5)
    mask = torch.arange(5) < torch.tensor([[5], [4], [2], [1]])
    together, signal = normalise(labels, mask.unsqueeze(1))
    for j in range(2):
        alone, alone_signal = normalise(labels[:, j], mask)
        torch.testing.assert_close(together[:, j], alone)
        assert torch.equal(signal[:, j], alone_signal)


@BOTH
@pytest.mark.parametrize("extreme", [1e-300, 1e-30, 1e30, 1.5e308])
def test_extreme_labels_neither_overflow_nor_vanish(normalise, extreme):
    targets, _ = normalise(torch.tensor([extreme, extreme, 0.0], dtype=torch.float64), ALL)
    torch.testing.assert_close(targets.sum().item(), 1.0)


@BOTH
@given(data=padded_labels())
@settings(deadline=None)
def test_targets_are_a_distribution_over_the_real_items_or_zero(normalise, data):
    labels, mask = data
    targets, signal = normalise(labels, mask)
    assert (targets >= 0).all()
    assert not targets[~mask].any()
    torch.testing.assert_close(targets.sum(-1), signal.double())


@BOTH
@given(data=padded_labels(), junk=st.sampled_from([math.nan, math.inf, -7.0]), seed=st.integers(0, 99))
@settings(deadline=None)
def test_targets_ignore_padding_and_follow_the_order_of_the_items(normalise, data, junk, seed):
    labels, mask = data
    targets, signal = normalise(labels, mask)
    wide_labels = torch.nn.functional.pad(labels.masked_fill(~mask, junk), (0, 3), value=junk)
    order = torch.randperm(wide_labels.shape[-1], generator=torch.Generator().manual_seed(seed))
    wide, wide_signal = normalise(wide_labels[:, order], torch.nn.functional.pad(mask, (0, 3))[:, order])
    torch.testing.assert_close(wide, torch.nn.functional.pad(targets, (0, 3))[:, order])
    assert torch.equal(signal, wide_signal)


def test_a_negative_label_is_an_error_for_l1_that_says_where_it_is():
    labels = torch.tensor([[0.0, 1.0], [2.0, -3.0]])
    with pytest.raises(InputError, match=r"^group 1, position 1: label -3, expected labels >= 0 for l1 targets$"):
        l1_targets(labels, torch.ones(2, 2, dtype=torch.bool))
    softmax_targets(labels, torch.ones(2, 2, dtype=torch.bool))


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_label_that_is_not_finite_is_an_error_on_a_real_item(normalise, value):
    with pytest.raises(InputError, match=rf"^group \(0, 1\), position 2: label {value}, expected finite labels$"):
        normalise(torch.tensor([[[0.0, 1.0, 1.0], [0.0, 1.0, value]]]), ALL)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_is_finite_and_positive(temperature):
    with pytest.raises(InputError, match="expected a finite number > 0"):
        softmax_targets(torch.zeros(3), ALL, temperature)
