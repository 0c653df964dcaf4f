"""A point of a run as texts for others to use: a command line, and a call in Python."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from hyperdpo.core.point import Point


def rank_command(run: str | Path, data: str | Path, point: Point, base_scores: str | None = None) -> str:
    """The ``hyperdpo rank score`` that gives a ranker's scores at a point.

    Args:
        point: without temperatures for those of the run.
        base_scores: a column or a file, where the command needs it.
    """
    command = ["hyperdpo", "rank", "score", str(run), str(data), *_options(point)]
    command += ["--beta", _numbers(point.temperatures)] if point.temperatures else []
    command += [] if point.main_share is None else ["--main-share", f"{point.main_share:g}"]
    return shlex.join([*command, *([] if base_scores is None else ["--base-scores", base_scores])])


def rank_call(point: Point, *, with_base: bool = False) -> str:
    """The ``predict(...)`` of a :class:`~hyperdpo.HyperRanker` at a point, as of :func:`rank_command`.

    Args:
        with_base: the run needs ``base_scores``.
    """
    more = f", temperatures={list(point.temperatures)}" if point.temperatures else ""
    more += "" if point.main_share is None else f", main_share={point.main_share:g}"
    more += ", base_scores=base_scores" if with_base else ""
    return f"predict(X, qid=qid, weights={list(point.weights)}, scale={point.scale:g}{more})"


def align_command(run: str | Path, point: Point, prompt: str = "TEXT") -> str:
    """The ``hyperdpo align generate`` that continues a prompt at a point."""
    return shlex.join(["hyperdpo", "align", "generate", str(run), *_options(point), "--prompt", prompt])


def align_call(point: Point) -> str:
    """The ``generate(...)`` of an :class:`~hyperdpo.alignment.run.AlignRun`."""
    return f"generate(prompts, {list(point.weights)}, {point.scale:g})"


def _options(point: Point) -> list[str]:
    return ["--weights", _numbers(point.weights), "--scale", f"{point.scale:g}"]


def _numbers(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)
