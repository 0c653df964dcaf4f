"""Labels that a run can learn from, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import is_one_line, toy_config, toy_settings, toy_table

from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import parse_config
from hyperdpo.ranking.fitting import split_table
from hyperdpo.ranking.labels import fit_labels


def changed(name: str, change) -> GroupedTable:
    table = toy_table()
    values = np.array(table.values)
    j = table.columns.index(name)
    values[:, j] = change(values[:, j], np.repeat(np.arange(table.num_groups), table.group_sizes))
    return replace(table, values=values)


def fitted(table: GroupedTable, *, main_is_trained: bool = True, **settings):
    config = parse_config(toy_settings(**settings), "test")
    return fit_labels(config, {"train": Part.whole(table)}, main_is_trained=main_is_trained)


def refusal(table: GroupedTable, **settings) -> str:
    with pytest.raises(InputError) as error:
        fitted(table, **settings)
    assert is_one_line(error.value)
    return str(error.value)


def test_every_label_is_described():
    _, reports = fitted(changed("a", lambda z, group: np.where(group < 10, 1, z)))
    a, b, main = reports
    assert (a.name, a.target, a.why, a.groups) == ("a", "l1", "set in the configuration", 30)
    assert a.varies <= 20
    assert b.line() == (
        f"label b (column b): target softmax (set in the configuration); varies in {b.varies} of 30 training groups"
    )
    assert main.target == "softmax"


@pytest.mark.parametrize("label", ["a", "b"])
def test_a_label_that_is_the_same_within_every_group_is_refused(label):
    message = refusal(changed(label, lambda z, group: group))
    assert f"label '{label}' (column {label}) is the same on all rows of each training group" in message


def test_a_main_label_within_groups_matters_only_where_a_base_is_trained_on_it():
    table = changed("relevance", lambda z, group: group % 3)
    assert "'relevance'" in refusal(table)
    _, reports = fitted(table, main_is_trained=False)
    assert reports[-1].varies == 0


def test_without_a_target_it_is_chosen_by_the_values():
    config, reports = fitted(toy_table(), objectives=[{"name": "a"}, {"name": "b"}])
    assert [o.target for o in config.objectives] == ["l1", "softmax"]
    assert [o.transform for o in config.objectives] == ["none", "standardize"]
    assert "of the values are 0 and none is negative" in reports[0].why


def test_a_missing_label_is_refused_with_its_row_unless_it_means_not_judged():
    table = changed("b", lambda z, group: np.where(np.arange(len(z)) == 7, np.nan, z))
    assert refusal(table).startswith("memory: row 7: label 'b' (column b) is missing")
    objectives = [{"name": "a", "target": "l1"}, {"name": "b", "target": "softmax", "unjudged": -1}]
    _, reports = fitted(table, objectives=objectives)
    assert reports[1].unjudged == 1
    assert reports[1].line().endswith(", 1 rows not judged")


def test_a_label_of_minus_one_is_refused_with_the_way_out():
    message = refusal(changed("b", lambda z, group: np.where(np.arange(len(z)) == 7, -1, z)))
    assert message.startswith("memory: row 7: label 'b' (column b) has the value -1")
    assert "`unjudged: -1`" in message


def test_a_label_that_is_nowhere_judged_is_refused():
    objectives = [{"name": "a", "target": "l1", "unjudged": -1}, {"name": "b", "target": "softmax"}]
    assert "is judged on no training row" in refusal(changed("a", lambda z, group: -1), objectives=objectives)


def test_a_label_whose_differences_do_not_fit_into_32_bits_is_refused():
    table = replace(toy_table(), origins={"b": 1_704_078_000.0})
    assert "subtract a constant from the column" in refusal(table)


def test_groups_of_the_validation_part_are_checked_too():
    table = changed("b", lambda z, group: np.where(group >= 25, np.nan, z))
    config = toy_config()
    with pytest.raises(InputError, match=r"label 'b' .* is missing"):
        fit_labels(config, split_table(table, config), main_is_trained=True)
