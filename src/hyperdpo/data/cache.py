"""Reading a table: parsed once, memory-mapped ever after.

A file's parsed form is kept in a cache directory: the `cache_dir` argument, else the environment variable
HYPERDPO_CACHE, else the user's cache directory. It is found again by the file's path, size, time and a sample of its
bytes.

    <cache>/tables/<hash of path and options>/<hash of size, time, sample, version>/{values,blocks,...}.npy, meta.json
    <cache>/tables/tmp-<pid>-<host>-<random>/      being built; renamed when complete
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xxhash

from hyperdpo.data.blocks import CheckedValues
from hyperdpo.data.compression import compression_of, plain_name
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.storage import FORMAT_VERSION, DamagedTableError, open_stored
from hyperdpo.errors import InputError
from hyperdpo.files import check_space
from hyperdpo.hashing import sha256_of
from hyperdpo.processes import runs

#: Environment variable that names the cache directory.
CACHE_VARIABLE = "HYPERDPO_CACHE"

_SAMPLES = 16
_SAMPLE_BYTES = 4096
_STALE_SECONDS = 2 * 86_400  # no reading takes so long: a temporary directory of another host that old is dead
_ENOUGH_BYTES = 64 * 2**20  # of a file, to tell how large its parsed form will be
_active: set[str] = set()  # this process's temporary directories, to tell them from those of a dead one with its number


def read_table(
    path: str | Path,
    *,
    qid_column: str = "qid",
    cache_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    sort: bool = False,
    features_from_zero: bool = False,
    origins: Mapping[str, float] | None = None,
) -> GroupedTable:
    """Read ``.parquet``, ``.csv``, ``.tsv``, or anything else as LETOR text; text may be ``.gz``, ``.bz2`` or ``.zst``.

    The first reading of a file parses it into the cache; later ones map that into memory at once, whatever its size.
    The values are therefore read-only.

    Args:
        path: the file.
        qid_column: the column of Parquet or CSV that names the groups; LETOR text has its own.
        cache_dir: the cache directory; see the module.
        progress: called with (bytes done, bytes in all) while a file is parsed; not called if it was found parsed.
        sort: bring rows of one group together that stand apart; without it they are refused.
        features_from_zero: whether the features of LETOR text are numbered from 0.
        origins: to subtract from columns of these names, and from no others, as where the file is read for a run; None:
            every column gets an origin where it needs one.

    Raises:
        InputError: the file is missing or malformed, an option does not apply to it, or the cache directory cannot be
            written.
    """
    path = Path(path)
    kind = table_kind(path)
    if features_from_zero and kind != "letor":
        raise InputError(f"{path}: --features-from-zero is for LETOR text; the columns of {kind} have names")
    tables = _tables(cache_dir)
    key = source_key(path)
    options = (
        kind,
        compression_of(path),
        qid_column,
        sort,
        features_from_zero,
        None if origins is None else sorted(origins.items()),
    )
    entry = tables / _hashed(os.path.realpath(path), *options) / key

    def parse() -> None:
        with _cannot_write(tables, path), _temporary(tables) as directory:
            watch = _watching_space(path, directory, progress)
            _convert(path, directory, qid_column, sort, features_from_zero, origins, watch)
            if source_key(path) != key:
                raise InputError(f"{path}: changed while it was read; expected a file that nothing writes to")
            _move_into_place(directory, entry)
            for old in entry.parent.iterdir():  # of an earlier content of the same file
                if old != entry:
                    shutil.rmtree(old, ignore_errors=True)

    def opened() -> GroupedTable:
        table = open_stored(entry, str(path))
        assert table.checked is not None
        table.checked.repair = repaired
        return table

    def repaired() -> CheckedValues:
        """The values of an open table, parsed again: a block turned out to be damaged."""
        if source_key(path) != key:
            raise InputError(f"{entry}: damaged, and {path} has changed since it was read; run the command again")
        _note_damage(entry, path, "values.npy has another checksum")
        with _cannot_write(tables, path), _temporary(tables) as directory:
            _set_aside(entry, directory)
        parse()
        made = open_stored(entry, str(path)).checked
        assert made is not None
        return made

    try:
        return opened()
    except DamagedTableError as error:  # absent, damaged or from another version: all the same
        if entry.is_dir():
            _note_damage(entry, path, str(error))
    parse()
    try:
        return opened()
    except DamagedTableError as error:
        raise InputError(f"{entry}: damaged as soon as it was written ({error}); check the disk") from None


def _note_damage(entry: Path, path: Path, reason: str) -> None:
    warnings.warn(f"{entry}: damaged ({reason}); {path} is parsed again", stacklevel=3)


def _watching_space(
    path: Path, directory: Path, progress: Callable[[int, int], None] | None
) -> Callable[[int, int], None]:
    """Progress of a conversion that checks, once a small part is done, whether the rest will have room.

    An empty file has no part that could tell.
    """
    is_checked = False

    def update(done: int, total: int) -> None:
        nonlocal is_checked
        if not is_checked and 0 < min(total / 20, _ENOUGH_BYTES) <= done:
            is_checked = True
            made = sum(one.stat().st_size for one in directory.iterdir())
            check_space(directory.parent, int(made * (total / done - 1)), f"{path}, parsed,")
        if progress is not None:
            progress(done, total)

    return update


def clear_cache(cache_dir: Path | None = None) -> None:
    """Delete every parsed table in the cache. Tables that are open stay usable."""
    shutil.rmtree(_tables(cache_dir), ignore_errors=True)


def cache_root(cache_dir: Path | None = None) -> Path:
    """The cache directory in use: the argument, else HYPERDPO_CACHE, else the user's cache directory."""
    if cache_dir is not None:
        return Path(cache_dir)
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    import platformdirs

    return Path(platformdirs.user_cache_dir("hyperdpo", appauthor=False))


