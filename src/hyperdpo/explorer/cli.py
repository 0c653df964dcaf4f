"""``hyperdpo explore``: its options. What it does is in :mod:`hyperdpo.explorer.commands`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from hyperdpo.errors import InputError
from hyperdpo.options import PATH


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
@click.option(
    "--split",
    type=click.Choice(["auto", "all", "train", "validation", "test"]),
    default="auto",
    show_default=True,
    help="Groups to look at. auto: the validation groups of the training data (else its test groups), all groups of "
    "other data.",
)
@click.option("--base-scores", metavar="COLUMN|FILE", help="For a ranker on given scores: a column, or one per row.")
@click.option(
    "--format",
    type=click.Choice(["auto", "groups", "scores", "pku", "pairs"]),
    default="auto",
    help="For a language model: of DATA.",
)
@click.option("--model", help="For a language model: the base, instead of the one the run was trained on.")
@click.option("--cpu", is_flag=True, help="Do not use a GPU.")
def explore(run_path: Path, source: Path | None, **options: Any) -> int:
    """Look at the trade-offs of RUN in a browser: its front, and what it answers at any weights.

    For a ranker, lists of DATA are re-ranked live; DATA is needed. For a language model, a prompt is answered at
    several weightings side by side; with DATA, its prompts are examples and its front is measured.
    """
    check_explore_extra()
    from hyperdpo.explorer.commands import explore_command

    return explore_command(run_path, source, **options)
