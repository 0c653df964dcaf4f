"""Tables of grouped rows."""

from __future__ import annotations

import numpy as np
import pytest

from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.errors import InputError


def test_a_letor_feature_that_a_file_never_mentions_is_zero(tmp_path):
    path = tmp_path / "narrow.txt"
    path.write_text("1 qid:1 1:5\n0 qid:1 2:7\n")
    table = read_table(path)
    indices = table.column_indices(["2", "9", "1"])
    np.testing.assert_array_equal(table.take(np.array([0, 1]), indices), [[0, 0, 5], [7, 0, 0]])
    np.testing.assert_array_equal(table.column("9"), [0, 0])


def test_a_feature_beyond_those_of_a_file_that_counts_from_zero_is_zero(tmp_path):
    path = tmp_path / "narrow.txt"
    path.write_text("1 qid:1 0:5\n0 qid:1 2:7\n")
    table = read_table(path, features_from_zero=True)
    indices = table.column_indices(["0", "2", "3"])
    np.testing.assert_array_equal(table.take(np.array([0, 1]), indices), [[5, 0, 0], [0, 7, 0]])
    assert table.features_beyond(["0", "2", "3"]) == ["3"]


@pytest.mark.parametrize("name", ["title", "1.5", "-1", "0", "09"])
def test_other_names_that_letor_text_does_not_have_are_refused(tmp_path, name):
    path = tmp_path / "narrow.txt"
    path.write_text("1 qid:1 1:5\n0 qid:1 2:7\n")
    with pytest.raises(InputError, match="no column"):
        read_table(path).column_indices([name])


def test_a_table_with_names_of_its_own_has_no_more_columns_than_it_has():
    table = GroupedTable(np.zeros((2, 2), np.float32), ("a", "7"), np.array([1]), np.array([0, 2]))
    with pytest.raises(InputError, match="no column '8'"):
        table.column_indices(["8"])


def test_sorted_rows_and_values_in_the_order_of_the_source(tmp_path):
    path = tmp_path / "scattered.txt"
    path.write_text("0 qid:b 1:0\n0 qid:a 1:1\n0 qid:b 1:2\n0 qid:c 1:3\n0 qid:a 1:4\n")
    table = read_table(path, sort=True)
    assert table.qids.tolist() == ["b", "a", "c"]
    assert table.offsets.tolist() == [0, 2, 4, 5]
    np.testing.assert_array_equal(table.column("1"), [0, 2, 1, 4, 3])
    scores = np.array([10, 11, 12, 13, 14])
    np.testing.assert_array_equal(table.own_order(scores), 10 + table.column("1"))
    np.testing.assert_array_equal(table.source_order(table.own_order(scores)), scores)
