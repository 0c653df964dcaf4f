"""Values and errors in messages: one line, cut, printable."""

from __future__ import annotations

import numpy as np
import pytest

from hyperdpo.errors import one_line, shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(2), "2"),
        ([np.float32(0.5), (np.int8(1),)], "[0.5, (1,)]"),
        (np.arange(3), "[0, 1, 2]"),
        ("a\nb", r"'a\nb'"),
        ("\ud800", r"'\ud800'"),
    ],
)
def test_a_value_is_shown_on_one_line(value, expected):
    assert shown(value) == expected
    shown(value).encode()


def test_an_integer_of_thousands_of_digits_is_described():
    assert shown(10**5000) == "a number of about 5000 digits"


def test_a_long_value_is_cut_where_a_length_is_given():
    assert shown("x" * 60, 40) == f"'{'x' * 39}..."
    assert shown("x" * 60) == f"'{'x' * 60}'"


def test_somebody_elses_error_is_one_line():
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(ValueError("x" * 300)) == "x" * 200
