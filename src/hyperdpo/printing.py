"""How figures, tables and pages are written for people."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.console import Console


def console(width: int, **options: Any) -> Console:
    """Standard output: as wide as the terminal, or ``width`` characters where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, **options)


def four_digits(value: float | None) -> str:
    """Four significant digits, zeros at the end included: 0.23 is 0.2300, so that columns line up. None is a dash."""
    return "-" if value is None else f"{value:#.4g}".removesuffix(".")


def page_of(template: str, **values: Any) -> str:
    """HTML from a template in ``pages/``; texts among the values are escaped."""
    return _pages().get_template(template).render(values)


@cache
def _pages() -> Environment:
    from jinja2 import Environment, PackageLoader

    return Environment(autoescape=True, loader=PackageLoader("hyperdpo", "pages"))
