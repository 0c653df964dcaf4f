"""What ``hyperdpo verify`` does."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyperdpo.core.point import parse_weights
from hyperdpo.errors import InputError, counted
from hyperdpo.extras import require
from hyperdpo.files import check_writable, write_json
from hyperdpo.progress import note, progress_bar

if TYPE_CHECKING:
    from hyperdpo.serving.verify.claims import Claims
    from hyperdpo.serving.verify.engines import Engine
    from hyperdpo.serving.verify.verification import Verification


def verify_command(
    url: str,
    dial: Path,
    *,
    engine: str | None = None,
    weights: str | None = None,
    served_model: str | None = None,
    scorers: Sequence[str] = (),
    tie: float | None = None,
    tolerance: float | None = None,
    timeout: float = 120,
    api_key_env: str | None = None,
    api_key_file: Path | None = None,
    json_file: Path | None = None,
) -> int:
    """``hyperdpo verify``: 0 if the server does what is claimed, 1 if it answers and does not."""
    require("align")
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.serving.server.commands import api_key
    from hyperdpo.serving.verify.claims import read_claims
    from hyperdpo.serving.verify.engines import Client, engine_at
    from hyperdpo.serving.verify.verification import Comparison, report, scorer_for, shown_weights, verify

    for option, value in (("--tie", tie), ("--tolerance", tolerance), ("--timeout", timeout)):
        if value is not None and not math.isfinite(value):
            raise InputError(f"{option}: found {value}; expected a finite number")
    if json_file is not None:
        check_writable(json_file.parent)
    key = api_key(api_key_env, api_key_file, os.environ)
    disable_progress_bars_without_tty()
    claims = read_claims(dial)
    point = None if weights is None else _point(claims, weights)
    scorer, missing = scorer_for(claims, scorers)
    server = engine_at(Client(url, key, timeout), engine, served_model)
    if point is None and not server.weighted:
        raise InputError(
            f"{url}: the engine {server.name} takes no weights with a request; expected --weights W,W, the point that "
            "it serves"
        )
    how = Comparison.of(claims, tie, tolerance)
    asked = len(claims.prompts) * (len(claims.weights) if point is None else 1)
    with progress_bar("verify", asked, "answers") as update:
        found = verify(server, claims, point, comparison=how, scorer=scorer, progress=update)
    if json_file is not None:
        write_json(json_file, report(url, server, claims, point, found))
    _print(url, server, claims, point, found)
    for one in (*found.notes, *([] if missing is None else [missing])):
        note(one.message)
    for one in found.problems:
        click.echo(f"{one.name}: {one.message}")
    if point is None:
        claim = "turns the dial" if found.turns else "does not turn the dial"
    else:
        claim = f"{'serves' if found.turns else 'does not serve'} the point {shown_weights(claims.weights[point])}"
    click.echo(f"{url} {claim}")
    return 0 if found.turns else 1


def _point(claims: Claims, text: str) -> int:
    """The place of ``--weights`` among the recorded weightings."""
    from hyperdpo.serving.verify.verification import shown_weights

    w = parse_weights(text, claims.names, range(len(claims.names)))
    place = claims.place_of(w)
    if place is None:
        known = "; ".join(shown_weights(one) for one in claims.weights)
        raise InputError(f"--weights: nothing is recorded at {shown_weights(w)}; expected one of {known}")
    return place


def _print(url: str, engine: Engine, claims: Claims, point: int | None, found: Verification) -> None:
    from rich.table import Table

    from hyperdpo.alignment.gguf_models import base_note
    from hyperdpo.printing import console, four_digits
    from hyperdpo.serving.verify.verification import shown_weights

    if not found.rows:
        return
    prompts = counted(len(claims.prompts), "prompt")
    what = counted(len(found.rows), "weighting") if point is None else "a fixed point"
    title = f"{url}: {engine.name}, {prompts} at {what}{base_note(claims.base.gguf_origin)}"
    table = Table(title=title, title_justify="left")
    headings = ("weights", "equal", "ties", "different", "log-probabilities within")
    for heading in (*headings, *(f"score: {one.objective}" for one in found.scores), "as recorded at"):
        table.add_column(heading, justify="right", overflow="fold")
    for at, row in enumerate(found.rows):
        table.add_row(
            shown_weights(row.weights),
            *(str(number) for number in (row.equal, row.ties, row.different)),
            "-" if row.difference is None else f"{row.difference:.1e}",
            *(four_digits(one.means[at]) for one in found.scores),
            "; ".join(map(shown_weights, row.like)) or "-",
        )
    console(140).print(table)
    for one in found.scores:
        if one.live is not None and one.recorded is not None:
            told = f"Spearman {one.live:.2f}, recorded {one.recorded:.2f}"
            click.echo(f"mean score of {one.objective} and its weight: {told}")
