"""Which columns are features, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import toy_config, toy_table

from hyperdpo.data.frames import to_columns, to_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError
from hyperdpo.ranking.features import choose_features, feature_lines

FEATURES = tuple(f"f{i}" for i in range(6))
ROWS = toy_table().num_rows


def with_column(name: str, values: np.ndarray) -> GroupedTable:
    table = toy_table()
    more = dict(zip(table.columns, table.values.T.astype(np.float64), strict=True)) | {name: values}
    return to_table(to_columns(more, "X", "x"), table.qids, table.offsets)


SHUFFLED = np.random.default_rng(0).permutation(ROWS)
GAPS = np.sort(np.random.default_rng(0).choice(10 * ROWS, ROWS, replace=False))


@pytest.mark.parametrize(
    "name",
    ["", "index", "Unnamed: 0", "Unnamed: 0.1", "__index_level_0__", "level_0", "row_number", "rownames", "...1"],
)
@pytest.mark.parametrize("values", [np.arange(ROWS), SHUFFLED, GAPS], ids=["in order", "shuffled", "with gaps"])
def test_a_column_that_numbers_the_rows_under_the_name_of_an_index_is_left_out(name, values):
    table = with_column(name, values)
    choice = choose_features(table, toy_config())
    assert choice.columns == FEATURES
    assert choice.left_out[name] == "numbers the rows (keep_row_numbers keeps it)"
    assert choose_features(table, toy_config(keep_row_numbers=True)).columns == (*FEATURES, name)


@pytest.mark.parametrize("name", ["X", "V1", "_c0", "column_1"])
def test_a_name_that_says_nothing_is_left_out_where_it_numbers_the_rows_without_gaps(name):
    assert choose_features(with_column(name, SHUFFLED + 1), toy_config()).columns == FEATURES
    assert choose_features(with_column(name, GAPS), toy_config()).columns == (*FEATURES, name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("position", np.arange(ROWS)),
        ("index", np.arange(ROWS) // 2),
        ("index", np.arange(ROWS) + 0.5),
        ("index", np.where(np.arange(ROWS) == 3, np.nan, np.arange(ROWS))),
        ("x", np.arange(ROWS)),
    ],
)
def test_other_columns_are_features(name, values):
    assert choose_features(with_column(name, values), toy_config()).columns == (*FEATURES, name)


def test_every_other_column_has_a_reason():
    table = replace(with_column("score", np.zeros(ROWS)), left_out={"title": "text", "day": "a date or time"})
    choice = choose_features(table, toy_config(excluded_columns=["f5", "day"]), "score")
    assert choice.columns == FEATURES[:5]
    assert choice.left_out == {
        "f5": "in excluded_columns",
        "day": "in excluded_columns",
        "a": "label of a",
        "b": "label of b",
        "relevance": "main label",
        "score": "base scores",
        "title": "text",
    }


def test_a_doubtful_column_is_refused_unless_it_is_excluded():
    table = replace(toy_table(), left_out={"price": "text"}, doubtful={"price": "9: column 'price' is '-'; ..."})
    with pytest.raises(InputError, match="memory:9: column 'price' is '-'"):
        choose_features(table, toy_config())
    assert choose_features(table, toy_config(excluded_columns=["price"])).columns == FEATURES


def test_a_table_without_features_is_refused_with_what_it_has():
    config = toy_config(excluded_columns=list(FEATURES))
    with pytest.raises(InputError, match=r"no column is left for a feature.*f0: in excluded_columns.*a: label of a"):
        choose_features(toy_table(), config)


def test_what_is_said_of_features():
    values = np.where(np.arange(ROWS) % 7 == 0, np.nan, 1.0 + np.arange(ROWS) % 5)
    table = replace(with_column("seen", values), left_out={"title": "text"}, origins={"f1": 1e9})
    constant = np.array(table.values)
    constant[:, table.columns.index("f2")] = 3
    table = replace(table, values=constant)
    choice = choose_features(table, toy_config())
    assert feature_lines(choice, FeatureTransform.fit(Part.whole(table), choice.columns)) == [
        "features (7): f0, f1, f2, f3, f4, f5, seen",
        "no features: a (label of a); b (label of b); relevance (main label); title (text)",
        "constant on all training rows, so without effect (1): f2",
        "with missing values (1; the mean and one more column each): seen",
        "stored as distances from their lowest value (1): f1",
    ]
