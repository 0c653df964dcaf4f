"""Parquet and CSV: one column names the group, every other numeric or boolean column becomes float32.

Columns that are not numeric are left out; the table remembers their names for messages. Read in batches with pyarrow.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hyperdpo.data.groups import _abridged
from hyperdpo.data.letor_errors import quoted
from hyperdpo.data.storage import GroupIndex, TableWriter
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

#: Bytes of CSV text parsed at a time; the types of its columns are guessed from the first so many.
BLOCK_BYTES = 4 << 20

_BATCH_VALUES = 1 << 20  # values of Parquet converted at a time
_ROW_IN_MESSAGE = re.compile(r"Row #(\d+): *(.*)", re.DOTALL)


class _Locate(Protocol):
    """How a format speaks of a place in its file."""

    def place(self, row: int) -> str:
        """The file and the line, or row, of a zero-based row."""

    def found(self, row: int, column: str, value: Any) -> str:
        """What stands there."""


def convert_parquet(
    path: Path, directory: Path, *, qid_column: str = "qid", progress: Callable[[int, int], None] | None = None
) -> str:
    """Read a Parquet file into the files of a table (see `hyperdpo.data.storage`).

    Args:
        path: the file.
        directory: an existing, empty directory.
        qid_column: integer or string column; its equal values stand in adjacent rows.
        progress: called with (bytes done, bytes in all), in proportion to the rows.

    Returns:
        The fingerprint of the content.

    Raises:
        InputError: not a Parquet file, no such column, no rows, a null, NaN or infinite value, a group in two places.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = path.stat().st_size
    where = _ParquetPlaces(path)
    try:
        with pq.ParquetFile(path) as file, TableWriter(directory) as writer:
            schema = file.schema_arrow
            conversion = _Conversion(path, schema, qid_column, where, writer)
            batch_rows = max(1, min(65_536, _BATCH_VALUES // (1 + len(conversion.columns))))
            wanted = [qid_column, *conversion.columns]
            for batch in file.iter_batches(batch_size=batch_rows, columns=wanted):
                conversion.take(batch)
                if progress is not None:
                    progress(total * writer.num_rows // max(1, file.metadata.num_rows), total)
            return conversion.finish()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise InputError(f"{path}: {_one_line(error)}; expected a Parquet file") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise InputError(f"{path}: {_one_line(error)}; expected a whole Parquet file") from None  # pyarrow: damaged


def convert_csv(
    path: Path,
    directory: Path,
    *,
    qid_column: str = "qid",
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Read a CSV file with a header line, plain or ``.gz``, into the files of a table.

    A column is numeric if its values in the first `block_bytes` are. Arguments, result and errors as for
    `convert_parquet`; errors name the line. Values with line breaks in quotes are not supported.
    """
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    total = path.stat().st_size
    where = _CsvPlaces(path)

    def open_blocks(source: io.BufferedIOBase, types: dict[str, Any] | None) -> Any:
        return pa_csv.open_csv(
            source,
            read_options=pa_csv.ReadOptions(block_size=block_bytes, use_threads=False),
            convert_options=pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True),
        )

    try:
        with where.opened() as source:
            guessed = open_blocks(source, None).schema
        types = {
            name: _csv_type(kind, name == qid_column) for name, kind in zip(guessed.names, guessed.types, strict=True)
        }
        with where.opened() as source, TableWriter(directory) as writer:
            batches = open_blocks(source, types)
            conversion = _Conversion(path, batches.schema, qid_column, where, writer)
            for batch in batches:
                conversion.take(batch)
                if progress is not None:
                    progress(where.position(), total)
            return conversion.finish()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, EOFError, gzip.BadGzipFile) as error:
        raise where.explained(error) from None


def _csv_type(guessed: pa.DataType, is_qid: bool) -> pa.DataType:
    """The type to hold all blocks to: the first may show whole numbers where a later one has fractions."""
    import pyarrow as pa

    if is_qid:
        return pa.int64() if pa.types.is_integer(guessed) else pa.string()
    if pa.types.is_integer(guessed) or pa.types.is_floating(guessed) or pa.types.is_null(guessed):
        return pa.float64()
    return pa.bool_() if pa.types.is_boolean(guessed) else pa.string()


class _Conversion:
    """Turns record batches into rows and groups, whatever file they come from."""

    def __init__(self, path: Path, schema: pa.Schema, qid_column: str, where: _Locate, writer: TableWriter) -> None:
        import pyarrow as pa

        names = list(schema.names)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}: column {twice!r} occurs twice; expected distinct names")
        if qid_column not in names:
            raise InputError(f"{path}: no column {qid_column!r} with the query id; the columns are {_abridged(names)}")
        qid_type = schema.field(qid_column).type
        if pa.types.is_dictionary(qid_type):
            qid_type = qid_type.value_type
        text_types = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        is_text = any(check(qid_type) for check in text_types)
        if not is_text and not pa.types.is_integer(qid_type):
            raise InputError(f"{path}: column {qid_column!r} is {qid_type}; expected integer or string query ids")
        self._qid_type = pa.string() if is_text else pa.int64()
        self._path = path
        self._qid_column = qid_column
        self._where = where
        self._writer = writer
        self._groups = GroupIndex()
        self.columns = [name for name in names if name != qid_column and _is_numeric(schema.field(name).type)]
        self._left_out = {
            name: str(schema.field(name).type) for name in names if name != qid_column and name not in set(self.columns)
        }
        if not self.columns:
            raise InputError(f"{path}: no numeric column beside {qid_column!r}; the columns are {_abridged(names)}")

    def take(self, batch: pa.RecordBatch) -> None:
        """Add the rows of one batch."""
        import pyarrow as pa
        import pyarrow.compute as pc

        first = self._writer.num_rows
        rows = np.empty((batch.num_rows, len(self.columns)), dtype=np.float32)
        for j, name in enumerate(self.columns):
            rows[:, j] = _as_float32(batch.column(name))
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        bad_row = int(bad[0]) if len(bad) else batch.num_rows

        qids = batch.column(self._qid_column)
        if pa.types.is_dictionary(qids.type):
            qids = qids.dictionary_decode()
        null_row = int(pc.index(qids.is_null(), True).as_py()) if qids.null_count else batch.num_rows
        usable = min(bad_row, null_row)
        if usable:
            try:
                runs = pc.run_end_encode(qids.slice(0, usable).cast(self._qid_type))
            except pa.ArrowInvalid as error:
                raise InputError(f"{self._path}: query ids {_one_line(error)}; expected 64-bit integers") from None
            names = runs.values.to_numpy(zero_copy_only=False)
            starts = first + np.append(0, runs.run_ends.to_numpy(zero_copy_only=False)[:-1]).astype(np.int64)
            self._groups.append(names.astype(str) if names.dtype == object else names, starts, starts)
        if usable < batch.num_rows or self._groups.due():
            self._check_split()
        if usable < batch.num_rows:
            if null_row == usable:
                name, value, expected = self._qid_column, None, "a query id"
            else:
                name = self.columns[int(np.flatnonzero(~np.isfinite(rows[usable]))[0])]
                value, expected = batch.column(name)[usable].as_py(), "a finite number (of 32 bits)"
            row = first + usable
            found = self._where.found(row, name, value)
            raise InputError(f"{self._where.place(row)}: column {name!r} is {found}; expected {expected}")
        self._writer.append(rows)

    def finish(self) -> str:
        """Complete the table and return its fingerprint."""
        self._check_split()
        if self._writer.num_rows == 0:
            raise InputError(f"{self._path}: no rows; expected at least one")
        return self._writer.finish(self.columns, self._groups, left_out=self._left_out)

    def _check_split(self) -> None:
        split = self._groups.split()
        if split is not None:
            qid, again, first = split
            there = self._where.place(first).removeprefix(f"{self._path}:")
            raise InputError(
                f"{self._where.place(again)}: query id {qid!r} begins again, first seen in {there}; "
                "expected the rows of a query in adjacent rows"
            )


def _is_numeric(kind: pa.DataType) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def _as_float32(column: pa.Array) -> np.ndarray:
    """(n,) float32, NaN for null. By way of float64, as for text: one rounding rule for every format."""
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    with np.errstate(over="ignore"):
        return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float32)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _ParquetPlaces:
    def __init__(self, path: Path) -> None:
        self._path = path

    def place(self, row: int) -> str:
        return f"{self._path}:row {row + 1}"

    def found(self, row: int, column: str, value: Any) -> str:
        return "null" if value is None else repr(value)


class _CsvPlaces:
    """Line numbers of a CSV file. pyarrow counts rows without blank lines, so the file is read again to find them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.BufferedReader | None = None

    def opened(self) -> io.BufferedIOBase:
        self._file = open(self._path, "rb")  # noqa: SIM115 - the caller's `with` closes what is returned
        if self._path.name.lower().endswith(".gz"):
            return _Closing(self._file)
        return self._file

    def position(self) -> int:
        assert self._file is not None
        return os.lseek(self._file.fileno(), 0, os.SEEK_CUR)

    def place(self, row: int) -> str:
        return f"{self._path}:{self._line(row + 1)[0]}"

    def found(self, row: int, column: str, value: Any) -> str:
        if value is not None:
            return repr(value)
        header, fields = (next(csv.reader([self._line(i)[1]])) for i in (0, row + 1))
        text = fields[header.index(column)]
        return quoted(text.encode()) if text.strip() else "empty"

    def explained(self, error: Exception) -> InputError:
        """The message for an error of pyarrow, whose ``Row #n`` counts the header as row 1."""
        if isinstance(error, EOFError | gzip.BadGzipFile):
            return InputError(f"{self._path}: {_one_line(error)}; expected a whole gzip file")
        text = _one_line(error)
        if "Empty CSV file" in text:
            return InputError(f"{self._path}: an empty file; expected a header line and rows")
        row = _ROW_IN_MESSAGE.search(text)
        if row is None:
            return InputError(f"{self._path}: {text}; expected CSV with a header line")
        return InputError(
            f"{self._path}:{self._line(int(row[1]) - 1)[0]}: {row[2]}; expected fields like those of the lines before"
        )

    def _line(self, index: int) -> tuple[int, str]:
        """(one-based line number, text) of the line that is `index` non-blank lines behind the header."""
        with self.opened() as file:
            for number, line in enumerate(self._decoded(file), start=1):
                if line.strip():
                    if index == 0:
                        return number, line
                    index -= 1
        return number, ""

    @staticmethod
    def _decoded(file: io.BufferedIOBase) -> Iterator[str]:
        for line in file:
            yield line.decode("utf-8", errors="replace").removeprefix("\ufeff").rstrip("\r\n")


class _Closing(gzip.GzipFile):
    """A gzip file that closes the file below it, too."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._below = file

    def close(self) -> None:
        super().close()
        self._below.close()
