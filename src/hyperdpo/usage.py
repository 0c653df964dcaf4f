"""A point of a run, written down for others to use: as a command line and as a call in Python."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def rank_command(
    run: str | Path,
    data: str | Path,
    weights: Sequence[float],
    scale: float,
    temperatures: Sequence[float] | None = None,
    base_scores: str | None = None,
) -> str:
    """The ``hyperdpo rank score`` that gives a ranker's scores at a point.

    Args:
        temperatures: m numbers; None: those of the run.
        base_scores: a column or a file, where the command needs it.
    """
    command = ["hyperdpo", "rank", "score", str(run), str(data), "--weights", numbers(weights), "--scale", f"{scale:g}"]
    if temperatures is not None:
        command += ["--beta", numbers(temperatures)]
    if base_scores is not None:
        command += ["--base-scores", base_scores]
    return shlex.join(command)


def rank_call(
    weights: Sequence[float], scale: float, temperatures: Sequence[float] | None = None, *, with_base: bool = False
) -> str:
    """The ``predict(...)`` of a :class:`~hyperdpo.HyperRanker`; arguments as :func:`rank_command`.

    Args:
        with_base: the run needs ``base_scores``.
    """
    more = "" if temperatures is None else f", temperatures={list(temperatures)}"
    if with_base:
        more += ", base_scores=base_scores"
    return f"predict(X, qid=qid, weights={list(weights)}, scale={scale:g}{more})"


def align_command(run: str | Path, weights: Sequence[float], scale: float, prompt: str = "TEXT") -> str:
    """The ``hyperdpo align generate`` that continues a prompt at a point."""
    command = ["hyperdpo", "align", "generate", str(run), "--weights", numbers(weights), "--scale", f"{scale:g}"]
    return shlex.join([*command, "--prompt", prompt])


def align_call(weights: Sequence[float], scale: float) -> str:
    """The ``generate(...)`` of an :class:`~hyperdpo.alignment.run.AlignRun`."""
    return f"generate(prompts, {list(weights)}, {scale:g})"


def numbers(values: Sequence[float]) -> str:
    """As options of the command line take them."""
    return ",".join(f"{value:g}" for value in values)
