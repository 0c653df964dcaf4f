"""Arrays and data frames: the same numbers from every library, and one line for what cannot be used."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from helpers import is_one_line

from hyperdpo.data.frames import group_rows, to_columns, to_table, to_vector
from hyperdpo.errors import InputError

VALUES = {"b": [1.0, 2.0, 3.0], "a": [True, False, True], "c": [7, 8, 9]}
FRAMES = pytest.mark.parametrize(
    "make", [pd.DataFrame, pl.DataFrame, pa.table, dict], ids=["pandas", "polars", "arrow", "mapping"]
)


def refusal(action, *args):
    with pytest.raises(InputError) as error:
        action(*args)
    assert is_one_line(error.value)
    return str(error.value)


@FRAMES
def test_every_kind_of_frame_gives_the_same_columns_in_its_order(make):
    array, names = to_columns(make(VALUES), "X", "x")
    assert names == ("b", "a", "c")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, [[1, 1, 7], [2, 0, 8], [3, 1, 9]])


@pytest.mark.parametrize("values", [[[1, 2], [3, 4]], np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))])
def test_columns_of_an_array_are_numbered(values):
    array, names = to_columns(values, "X", "x")
    assert names == ("x0", "x1")
    np.testing.assert_array_equal(array, [[1, 2], [3, 4]])


def test_one_dimension_is_one_column():
    array, names = to_columns(np.arange(3), "X", "label")
    assert (array.shape, names) == ((3, 1), ("label0",))


@pytest.mark.parametrize("make", [np.array, list, pd.Series, pl.Series, pa.array, pa.chunked_array])
def test_every_kind_of_column_gives_the_same_vector(make):
    values = [[1.5, 2.0], [3.0]] if make is pa.chunked_array else [1.5, 2.0, 3.0]
    np.testing.assert_array_equal(to_vector(make(values), "y"), np.float32([1.5, 2, 3]))


def test_a_matrix_of_one_column_is_a_vector():
    np.testing.assert_array_equal(to_vector(np.ones((3, 1)), "y"), np.ones(3))


@FRAMES
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_named_by_column_and_row(make, bad):
    message = refusal(to_columns, make({"a": [1.0, 2.0], "b": [1.0, bad]}), "X", "x")
    assert all(word in message for word in ("X", "'b'", "row 1", str(bad)))


@FRAMES
def test_a_column_of_words_is_named(make):
    assert "'b'" in refusal(to_columns, make({"a": [1.0, 2.0], "b": ["x", "y"]}), "X", "x")


@pytest.mark.parametrize("values", [np.zeros((2, 2, 2)), [[1, 2], [3]], "words", None, object()])
def test_what_is_no_table_is_refused(values):
    assert "X" in refusal(to_columns, values, "X", "x")


@pytest.mark.parametrize("values", [np.zeros((3, 2)), ["a", "b"], [1.0, math.nan], None])
def test_what_is_no_column_is_refused(values):
    assert "y" in refusal(to_vector, values, "y")


@pytest.mark.parametrize("make", [pd.array, pd.Series, pl.Series, pa.array])
def test_a_missing_value_is_refused(make):
    assert "y" in refusal(to_vector, make([1, None, 3]), "y")


def test_truth_values_are_numbers():
    for make in (np.array, pd.Series, pl.Series, pa.array):
        np.testing.assert_array_equal(to_vector(make([True, False]), "y"), [1, 0])


def test_columns_of_different_lengths_are_refused():
    assert "[2, 3]" in refusal(to_columns, {"a": [1, 2], "b": [1, 2, 3]}, "labels", "label")


@pytest.mark.parametrize(
    "make",
    [np.array, list, pd.Series, pl.Series, pa.array, lambda v: np.array(v, dtype=object)],
    ids=["numpy", "list", "pandas", "polars", "arrow", "objects"],
)
@pytest.mark.parametrize("names", [[7, 7, 3], ["q7", "q7", "q3"]], ids=["numbers", "words"])
def test_adjacent_rows_of_one_name_are_a_group(make, names):
    found, offsets = group_rows(make(names), 3)
    assert [str(name) for name in found] == [str(names[0]), str(names[2])]
    assert offsets.tolist() == [0, 2, 3]


def test_a_group_in_two_places_is_refused_with_its_row():
    message = refusal(group_rows, np.array([1, 1, 2, 1]), 4)
    assert "row 3" in message
    assert "adjacent" in message


def test_another_number_of_names_than_rows_is_refused():
    assert "(2,)" in refusal(group_rows, [1, 2], 3)


def test_a_missing_name_is_refused():
    assert "row 1" in refusal(group_rows, [1.0, math.nan, 2.0], 3)


def test_a_fingerprint_tells_contents_apart():
    def of(values, names=("a", "b"), offsets=(0, 1, 2)):
        return to_table(np.array(values), names, np.arange(2), np.array(offsets), fingerprint=True).fingerprint

    same = of([[1, 2], [3, 4]])
    assert same == of([[1, 2], [3, 4]])
    assert len({same, of([[1, 2], [3, 5]]), of([[1, 2], [3, 4]], ("a", "c"))}) == 3
    assert to_table(np.zeros((2, 2)), ("a", "b"), np.arange(2), np.arange(3)).fingerprint == ""
