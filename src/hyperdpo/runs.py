"""``run.json``, which a run directory holds once it is complete: what kind of run it is, and of which format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from hyperdpo._version import __version__
from hyperdpo.errors import InputError
from hyperdpo.files import read_json

RUN, METRICS = "run.json", "metrics.json"

#: Kind of a run, and what it holds.
KINDS = {"rank": "a ranker", "align": "a language model"}


def run_kind(path: Path) -> str | None:
    """The kind that ``run.json`` names; None where there is no such file, or it names none."""
    run = read_json(path / RUN) if (path / RUN).is_file() else None
    return run.get("kind") if isinstance(run, dict) else None


def read_run(path: Path, kind: Literal["rank", "align"], readable: tuple[int, ...]) -> dict[str, Any]:
    """The content of ``run.json``.

    Args:
        kind: of the run that is expected.
        readable: format versions that can be read, in order.

    Raises:
        InputError: no run, one of another kind or of another format version.
    """
    if not (path / RUN).is_file():
        state = "training has not finished" if (path / "checkpoints").is_dir() else "no run there"
        raise InputError(f"{path}: {state}; expected a directory that `hyperdpo {kind} fit` has completed")
    run = read_json(path / RUN)
    other = run_kind(path)
    if other in KINDS and other != kind:
        raise InputError(f"{path}: a run of `hyperdpo {other}`, {KINDS[other]}; expected one of `hyperdpo {kind} fit`")
    found = run.get("format_version") if isinstance(run, dict) else None
    if found not in readable:
        known = f"version {readable[0]}" if len(readable) == 1 else f"versions {readable[0]} to {readable[-1]}"
        raise InputError(
            f"{path / RUN}: a run of format version {found}; hyperdpo {__version__} reads {known} (train it "
            "again, or install the version named in the file)"
        )
    return dict(run)
