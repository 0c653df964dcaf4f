"""``hyperdpo check``: whether files of a run, an export, an adapter, a comparison or a cache are what was written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from hyperdpo.checksums import damaged, file_digest, file_digests, named_inside
from hyperdpo.errors import InputError, counted
from hyperdpo.extras import require
from hyperdpo.files import read_json, read_sealed, read_tensors, write_json, write_tensors
from hyperdpo.runs import FILES, RUN

#: An adapter's file, exports' descriptions, and the cache's directory: what tells one kind of directory from another.
ADAPTER, LM_EXPORT, TREE_EXPORT, CACHE = "hyperdpo_config.json", "hyperdpo_export.json", "ranker.json", "tables"
#: Subdirectories of a run whose files come and go; each file has its own checksum.
KEPT = ("base_scores", "checkpoints")


class Checked(NamedTuple):
    """What was found."""

    files: int
    added: bool = False
    """Whether there were no checksums, and are now."""
    changed: tuple[str, ...] = ()
    """Files that were accepted though they differ from what was written."""


def check_command(path: Path, *, accept: bool = False) -> None:
    """``hyperdpo check``."""
    found = check(path, accept=accept)
    if found.added:
        click.echo(f"{path}: checksums added for {counted(found.files, 'file')}")
    elif found.changed:
        click.echo(f"{path}: accepted as it is now: {', '.join(found.changed)}")
    else:
        click.echo(f"{path}: {counted(found.files, 'file')} as written")


def check(path: Path, *, accept: bool = False) -> Checked:
    """Compare all files with their checksums, or add these where there are none.

    Args:
        path: a run, an adapter, an export (a directory, or the file of a ranker), the directory of a comparison or of
            the cache.
        accept: take the files as they are, and write new checksums.

    Raises:
        InputError: nothing that has checksums, or files that are missing or damaged, all by name.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    if path.is_file():
        beside = path.with_name(path.name + ".json")
        if not beside.is_file():
            raise InputError(f"{path}: no {beside.name} beside it, which would hold its checksum; expected an export")
        return _check_listed(beside, lambda: [path.name], 0, accept)
    if (path / RUN).is_file():
        return _check_run(path, accept)
    for name in (LM_EXPORT, TREE_EXPORT):
        if (path / name).is_file():
            return _check_listed(path / name, partial(_others, path, name), 2, accept)
    if (path / ADAPTER).is_file():
        return _check_adapter(path, accept)
    tables = [file.parent for file in sorted(path.rglob("meta.json")) if (file.parent / "values.npy").is_file()]
    if (path / CACHE).is_dir() or tables:
        return _check_tables(path, tables)
    count, errors = _check_kept([path])
    if not count and not errors:
        raise InputError(f"{path}: nothing with checksums; expected a run, an adapter, an export or a cache")
    _refuse(path, errors)
    return Checked(count)


def _check_listed(main: Path, names: Callable[[], Iterable[str]], checked_from: int, accept: bool) -> Checked:
    """Files that a JSON file lists, and that file.

    Args:
        names: finds the files for a list that is new.
        checked_from: the first format version that always has a list.
    """
    directory = main.parent
    value, intact = read_sealed(main, compare=not accept, remedy=_accepting(directory))
    if not isinstance(value, dict):
        raise InputError(f"{main}: no object; expected what this package wrote")
    listed = value.get(FILES)
    if accept or listed is None:
        if listed is None and not accept and checked_from and _version(value) >= checked_from:
            raise damaged(main, _accepting(directory))
        known = listed if isinstance(listed, dict) else {}
        digests = file_digests(directory, {*(name for name in known if (directory / name).is_file()), *names()})
        write_json(main, value | {FILES: digests}, sealed=True)
        changed = {name for name in {*known, *digests} if known.get(name) != digests.get(name)}
        changed |= set() if intact else {main.name}
        return Checked(len(digests) + 1, listed is None, tuple(sorted(changed)))
    if not intact or not isinstance(listed, dict):
        raise damaged(main, _accepting(directory))
    paths = {named_inside(directory, name, main): digest for name, digest in listed.items()}
    wrong = [file for file, digest in paths.items() if not file.is_file() or file_digest(file) != digest]
    _refuse(directory, [str(file.relative_to(directory)) for file in wrong])
    return Checked(len(paths) + 1)


