"""``hyperdpo choose``: its options. What it does is in :mod:`hyperdpo.choosing.commands`."""

from __future__ import annotations

from typing import Any

import click

from hyperdpo.choosing.scales import SCALES
from hyperdpo.options import PATH, WholeRange, cpu_option, numbers_of, run_data_options


@click.command("choose")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option(
    "--require",
    multiple=True,
    metavar="NAME>=X",
    help="Bound on a metric, NAME>=X or NAME<=X (in quotes: > is the shell's); may be given several times.",
)
@click.option("--maximize", metavar="NAME", help="The metric to make as large as possible.")
@click.option("--minimize", metavar="NAME", help="The metric to make as small as possible, such as an error.")
@click.option(
    "--confidence",
    type=click.FloatRange(min=0.5, max=1, max_open=True),
    default=0.95,
    show_default=True,
    help="Confidence of intervals and requirements.",
)
@click.option("--certain", is_flag=True, help="Require that confidence of the requirements, not only their means.")
@click.option(
    "--holdout",
    metavar="PART",
    help="Report on groups that the point is not chosen on: test, or a share to set aside, such as 0.5.",
)
@click.option("--out", type=PATH, help="POINT.json to write.")
@click.option(
    "--scales",
    callback=numbers_of,
    default=",".join(f"{c:g}" for c in SCALES),
    show_default=True,
    metavar="C,C",
    help="Grid of scales; the search stays between its ends. 1: no other scale.",
)
@click.option("--points", type=WholeRange(min=1), help="Weightings of the grid.  [default: by objectives]")
@click.option(
    "--fixed-temperatures", is_flag=True, help="Keep β; by default that of a mixture or temperature run is searched."
)
@run_data_options("choose on", share="searched")
@click.option("--seed", type=WholeRange(min=0), default=0, show_default=True, help="Seed of resamples and steps.")
@cpu_option
def choose(**options: Any) -> int:
    """Find the point of RUN that is best in one metric and meets requirements on others, on labelled DATA.

    Nothing is trained: the run's front is searched over weights, scales and temperatures. With mixture.form gain it is
    searched over weights and the main label's share, and over scales only where requirements cannot be met at scale 1.

    The metrics of a ranker are NDCG of main and of every objective, by name. Those of a language model are each
    objective's cross-entropy error, by name, and accuracy:NAME. Exit code 1: the requirements cannot be met, and the
    nearest point is shown.
    """
    from hyperdpo.choosing.commands import choose_command

    return choose_command(**options)
