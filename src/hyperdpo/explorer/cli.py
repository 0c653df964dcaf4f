"""``hyperdpo explore``: its options. What it does is in :mod:`hyperdpo.explorer.commands`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from hyperdpo.errors import InputError
from hyperdpo.options import PATH, run_data_options


def check_explore_extra() -> None:
    """One line, before anything is read, where the extra is missing."""
    for package in ("nicegui", "plotly"):
        if find_spec(package) is None:
            raise InputError(f"{package} is not installed; expected it, from pip install 'hyperdpo[explore]'")


@click.command("explore")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="[DATA]", type=PATH, required=False)
@click.option("--compare", type=PATH, metavar="RUN", help="A second run of the same objectives.")
@click.option("--port", type=click.IntRange(min=1, max=65535), default=8080, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Whose requests are answered.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page.")
@run_data_options("look at")
@click.option("--cpu", is_flag=True, help="Do not use a GPU.")
def explore(run_path: Path, source: Path | None, **options: Any) -> int:
    """Look at the trade-offs of RUN in a browser: its front, and what it answers at any weights.

    For a ranker, lists of DATA are re-ranked live; DATA is needed. For a language model, a prompt is answered at
    several weightings side by side; with DATA, its prompts are examples and its front is measured.
    """
    check_explore_extra()
    from hyperdpo.explorer.commands import explore_command

    return explore_command(run_path, source, **options)