def _check_run(path: Path, accept: bool) -> Checked:
    kind = read_sealed(path / RUN, compare=not accept, remedy=_accepting(path))[0]
    found = _check_rank_run(path, accept) if kind.get("kind") == "rank" else _check_align_run(path, accept)
    count, errors = _check_kept([path / name for name in KEPT])
    _refuse(path, errors)
    return found._replace(files=found.files + count)


def _check_rank_run(path: Path, accept: bool) -> Checked:
    from hyperdpo.ranking import run_files
    from hyperdpo.ranking.run import RankRun

    def names() -> list[str]:
        trees = [file.relative_to(path).as_posix() for file in (path / run_files.TREES).glob("*")]
        return [run_files.MODEL, run_files.CONFIG, "metrics.json", *trees]

    if read_sealed(path / RUN, compare=False)[0].get(FILES) is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is being added
            RankRun.load(path)  # what cannot be loaded gets no checksums
    return _check_listed(path / RUN, names, run_files.CHECKED_FROM, accept)


def _check_align_run(path: Path, accept: bool) -> Checked:
    require("align")
    from hyperdpo.alignment.adapters import CONFIG, TENSORS, read_config
    from hyperdpo.alignment.bases import tokenizer_of
    from hyperdpo.alignment.run import FORMAT_VERSION, tokenizer_files

    def names() -> list[str]:
        read_json(path / "metrics.json")
        if not accept:
            read_config(path)
            read_tensors(path / TENSORS)
        return [CONFIG, TENSORS, "metrics.json", *tokenizer_files(path, tokenizer_of(str(path)))]

    return _check_listed(path / RUN, names, FORMAT_VERSION, accept)


def _check_adapter(path: Path, accept: bool) -> Checked:
    require("align")
    from hyperdpo.alignment.adapters import CONFIG, TENSORS, read_config

    config, intact = read_sealed(path / CONFIG, compare=not accept, remedy=_accepting(path))
    tensors, head = read_tensors(path / TENSORS, compare=not accept, remedy=_accepting(path))
    if intact and not accept:
        read_config(path)
        return Checked(2)
    if not accept:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_config(path)
    write_tensors(path / TENSORS, tensors, head)
    write_json(path / CONFIG, config, sealed=True)
    return Checked(2, added=not accept, changed=(CONFIG, TENSORS) if accept else ())


def _check_tables(path: Path, tables: list[Path]) -> Checked:
    from hyperdpo.data.storage import DamagedTableError, open_stored

    wrong = []
    for table in tables:
        try:
            checked = open_stored(table, str(table)).checked
            assert checked is not None
            if not checked.all_intact():
                wrong.append(f"{table}/values.npy")
        except DamagedTableError as error:
            wrong.append(f"{table} ({error})")
    if wrong:
        found = f"{len(wrong)} of {counted(len(tables), 'table')}"
        raise InputError(f"{path}: damaged: {found}: {', '.join(wrong)}; a file is parsed again when it is next read")
    return Checked(sum(len(list(table.iterdir())) for table in tables))


def _check_kept(places: Iterable[Path]) -> tuple[int, list[str]]:
    """Files that have their own checksum: how many there are, and those that are damaged."""
    count, errors = 0, []
    for file in (file for place in places for file in sorted(place.rglob("*")) if file.is_file()):
        if file.suffix not in (".safetensors", ".json"):
            continue
        count += 1
        try:
            read_tensors(file) if file.suffix == ".safetensors" else read_json(file)
        except InputError:
            errors.append(str(file))
    return count, errors


def _refuse(path: Path, wrong: list[str]) -> None:
    if wrong:
        raise InputError(
            f"{path}: missing, damaged or changed since it was written: {', '.join(wrong)}; {_accepting(path)}"
        )


def _accepting(path: Path) -> str:
    return f"restore from a copy, or make it again (if you changed it on purpose: hyperdpo check {path} --accept)"


def _others(path: Path, main: str) -> list[str]:
    """All files of an export but its description."""
    return [f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file() and f.name != main]


def _version(value: dict[str, Any]) -> int:
    found = value.get("format_version")
    return found if isinstance(found, int) else 0
