"""``hyperdpo explore``: its options. What it does is in :mod:`hyperdpo.explorer.commands`."""

from __future__ import annotations

from typing import Any

import click

from hyperdpo.extras import require
from hyperdpo.options import PATH, WholeRange, cpu_option, run_data_options


@click.command("explore")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="[DATA]", type=PATH, required=False)
@click.option("--compare", type=PATH, metavar="RUN", help="A second run of the same objectives.")
@click.option("--port", type=WholeRange(1, 65535), default=8080, show_default=True, help="Port to listen on.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--browser/--no-browser", default=True, show_default=True, help="Open the page.")
@run_data_options("look at")
@cpu_option
def explore(**options: Any) -> int:
    """Explore the trade-offs of RUN in a browser: its front, and its answers at any weights.

    A ranker needs DATA, whose lists are re-ranked live. A language model answers a prompt at several weightings side by
    side; DATA provides example prompts, and the front is measured on it.
    """
    require("explore")
    from hyperdpo.explorer.commands import explore_command

    return explore_command(**options)
