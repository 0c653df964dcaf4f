"""``hyperdpo demo``: the whole way on generated data, from nothing to a front and a report."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hyperdpo.data.synthetic import generate
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.checkpoints import write_atomically
from hyperdpo.ranking.commands import fit_command, front_command
from hyperdpo.ranking.config import build_config

#: Two sparse objectives that conflict, as in the paper's Figure 2a.
OBJECTIVES = ["query_url_clicks", "url_clicks"]


def run_demo(out: Path, *, queries: int, seed: int = 0, overrides: Mapping[str, Any] | None = None) -> None:
    """Generate data, train a base and a conditioned ranker, and write front, plot and report into ``out``."""
    data, oracle, run = out / "data.txt", out / "oracle.csv", out / "run"
    click.echo(f"1. generate {queries} queries: {data}")
    with progress_bar("generate", queries, "queries") as update:
        generate(data, queries, seed, oracle, progress=update)
    click.echo("2. train a base ranker on relevance, then one ranker for every weighting of two click labels")
    config = build_config(preset="mslr", objectives=OBJECTIVES, overrides={"seed": seed, **(overrides or {})})
    fit_command(data, config, run, cpu=False, overwrite=True)
    click.echo("3. the front on held-out queries")
    front = front_command(run, data, out=out / "front.json", plot=out / "front.png", oracle=oracle)
    write_atomically(out / "report.html", _report(front, (out / "front.png").read_bytes()).encode())
    click.echo(f"{out / 'report.html'}, {out / 'front.png'}, {out / 'front.json'}")
    click.echo(f"try: hyperdpo rank score {run} {data} --weights .3,.7 --scale 2")


def _report(front: Mapping[str, Any], picture: bytes) -> str:
    """One self-contained page."""
    from jinja2 import Environment

    image = base64.b64encode(picture).decode()
    return Environment(autoescape=True).from_string(_PAGE).render(front=front, image=image)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>HyperDPO: the front of one ranker</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
  table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
  img { max-width: 100%; } div { overflow-x: auto; }
</style>
<h1>One ranker, every trade-off</h1>
<p>{{ front.metric.description }}, on {{ front.data.groups }} held-out groups of generated data.
One model with {{ "{:,}".format(front.parameters) }} parameters, trained in {{ "%.1f"|format(front.train_seconds) }} s.</p>
<img alt="The front over the two objectives, and the main metric" src="data:image/png;base64,{{ image }}">
<div><table>
<tr><th>weights</th><th>scale</th>{% for name in front.objectives %}<th>{{ name }}</th>{% endfor %}<th>main</th></tr>
<tr><td>base</td><td></td>{% for name in front.objectives %}<td>{{ "%.4f"|format(front.base.metrics[name]) }}</td>
{% endfor %}<td>{{ "%.4f"|format(front.base.main) }}</td></tr>
{% for point in front.points %}
<tr><td>{% for w in point.weights %}{{ "%.2g"|format(w) }} {% endfor %}</td><td>{{ "%g"|format(point.scale) }}</td>
{% for name in front.objectives %}<td>{{ "%.4f"|format(point.metrics[name]) }}</td>{% endfor %}
<td>{{ "%.4f"|format(point.main) }}</td></tr>
{% endfor %}
</table></div>
<p>Hypervolume {{ "%.4g"|format(front.hypervolume) }}, with the main metric as one more axis
{{ "%.4g"|format(front.hypervolume_with_main) }} (reference: zeros). Of the front that a perfect model would attain at the
same temperature: {{ "%.1f%%"|format(100 * front.oracle.fraction) }}, with main
{{ "%.1f%%"|format(100 * front.oracle.fraction_with_main) }}.</p>
</html>
"""
