"""The feature transform: a formula, fitted on the training rows in one pass."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import numpy as np
import pytest
from helpers import toy_table
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from hyperdpo.data import transform
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import FeatureTransform, column_values
from hyperdpo.errors import InputError


def table_of(values: np.ndarray) -> GroupedTable:
    rows = len(values)
    columns = tuple(f"f{i}" for i in range(values.shape[1]))
    offsets = np.unique(np.append(np.arange(0, rows, 3), rows))
    return GroupedTable(values.astype(np.float32), columns, np.arange(len(offsets) - 1), offsets)


def formula(training: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Written out in float64."""
    logs, new = (np.sign(v) * np.log(1 + np.abs(v)) for v in (training.astype(np.float64), values.astype(np.float64)))
    spread = logs.std(0)
    return np.where(spread > 0, (new - logs.mean(0)) / np.where(spread > 0, spread, 1), 0)


def test_it_is_signed_log_then_standardisation():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 4)) * [1, 1e3, 1e6, 0.01]
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0", "f1", "f2", "f3"))
    np.testing.assert_allclose(fitted(values), formula(values, values), atol=2e-5)
    new = rng.normal(size=(7, 4))
    np.testing.assert_allclose(fitted(new), formula(values, new), rtol=1e-4, atol=2e-5)
    assert fitted(values).dtype == np.float32


@given(
    values=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(-1000, 1000).map(float)
    ),
    chunk=st.integers(1, 15),
)
@settings(deadline=None)
def test_fitting_in_chunks_is_fitting_at_once(values, chunk):
    part = Part.whole(table_of(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform, "CHUNK_ROWS", chunk)
        streamed = FeatureTransform.fit(part, ("f0", "f1"))
        np.testing.assert_array_equal(column_values(part, ("f1",))[:, 0], values[:, 1])
    whole = FeatureTransform.fit(part, ("f0", "f1"))
    np.testing.assert_allclose(streamed.mean, whole.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(streamed.scale, whole.scale, rtol=1e-4)
    np.testing.assert_allclose(whole(values), formula(values, values), atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 7.0, -1e6, 0.1])
def test_a_constant_column_becomes_zero(value):
    values = np.column_stack([np.full(30, value), np.arange(30)])
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0", "f1"))
    assert (fitted(values)[:, 0] == 0).all()
    assert (fitted(np.array([[123.0, 4.0]]))[:, 0] == 0).all(), "whatever it is elsewhere"


def test_large_offsets_do_not_cancel_the_spread():
    """Sums of squares minus the squared sum would lose all digits here."""
    values = (1e30 * (1 + 1e-3 * np.arange(1000)))[:, None]
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0",))
    assert fitted(values).std() == pytest.approx(1, rel=1e-2)


def test_only_the_rows_of_the_part_count():
    table = toy_table(10)
    part = Part(table, np.array([2, 5]))
    fitted = FeatureTransform.fit(part, ("f1",))
    own = table.column("f1")[part.rows()]
    np.testing.assert_allclose(fitted.mean, np.mean(np.sign(own) * np.log1p(np.abs(own))), rtol=1e-5)


def test_columns_keep_the_order_asked_for():
    table = toy_table(10)
    one = FeatureTransform.fit(Part.whole(table), ("f3", "f0"))
    other = FeatureTransform.fit(Part.whole(table), ("f0", "f3"))
    np.testing.assert_array_equal(one.mean, other.mean[::-1])


def test_the_callers_array_is_not_changed():
    values = np.array([[1.0, -2.0], [3.0, 4.0]], dtype=np.float32)
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0", "f1"))
    before = values.copy()
    fitted(values)
    np.testing.assert_array_equal(values, before)


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="no column 'f9'"):
        FeatureTransform.fit(Part.whole(toy_table(3)), ("f9",))


def test_a_missing_value_is_the_mean_and_is_said_to_be_missing():
    values = np.column_stack([[1.0, np.nan, 7.0, np.nan], [1.0, 2.0, 3.0, 4.0]])
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0", "f1"))
    found = fitted(values)
    known = formula(values[[0, 2], :1], values[[0, 2], :1])[:, 0]
    np.testing.assert_allclose(found[:, 0], [known[0], 0, known[1], 0], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], formula(values[:, 1:], values[:, 1:])[:, 0], atol=1e-6)
    np.testing.assert_array_equal(found[:, 2], [0, 1, 0, 1])
    assert fitted.width == 3


def test_a_value_that_was_never_missing_in_training_is_the_mean_and_is_named():
    fitted = FeatureTransform.fit(Part.whole(table_of(np.arange(8.0).reshape(4, 2))), ("f0", "f1"))
    new = np.array([[np.nan, 1.0]])
    assert fitted(new).shape == (1, 2)
    assert fitted(new)[0, 0] == 0
    assert fitted.unexpected(new) == ["f0"]


def test_a_column_that_is_always_missing_is_constant():
    values = np.column_stack([[np.nan] * 4, [1.0, 2.0, 3.0, 4.0]])
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0", "f1"))
    assert fitted.constant == ("f0",)
    assert fitted.width == 2
    assert (fitted(values)[:, 0] == 0).all()


@pytest.mark.parametrize("start", [8_000_000, 16_000_000])
def test_the_logarithm_is_left_out_where_it_would_make_different_values_equal(start):
    values = (start + np.arange(200.0))[:, None]
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0",))
    assert not fitted.logs[0]
    found = fitted(values)[:, 0]
    assert len(np.unique(found)) == 200
    np.testing.assert_allclose(np.diff(found), np.diff(found).mean(), rtol=1e-3)


def test_counts_with_a_long_tail_keep_their_logarithm():
    values = np.floor(np.exp(np.random.default_rng(0).uniform(0, 16, 5000)))[:, None]
    assert FeatureTransform.fit(Part.whole(table_of(values)), ("f0",)).logs[0]


def test_a_column_with_an_origin_is_standardised_as_it_is():
    table = dataclasses.replace(table_of(np.arange(31.0)[:, None]), origins={"f0": 20240101.0})
    fitted = FeatureTransform.fit(Part.whole(table), ("f0",))
    days = np.arange(31.0)
    np.testing.assert_allclose(fitted(days[:, None])[:, 0], (days - days.mean()) / days.std(), atol=1e-6)
    assert fitted.origins.tolist() == [20240101.0]


def test_columns_that_do_not_vary_are_named():
    values = np.column_stack([np.full(30, 7.0), np.arange(30), 1e-9 * np.arange(30)])
    fitted = FeatureTransform.fit(Part.whole(table_of(values)), ("f0", "f1", "f2"))
    assert fitted.constant == ("f0",)
    assert fitted(values)[:, 2].std() == pytest.approx(1, rel=1e-3)
