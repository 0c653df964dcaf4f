"""``run.json``, which a run directory holds once it is complete: kind and format of the run, checksums of its files."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from hyperdpo._version import __version__
from hyperdpo.checksums import check_files, damaged, file_digests
from hyperdpo.errors import InputError, brief
from hyperdpo.files import read_json, write_json

RUN, METRICS = "run.json", "metrics.json"

#: Key of run.json and of an export's JSON: file -> its SHA-256.
FILES = "files"
#: The list of a directory that has no such JSON, such as a checkpoint.
LIST = "checksums.json"

#: Kind of a run, and what it holds.
KINDS = {"rank": "a ranker", "align": "a language model"}


def write_run(path: Path, kind: Literal["rank", "align"], version: int, files: Iterable[str], content: Any) -> None:
    """Write ``run.json``, with checksums of the files that belong to the run.

    Args:
        version: of the format.
        files: names of files in the run directory, written before.
        content: the other keys.

    Raises:
        InputError: a file cannot be read, or ``run.json`` cannot be written.
    """
    head = {"format_version": version, "kind": kind}
    write_json(path / RUN, {**head, **content, FILES: file_digests(path, files)}, sealed=True)


def run_kind(path: Path) -> str | None:
    """The kind that ``run.json`` names; None where there is no such file, or it names none.

    Raises:
        InputError: the file is damaged.
    """
    run = read_json(path / RUN, remedy=remedy(path)) if (path / RUN).is_file() else None
    return run.get("kind") if isinstance(run, dict) else None


def read_run(
    path: Path, kind: Literal["rank", "align"], readable: tuple[int, ...], *, checked_from: int
) -> dict[str, Any]:
    """The content of ``run.json``. The files that it lists are what was written. Of a run without a list, a note.

    Args:
        kind: of the run that is expected.
        readable: format versions that can be read, in order.
        checked_from: the first version that always has checksums.

    Raises:
        InputError: no run, one of another kind or of another format version, or a file that is missing or damaged.
    """
    if not (path / RUN).is_file():
        state = "training has not finished" if (path / "checkpoints").is_dir() else "no run there"
        raise InputError(f"{path}: {state}; expected a directory that `hyperdpo {kind} fit` has completed")
    run = read_json(path / RUN, remedy=remedy(path))
    other = run_kind(path)
    if isinstance(other, str) and other in KINDS and other != kind:
        raise InputError(f"{path}: a run of `hyperdpo {other}`, {KINDS[other]}; expected one of `hyperdpo {kind} fit`")
    found = run.get("format_version") if isinstance(run, dict) else None
    if found not in readable:
        known = f"version {readable[0]}" if len(readable) == 1 else f"versions {readable[0]} to {readable[-1]}"
        raise InputError(
            f"{path / RUN}: a run of format version {found}; hyperdpo {__version__} reads {known} (train it "
            "again, or install the version named in the file)"
        )
    files = run.pop(FILES, None)
    if isinstance(files, dict):
        check_files(path, files, path / RUN, remedy(path))
    elif found >= checked_from:
        raise damaged(path / RUN, remedy(path))
    else:
        warnings.warn(f"{path}: written without checksums; `hyperdpo check {path}` adds them", stacklevel=3)
    return dict(run)


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a run's ``metrics.json``, with what commands print of it: ``parameters`` and ``train_seconds``.

    Raises:
        InputError: it cannot be read, or one of them is missing or no number.
    """
    metrics = read_json(path / METRICS)
    for name in ("parameters", "train_seconds"):
        value = metrics.get(name) if isinstance(metrics, dict) else None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(f"{path / METRICS}: {name} is {brief(value)}; expected the number that the fit wrote")
    return dict(metrics)


def list_files(directory: Path) -> None:
    """Write ``checksums.json`` beside all files of a directory that is complete.

    Raises:
        InputError: a file cannot be read, or the list cannot be written.
    """
    names = [file.relative_to(directory).as_posix() for file in directory.rglob("*") if file.is_file()]
    write_json(directory / LIST, {FILES: file_digests(directory, names)}, sealed=True)


def check_listed(directory: Path) -> None:
    """Compare the files of a directory with ``checksums.json``; one of an older version has none.

    Raises:
        InputError: a file is missing or damaged.
    """
    if (directory / LIST).is_file():
        check_files(directory, read_json(directory / LIST, sealed=True)[FILES], directory / LIST)


def remedy(path: Path) -> str:
    """What to do about a run with a damaged file."""
    return f"restore it from a copy, or fit again (if you changed it on purpose: hyperdpo check {path} --accept)"
