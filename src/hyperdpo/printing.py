"""How figures are written where people read them."""

from __future__ import annotations


def four_digits(value: float | None) -> str:
    """Four significant digits, zeros at the end included: 0.23 is 0.2300, so that columns and neighbours line up.

    None, where there is nothing, is a dash.
    """
    return "-" if value is None else f"{value:#.4g}".removesuffix(".")
