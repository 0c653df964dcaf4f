"""Arrays and data frames: the same numbers from every library, and one line for what cannot be used."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from helpers import is_one_line

from hyperdpo.data.frames import Columns, group_rows, to_columns, to_table, to_vector
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
    found = to_columns(make(VALUES), "X", "x")
    assert found.names == ("b", "a", "c")
    assert found.named
    assert found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, [[1, 1, 7], [2, 0, 8], [3, 1, 9]])


@pytest.mark.parametrize("values", [[[1, 2], [3, 4]], np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))])
def test_columns_of_an_array_are_numbered(values):
    found = to_columns(values, "X", "x")
    assert (found.names, found.named) == (("x0", "x1"), False)
    np.testing.assert_array_equal(found.values, [[1, 2], [3, 4]])


@pytest.mark.parametrize("make", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_array])
def test_a_sparse_matrix_is_its_dense_one(make):
    dense = np.array([[0, 1.5], [2, 0], [0, 0]])
    np.testing.assert_array_equal(to_columns(make(dense), "X", "x").values, dense)


@FRAMES
def test_missing_values_are_nan(make):
    found = to_columns(make({"a": [1.0, math.nan], "b": [1.0, 2.0]}), "X", "x")
    np.testing.assert_array_equal(found.values, [[1, 1], [math.nan, 2]])


def test_what_is_no_number_in_a_frame_is_left_out_with_the_reason():
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, 3], dtype="Int64"),
            "title": ["x", "y", "z"],
            "kind": pd.Categorical(["u", "v", "u"]),
            "day": pd.date_range("2024-01-01", periods=3),
            "vector": [[1, 2], [3, 4], [5, 6]],
        },
        index=[5, 3, 9],
    )
    for one in (frame, pl.from_pandas(frame), pa.Table.from_pandas(frame, preserve_index=False)):
        found = to_columns(one, "X", "x")
        assert found.names == ("n", "vector[0]", "vector[1]")
        assert found.left_out == {"title": "text", "kind": "text", "day": "a date or time"}
        np.testing.assert_array_equal(found.values, [[1, 1, 2], [math.nan, 3, 4], [3, 5, 6]])


def test_a_nearly_numeric_column_of_a_frame_is_doubtful():
    found = to_columns(pd.DataFrame({"a": [1.0] * 20, "b": ["1"] * 19 + ["-"]}), "X", "x")
    assert found.doubtful["b"].startswith(" row 19: column 'b' is '-', and 19 of its 20 values are numbers")


@FRAMES
def test_time_stamps_in_a_frame_keep_their_differences(make):
    found = to_columns(make({"t": [1704078000, 1704078001, 1704078003], "x": [1, 2, 3]}), "X", "x")
    assert found.origins == {"t": 1704078000}
    assert found.values[:, 0].tolist() == [0, 1, 3]


def test_time_stamps_in_an_array_keep_their_differences():
    assert to_columns(np.array([[1704078000], [1704078001]]), "X", "x").origins == {"x0": 1704078000}


def test_one_dimension_is_one_column():
    found = to_columns(np.arange(3), "X", "label")
    assert (found.values.shape, found.names) == ((3, 1), ("label0",))


@pytest.mark.parametrize("make", [np.array, list, pd.Series, pl.Series, pa.array, pa.chunked_array])
def test_every_kind_of_column_gives_the_same_vector(make):
    values = [[1.5, 2.0], [3.0]] if make is pa.chunked_array else [1.5, 2.0, 3.0]
    np.testing.assert_array_equal(to_vector(make(values), "y"), np.float32([1.5, 2, 3]))


def test_a_matrix_of_one_column_is_a_vector():
    np.testing.assert_array_equal(to_vector(np.ones((3, 1)), "y"), np.ones(3))


@FRAMES
def test_an_infinite_value_is_named_by_column_and_row(make):
    message = refusal(to_columns, make({"a": [1.0, 2.0], "b": [1.0, math.inf]}), "X", "x")
    assert all(word in message for word in ("X", "'b'", "row 1", "inf"))


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
    def of(values, names=("a", "b"), offsets=(0, 1, 2), labels=(("c", [0, 1]),)):
        columns = Columns(np.array(values), names, True)
        beside = {name: np.array(column) for name, column in labels}
        return to_table(columns, np.arange(2), np.array(offsets), beside).fingerprint

    same = of([[1, 2], [3, 4]])
    assert same == of([[1, 2], [3, 4]])
    others = [of([[1, 2], [3, 5]]), of([[1, 2], [3, 4]], ("a", "c"))]
    others += [of([[1, 2], [3, 4]], labels=labels) for labels in ([("d", [0, 1])], [("c", [1, 0])], [])]
    assert len({same, *others}) == 6
    assert to_table(Columns(np.zeros((2, 2)), ("a", "b"), True), np.arange(2), np.arange(3)).fingerprint == ""