def _tables(cache_dir: Path | None) -> Path:
    return cache_root(cache_dir) / "tables"


def table_kind(path: Path) -> Literal["parquet", "csv", "letor"]:
    """The format of a file, by its name."""
    if path.name.lower().endswith(".parquet"):
        return "parquet"
    return "csv" if plain_name(path).endswith((".csv", ".tsv")) else "letor"


def _convert(
    path: Path,
    directory: Path,
    qid_column: str,
    sort: bool,
    features_from_zero: bool,
    origins: Mapping[str, float] | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    from hyperdpo.data import letor, tabular

    settings: dict[str, Any] = {"sort": sort, "origins": origins, "progress": progress}
    if table_kind(path) == "letor":
        letor.convert_letor(path, directory, features_from_zero=features_from_zero, **settings)
    else:
        tabular.convert_table(path, directory, qid_column=qid_column, **settings)


def source_key(path: Path) -> str:
    """Hash of what tells one content of a file from another without reading it whole: size, time, sampled bytes."""
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            sample = xxhash.xxh3_128()
            step = max(1, (status.st_size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            for i in range(_SAMPLES):
                file.seek(i * step)
                sample.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a readable file") from None
    return _hashed(status.st_size, status.st_mtime_ns, sample.hexdigest(), FORMAT_VERSION, np.dtype("=f4").str)


def _hashed(*parts: object) -> str:
    return sha256_of(*parts).hexdigest()[:32]


def _move_into_place(directory: Path, entry: Path) -> None:
    """Rename a complete table to its final name. If another process was faster, its table is as good."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            directory.rename(entry)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        try:
            open_stored(entry, "")
            return
        except DamagedTableError:
            _set_aside(entry, directory)


def _set_aside(entry: Path, directory: Path) -> None:
    """Move a damaged table away, to where it is deleted at once.

    Args:
        directory: a temporary one of this process.
    """
    with contextlib.suppress(FileNotFoundError):
        entry.rename(directory.with_name(f"{directory.name}-{time.monotonic_ns()}"))
    _remove_stale(directory.parent)


@contextlib.contextmanager
def _temporary(tables: Path) -> Iterator[Path]:
    """A directory that is gone afterwards, unless it was renamed, whatever happens."""
    tables.mkdir(parents=True, exist_ok=True)
    _remove_stale(tables)
    name = tempfile.mkdtemp(prefix=temporary_prefix(os.getpid()), dir=tables)
    _active.add(Path(name).name)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        _active.discard(Path(name).name)


def _remove_stale(tables: Path) -> None:
    """Delete the temporary directories of processes that were killed."""
    for directory in tables.glob("tmp-*-*-*"):
        pid = directory.name.split("-")[1]
        with contextlib.suppress(OSError, ValueError):
            mine = directory.name.startswith(temporary_prefix(int(pid))) and os.name == "posix"
            dead = mine and directory.name not in _active and (int(pid) == os.getpid() or not runs(int(pid)))
            if dead or time.time() - directory.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(directory, ignore_errors=True)


def temporary_prefix(pid: int) -> str:
    """What the names of a process's temporary directories begin with: its number and this host."""
    return f"tmp-{pid}-{_hashed(platform.node())[:8]}-"


@contextlib.contextmanager
def _cannot_write(tables: Path, path: Path) -> Iterator[None]:
    """Turn failures to write the cache into a message that says where."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{tables}: {error.strerror or error} while {path} was read into the cache; "
            f"expected a writable directory with room for it (set {CACHE_VARIABLE} to another)"
        ) from error
