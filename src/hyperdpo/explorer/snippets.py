"""The current point as texts to copy: a command line, JSON and a call in Python."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hyperdpo.core.point import Point
from hyperdpo.usage import align_call, align_command, rank_call, rank_command


class Snippets(NamedTuple):
    """Three texts of one point."""

    command: str
    json: str
    python: str


def rank_snippets(
    run: Path,
    data: Path,
    objectives: tuple[str, ...],
    point: Point,
    betas: tuple[float, ...],
    base_scores: str | None = None,
) -> Snippets:
    """The texts for a ranker.

    Args:
        betas: (m,) temperatures of the run; others are written out.
        base_scores: the column or file with the data's base scores, where the run has none for them.
    """
    point_json = _json(run, objectives, point)
    if point.temperatures == betas:
        point = replace(point, temperatures=())
    call = rank_call(point, with_base=base_scores is not None)
    python = f"from hyperdpo import HyperRanker\n\nscores = HyperRanker.load({str(run)!r}).{call}"
    return Snippets(rank_command(run, data, point, base_scores), point_json, python)


def align_snippets(run: Path, objectives: tuple[str, ...], point: Point, prompt: str) -> Snippets:
    """The texts for a language model and the prompt on the page."""
    load = f"AlignRun.load({str(run)!r}).{align_call(point)}"
    python = f"from hyperdpo import AlignRun\n\nprompts = [{prompt!r}]\ntexts = {load}"
    return Snippets(align_command(run, point, prompt), _json(run, objectives, point), python)


def _json(run: Path, objectives: tuple[str, ...], point: Point) -> str:
    return json.dumps({"run": str(run), **point.to_dict(objectives)}, ensure_ascii=False)
