"""What is a point, and what is refused: weights off the simplex, scales and temperatures that are not above 0."""

import math

import numpy as np
import pytest
import torch

from hyperdpo.core.point import (
    Point,
    PointReader,
    check_scales,
    check_temperatures,
    check_weights,
    even_weights,
    parse_weights,
)
from hyperdpo.errors import InputError

NAMES = ("clicks", "quality", "price")


def assert_on_simplex(weights):
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=0, atol=5e-16)


# --- checks


def test_weights_within_the_tolerance_are_renormalised():
    assert_on_simplex(check_weights((0.3333333, 0.3333333, 0.3333333), 3))
    assert check_weights([[1, 0], [0.25, 0.75]], 2).tolist() == [[1, 0], [0.25, 0.75]]


def test_checked_weights_are_a_copy():
    mine = np.array([0.5, 0.5])
    assert check_weights(mine, 2) is not mine
    assert not np.shares_memory(check_weights(mine, 2), mine)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ((0.3, 0.8), r"weights 0.3, 0.8 \(sum 1.1\)"),
        ((-0.1, 1.1), "weights -0.1, 1.1"),
        ((math.nan, 1.0), "weights nan, 1"),
        ((math.inf, 0.0), "weights inf, 0"),
        ((0.2, 0.3, 0.5), "found 3 values, expected 2"),
        (1.0, "found a single number, expected 2"),
        ([[0.5, 0.5], [0.9, 0.2]], "weights 0.9, 0.2"),
        ([[0.5, 0.5], [1.0]], "expected 2 numbers per row"),
        ("half", "weights 'half'"),
    ],
)
def test_other_weights_are_an_error_that_shows_them(weights, found):
    with pytest.raises(InputError, match=found):
        check_weights(weights, 2)


def test_checked_temperatures_are_a_copy():
    mine = np.array([0.5, 2.0])
    checked = check_temperatures(mine, 2)
    assert checked.tolist() == [0.5, 2.0]
    assert not np.shares_memory(checked, mine)
    assert check_temperatures(torch.tensor([1, 2]), 2).dtype == np.float64


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((1.0, 0.0), "temperatures 1, 0, expected finite numbers > 0"),
        ((-0.1, 1.0), "temperatures -0.1, 1,"),
        ((math.nan, 1.0), "temperatures nan, 1,"),
        ((1.0, math.inf), "temperatures 1, inf,"),
        ((1.0,), "found 1 value, expected 2, one per objective"),
        ((0.2, 0.3, 0.5), "found 3 values, expected 2"),
        ((), "found 0 values, expected 2"),
        (1.0, "found a single number, expected 2"),
        ([[1.0, 2.0]], r"found an array of shape \(1, 2\), expected 2"),
        ([[1.0, 2.0], [1.0]], "expected 2 numbers"),
        ("warm", "temperatures 'warm', expected 2 numbers"),
        (None, "temperatures"),
    ],
)
def test_other_temperatures_are_an_error_that_shows_them(values, found):
    with pytest.raises(InputError, match=found) as error:
        check_temperatures(values, 2)
    assert "\n" not in str(error.value)


def test_a_scale_is_one_number_or_one_for_each_row():
    assert check_scales(2, 3).tolist() == 2
    assert check_scales(torch.tensor([1.0, 0.5, 3.0]), 3).tolist() == [1, 0.5, 3]


@pytest.mark.parametrize(
    ("scale", "found"),
    [
        (0, "scale 0, expected finite numbers > 0"),
        ([1, math.inf], "scale inf, expected finite"),
        (math.nan, "scale nan"),
        ([1, 2, 3], r"shape \(3,\); expected one number or \(2,\)"),
        ("far", "found 'far'; expected one number"),
    ],
)
def test_other_scales_are_an_error_that_shows_them(scale, found):
    with pytest.raises(InputError, match=found):
        check_scales(scale, 2)


@pytest.mark.parametrize("m", [1, 2, 3, 6, 7, 9, 30])
def test_weights_of_an_example_are_short_and_sum_to_one(m):
    weights = even_weights(m)
    assert check_weights(weights, m).tolist() == pytest.approx([1 / m] * m, abs=2e-3)
    assert max(len(str(w)) for w in weights) <= 6


# --- points from text and from JSON


def test_weights_are_read_from_text_by_place_or_by_name(capsys):
    assert parse_weights(".3,.7", NAMES[:2], (0, 1)).tolist() == [0.3, 0.7]
    assert parse_weights("price=.25, clicks=.75", NAMES, (0, 1, 2)).tolist() == [0.75, 0, 0.25]
    assert not capsys.readouterr().err
    assert parse_weights("1", NAMES, (2, 0)).tolist() == [0, 0, 1], "plain numbers stand for the chosen ones"
    assert "1 weight for 2 objectives, the rest count 0: price 1, clicks 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (".3,.8", r"weights 0.3, 0.8, 0 \(sum 1.1\)"),
        (".1,.2,.3,.4", "--weights: found 4 weights; expected 3, for clicks, quality, price"),
        ("cliks=1", "--weights: no objective 'cliks'; expected some of clicks, quality, price"),
        ("clicks=.5,.5", "expected either plain numbers or name=number"),
        ("clicks=a", "--weights: 'clicks=a' is not a number"),
    ],
)
def test_other_texts_are_an_error_that_shows_them(text, found):
    with pytest.raises(InputError, match=found):
        parse_weights(text, NAMES, range(3))


def test_what_a_request_leaves_out_is_the_default():
    own = Point((0.2, 0.3, 0.5), 2.0, (1.0, 2.0, 3.0))
    reader = PointReader(NAMES, own)
    assert reader.read() == own
    assert reader.read({"price": 1}, 0.5) == Point((0.0, 0.0, 1.0), 0.5, own.temperatures)
    assert reader.read([1, 0, 0], temperatures=[1, 1, 1]) == Point((1.0, 0.0, 0.0), 2.0, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"weights": [0.5, 0.5]}, "expected 3 numbers, for clicks, quality, price"),
        ({"weights": {"cliks": 1}}, "a.weights: no objective 'cliks'"),
        ({"weights": [True, 0, 0]}, "expected 3 numbers"),
        ({"scale": 0}, "a.scale: found 0; expected a number from 1e-06 to 1e"),
        ({"scale": "2"}, "a.scale: found '2'"),
        ({"temperatures": [1, 1, 1e12]}, "a.temperatures: found .*; expected from 1e-06"),
    ],
)
def test_other_values_are_an_error_that_says_where(given, found):
    with pytest.raises(InputError, match=found):
        PointReader(NAMES).read(**given, where="a.")


def test_a_point_tells_itself_by_name():
    point = Point((0.3, 0.7), 2.0, (1.0, 0.5))
    assert point.row().tolist() == [0.3, 0.7, 2.0, 1.0, 0.5]
    assert point.to_dict(NAMES[:2]) == {
        "weights": {"clicks": 0.3, "quality": 0.7},
        "scale": 2.0,
        "temperatures": {"clicks": 1.0, "quality": 0.5},
    }
