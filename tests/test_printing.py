"""Figures as people read them."""

from __future__ import annotations

import pytest

from hyperdpo.printing import four_digits


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.19, "0.1900"), (0.23004, "0.2300"), (1.21, "1.210"), (0.0, "0.000"), (1234.0, "1234"), (None, "-")],
)
def test_four_digits_are_four_where_the_last_are_zeros_too(value, text):
    assert four_digits(value) == text
