"""Rows of preference data with their places, read from a file or an object."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from hyperdpo.alignment.data.cells import SHOWN, Row, RowError, wrong
from hyperdpo.data.groups import abridged
from hyperdpo.errors import InputError, one_line, shown

#: Endings of the files that :func:`file_rows` reads.
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")

#: Called with the place of a row that cannot be read, and its error.
Invalid = Callable[[str, InputError], None]

_PARQUET_ROWS = 1024  # converted to Python objects at a time
_BOM = b"\xef\xbb\xbf"


def refuse(place: str, error: InputError) -> NoReturn:
    """Raise the error of a row, with its place."""
    raise InputError(at(place, error)) from None


def at(place: str, error: InputError) -> str:
    """The error of a row, with its place."""
    return f"{place}{'' if str(error).startswith(' is') else ':'} {str(error).strip()}"


def source_rows(source: Any, invalid: Invalid = refuse) -> tuple[str, Iterator[tuple[str, Row]]]:
    """The name of a source, for messages, and its rows with the place of each.

    Args:
        source: path of a file; ``datasets`` object; data frame (pandas, polars) or Arrow table; iterable of mappings.
        invalid: called for rows that are no objects or no JSON; it may raise, otherwise they are skipped.

    Raises:
        InputError: nothing of that kind; while the rows are drawn, a file that cannot be read.
    """
    if isinstance(source, str | Path):
        return str(source), file_rows(Path(source), invalid)
    if isinstance(source, Mapping):
        raise InputError(
            f"preferences: found a {type(source).__name__} of {abridged([str(k) for k in source])}; "
            "expected one data set (read_splits takes several parts, merge_pairs several objectives)"
        )
    import narwhals as nw

    frame = nw.from_native(source, eager_only=True, pass_through=True)
    if isinstance(frame, nw.DataFrame):
        return "frame", _numbered("frame: ", frame.iter_rows(named=True), invalid)
    if hasattr(source, "with_format"):  # a datasets.Dataset: another format would give tensors
        return "dataset", _numbered("dataset: ", source.with_format(None), invalid)
    if isinstance(source, Iterable):
        return "rows", _numbered("rows: ", source, invalid)
    raise InputError(
        f"preferences: found {type(source).__name__}; expected a path, a dataset, a frame or a list of rows"
    )


def file_rows(path: Path, invalid: Invalid = refuse) -> Iterator[tuple[str, Row]]:
    """Rows of ``.jsonl``, ``.jsonl.gz``, ``.json`` (a list, or one object per line) or ``.parquet``, with their places.

    Args:
        invalid: see :func:`source_rows`.

    Raises:
        InputError: the file is missing, of another kind, or damaged.
    """
    if path.is_dir():
        raise InputError(f"{path}: a directory; expected a file (read_splits reads a directory of parts)")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet_rows(path, invalid)
    if name.endswith((".jsonl", ".jsonl.gz")):
        return _json_lines(path, invalid)
    if name.endswith(".json"):
        return _json_rows(path, invalid)
    raise InputError(f"{path}: an unknown kind of file; expected a name that ends in {', '.join(SUFFIXES)}")


def _numbered(prefix: str, rows: Iterable[Any], invalid: Invalid) -> Iterator[tuple[str, Row]]:
    for number, row in enumerate(rows, 1):
        place = f"{prefix}row {number}"
        if isinstance(row, Mapping):
            yield place, row
        else:
            invalid(place, wrong("", row, "an object with named columns", "a row that is no object"))


def _json_lines(path: Path, invalid: Invalid) -> Iterator[tuple[str, Row]]:
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(_BOM) if number == 1 else line
                if not line.strip():
                    continue
                place = f"{path}:{number}"
                try:
                    row = _parsed(line)
                    if not isinstance(row, dict):
                        found = f"found {shown(row, SHOWN)}; expected one JSON object per line"
                        raise RowError(found, "a line that is no object")
                except RowError as error:
                    invalid(place, error)
                else:
                    yield place, row
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: {error}; expected a whole gzip file") from None


def _json_rows(path: Path, invalid: Invalid) -> Iterator[tuple[str, Row]]:
    with open(path, "rb") as file:
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
        first = next((byte for byte in iter(lambda: file.read(1), b"") if not byte.isspace()), b"")
    if first != b"[":
        return _json_lines(path, invalid)
    try:
        rows = _parsed(path.read_bytes().removeprefix(_BOM))
    except RowError as error:
        raise InputError(f"{path}: {error}") from None
    return _numbered(f"{path}:", rows, invalid)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except UnicodeDecodeError:
        raise RowError("bytes that are not UTF-8; expected JSON in UTF-8", "bytes that are not UTF-8") from None
    except json.JSONDecodeError as error:
        message = f"{error.msg} at line {error.lineno}, character {error.colno}; expected JSON"
        raise RowError(message, "a line that is no JSON") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        message = "a number of thousands of digits; expected labels that fit into a float"
        raise RowError(message, "a label that is too large or not finite") from None
    except RecursionError:
        raise RowError("brackets within brackets, too deep to read; expected JSON", "a line that is no JSON") from None


def _parquet_rows(path: Path, invalid: Invalid) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=_PARQUET_ROWS)
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
            yield from _numbered(f"{path}:", rows, invalid)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: {one_line(error)}; expected a whole Parquet file") from None
