"""Labels: from a column's values to gains (what metrics see) and to what the target sees."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import is_one_line

from hyperdpo.errors import InputError
from hyperdpo.objectives import Label, Objective

VALUES = np.array([0.0, 1.0, 3.0, 254.0], dtype=np.float32)


def refusal(action):
    with pytest.raises(InputError) as error:
        action()
    assert is_one_line(error.value)
    return str(error.value)


# --- gains


def test_a_label_to_maximise_is_its_own_gain():
    np.testing.assert_array_equal(Label(name="z").fitted(VALUES).gains(VALUES), VALUES)


def test_a_label_to_minimise_is_turned_around_at_the_largest_training_value():
    label = Label(name="z", direction="minimize").fitted(VALUES)
    assert label.flip_at == 254
    np.testing.assert_array_equal(label.gains(VALUES), [254, 253, 251, 0])
    np.testing.assert_array_equal(label.gains(np.array([300.0])), [0]), "a gain is never negative"


def test_the_point_to_flip_at_may_be_given():
    label = Label(name="z", direction="minimize", flip_at=255).fitted(VALUES)
    np.testing.assert_array_equal(label.gains(VALUES), [255, 254, 252, 1])


def test_to_minimise_reverses_the_order_of_the_items():
    label = Label(name="z", direction="minimize").fitted(VALUES)
    assert (np.argsort(label.gains(VALUES)) == np.argsort(-VALUES)).all()


# --- what the target sees


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"transform": "none"}, VALUES),
        ({"transform": "log1p"}, np.log(1 + VALUES)),
        ({"transform": "standardize"}, (VALUES - VALUES.mean()) / VALUES.std()),
        ({"target": "l1", "transform": "log1p"}, np.log(1 + VALUES)),
    ],
)
def test_transforms_are_their_formulas(settings, expected):
    label = Label(name="z", **settings).fitted(VALUES)
    np.testing.assert_allclose(label.target_inputs(label.gains(VALUES)), expected, rtol=1e-6)


def test_standardisation_uses_the_training_split():
    label = Label(name="z").fitted(np.array([0.0, 2.0]))
    assert (label.center, label.spread) == (1, 1)
    np.testing.assert_allclose(label.target_inputs(np.array([5.0])), [4])


def test_standardisation_comes_after_the_flip():
    label = Label(name="z", direction="minimize").fitted(VALUES)
    inputs = label.target_inputs(label.gains(VALUES))
    assert inputs.mean() == pytest.approx(0, abs=1e-6)
    assert inputs[0] > inputs[-1]


def test_a_constant_label_standardises_to_zero_and_not_to_nan():
    label = Label(name="z").fitted(np.full(4, 9.0))
    np.testing.assert_array_equal(label.target_inputs(np.full(4, 9.0)), np.zeros(4))


def test_fitting_again_changes_nothing():
    label = Label(name="z", direction="minimize").fitted(VALUES)
    assert label.fitted(VALUES * 100) == label


# --- defaults


def test_a_dense_label_is_standardised_and_a_sparse_one_left_as_it_is():
    assert Label(name="z", target="softmax").transform == "standardize"
    assert Label(name="z", target="l1").transform == "none"


SPARSE, HALF, NEGATIVE = np.float32([0, 0, 0, 3]), np.float32([0, 0, 1, 3]), np.float32([0, 0, 0, -1])


@pytest.mark.parametrize(
    ("settings", "values", "target", "transform"),
    [
        ({}, SPARSE, "l1", "none"),
        ({}, HALF, "softmax", "standardize"),
        ({}, NEGATIVE, "softmax", "standardize"),
        ({"target": "softmax"}, SPARSE, "softmax", "standardize"),
        ({"target": "l1"}, HALF, "l1", "none"),
        ({"transform": "standardize"}, SPARSE, "softmax", "standardize"),
        ({"transform": "log1p"}, SPARSE, "l1", "log1p"),
        ({"direction": "minimize"}, SPARSE, "softmax", "standardize"),
        ({"unjudged": -1}, np.float32([0, 0, 0, 1, -1, -1]), "l1", "none"),
        ({"unjudged": 0}, SPARSE, "softmax", "standardize"),
    ],
)
def test_the_target_fits_the_values_unless_it_is_given(settings, values, target, transform):
    label = Label(name="z", **settings).fitted(values)
    assert (label.target, label.transform) == (target, transform)


def test_an_item_that_is_not_judged_has_no_gain_and_counts_for_nothing_that_is_fitted():
    values = np.float32([-1, 4, np.nan, 2, -1])
    label = Label(name="z", target="softmax", unjudged=-1).fitted(values)
    np.testing.assert_array_equal(label.gains(values), [np.nan, 4, np.nan, 2, np.nan])
    assert (label.center, label.spread) == (3, 1)
    np.testing.assert_array_equal(label.target_inputs(label.gains(values)), [np.nan, 1, np.nan, -1, np.nan])
    cost = Label(name="z", direction="minimize", target="softmax", unjudged=9).fitted(np.float32([9, 4, 2]))
    np.testing.assert_array_equal(cost.gains(np.float32([9, 4, 2])), [np.nan, 0, 2])


def test_the_column_is_the_name_if_left_out():
    assert Label(name="clicks").column == "clicks"
    assert Label(name="clicks", column="134").column == "134"


# --- refusals


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": ""}, ["name"]),
        ({"target": "l1", "transform": "standardize"}, ["'z'", "l1", "non-negative"]),
        ({"flip_at": 3.0}, ["'z'", "flip_at", "maximize"]),
        ({"target_temperature": 0}, ["'z'", "target_temperature"]),
        ({"target_temperature": -1}, ["target_temperature"]),
        ({"target_temperature": math.nan}, ["target_temperature"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    message = refusal(lambda: Label(**{"name": "z", **settings}))
    assert all(word in message for word in words)


@pytest.mark.parametrize("beta", [0, -1, math.nan, math.inf])
def test_a_temperature_that_is_no_positive_number_is_refused(beta):
    assert "beta" in refusal(lambda: Objective(name="z", beta=beta))


@pytest.mark.parametrize("settings", [{"target": "l1"}, {"transform": "log1p"}], ids=["l1", "log1p"])
def test_a_negative_value_is_refused_where_the_target_needs_counts(settings):
    label = Label(name="z", **settings)
    message = refusal(lambda: label.target_inputs(np.array([1.0, -2.0])))
    assert all(word in message for word in ("'z'", "row 2", "-2"))


def test_what_comes_from_data_is_asked_for_before_it_is_used():
    refusal(lambda: Label(name="z", direction="minimize").gains(VALUES))
    refusal(lambda: Label(name="z").target_inputs(VALUES))


def test_an_objective_cannot_have_the_name_that_tables_give_to_the_main_label():
    message = refusal(lambda: Objective(name="main"))
    assert all(word in message for word in ("'main'", "main label", "column: main"))
    assert Objective(name="other", column="main").column == "main"
    assert Label(name="main").name == "main", "the main label itself"
