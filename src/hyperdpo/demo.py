"""``hyperdpo demo``: all steps on generated data, up to a front, a comparison and a report."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hyperdpo.comparison.commands import rank_compare_command
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import counted
from hyperdpo.files import write_atomically
from hyperdpo.locks import writes_to
from hyperdpo.printing import page_of
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.commands import fit_command, front_command
from hyperdpo.ranking.config import build_config

#: Two sparse objectives that conflict, as in the paper's Figure 2a.
OBJECTIVES = ["query_url_clicks", "url_clicks"]
#: What the last step compares, at few weightings to be quick.
METHODS, POINTS = ("hyperdpo", "dpo-ls", "dpo-soup", "mo-dpo"), 5


@writes_to("out")
def run_demo(out: Path, *, queries: int, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> None:
    """Generate data, train a base and a conditioned ranker, and write front, plot and report into ``out``."""
    data, oracle, run = out / "data.txt", out / "oracle.csv", out / "run"
    click.echo(f"1. generate {counted(queries, 'query')}: {data}")
    with progress_bar("generate", queries, "queries") as update:
        generate(data, queries, seed, oracle, progress=update)
    click.echo("2. train a base ranker on relevance, then one ranker for every weighting of two click labels")
    config = build_config(preset="mslr", objectives=OBJECTIVES, overrides={"seed": seed, **(overrides or {})})
    fit_command(data, config, run, cpu=False, overwrite=True)
    click.echo("3. the front on held-out queries")
    front = front_command(run, data, out=out / "front.json", plot=out / "front.png", oracle=oracle)
    click.echo("4. the same against a model for each weighting, against averaged models, and against MO-DPO")
    shutil.rmtree(out / "compare", ignore_errors=True)
    compared = rank_compare_command(
        data, config, out / "compare", methods=METHODS, points=POINTS, seeds=1, oracle=oracle
    )
    pictures = [(out / "front.png").read_bytes(), (out / "compare" / "compare.png").read_bytes()]
    write_atomically(out / "report.html", _report(front, compared, pictures).encode())
    click.echo(f"{out / 'report.html'}, {out / 'front.png'}, {out / 'front.json'}")
    click.echo(f"try: hyperdpo rank score {run} {data} --weights .3,.7 --scale 2")


def _report(front: Mapping[str, Any], compared: Mapping[str, Any], pictures: list[bytes]) -> str:
    """One self-contained page."""
    images = [base64.b64encode(picture).decode() for picture in pictures]
    return page_of("front.html", front=front, compared=compared, images=images)
