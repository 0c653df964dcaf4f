"""One Parquet or CSV file: its schema, its rows in batches, and where a row stands in it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hyperdpo.data.compression import DamagedDataError, Source, open_source, plain_name
from hyperdpo.data.letor_errors import quoted
from hyperdpo.errors import InputError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[int, int], None]

#: Bytes of CSV text parsed at a time; the types of its columns are guessed from the first so many.
BLOCK_BYTES = 4 << 20

#: What may stand between the columns of CSV.
SEPARATORS = (",", ";", "\t", "|")

#: Values of Parquet that are converted at a time.
BATCH_VALUES = 1 << 20
_ROW_IN_MESSAGE = re.compile(r"Row #(\d+): *(.*)", re.DOTALL)
_UNCONVERTIBLE = re.compile(r"In CSV column #(\d+): .*conversion error", re.DOTALL)


class TableFile(Protocol):
    """A file of one format."""

    path: Path

    def schema(self) -> pa.Schema:
        """Names and types of the columns, as far as is known."""

    def batches(self, columns: Sequence[str], progress: Progress | None) -> Iterator[pa.RecordBatch]:
        """Rows of some columns, in order."""

    def place(self, row: int) -> str:
        """The file and the line, or row, of a zero-based row."""

    def found(self, row: int, column: str, value: Any) -> str:
        """What stands there."""

    def explained(self, error: Exception) -> InputError:
        """The message for an error of whatever read the file."""


class ParquetFile:
    """A Parquet file.

    Args:
        rows: those that are read, from 0; None: all of them.
    """

    def __init__(self, path: Path, rows: range | None = None) -> None:
        self.path = path
        self._rows = rows

    def schema(self) -> pa.Schema:
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path) as file:
            return file.schema_arrow

    def batches(self, columns: Sequence[str], progress: Progress | None) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        total = self.path.stat().st_size
        batch_rows = max(1, min(65_536, BATCH_VALUES // (1 + len(columns))))
        with pq.ParquetFile(self.path) as file:
            meta = file.metadata
            ends = np.cumsum([meta.row_group(i).num_rows for i in range(meta.num_row_groups)], dtype=np.int64)
            rows = range(meta.num_rows) if self._rows is None else self._rows
            first, last = np.searchsorted(ends, [rows.start, rows.stop - 1], "right")
            done = int(ends[first - 1]) if first else 0
            read = range(first, min(last + 1, meta.num_row_groups))
            for batch in file.iter_batches(batch_rows, list(read), columns=list(columns)):
                wanted = range(max(rows.start - done, 0), min(rows.stop - done, batch.num_rows))
                done += batch.num_rows
                if len(wanted):
                    yield batch.slice(wanted.start, len(wanted))
                if progress is not None:
                    progress(total * done // max(1, meta.num_rows), total)

    def place(self, row: int) -> str:
        return f"{self.path}:row {row + 1 + (self._rows.start if self._rows else 0)}"

    def found(self, row: int, column: str, value: Any) -> str:
        return "null" if value is None else repr(value)

    def explained(self, error: Exception) -> InputError:
        whole = "a whole" if isinstance(error, OSError) else "a"
        return InputError(f"{self.path}: {one_line(error)}; expected {whole} Parquet file")


class AsTextError(Exception):
    """A CSV column turned out to hold text: read it as text in the next pass."""


class CsvFile:
    """A CSV file. pyarrow counts rows without blank lines, so the file is read again to find a line."""

    def __init__(self, path: Path, qid_column: str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self._qid_column, self._block_bytes = qid_column, block_bytes
        self._header: list[str] | None = None
        self._separator, self._decimal = ",", "."
        self._types: dict[str, pa.DataType] = {}

    def schema(self) -> pa.Schema:
        import pyarrow as pa

        if self._header is None:
            self._read_header()
        assert self._header is not None
        return pa.schema([(name, self._types[name]) for name in self._header])

    def batches(self, columns: Sequence[str], progress: Progress | None) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        readable = {name: pa.string() if pa.types.is_temporal(kind) else kind for name, kind in self._types.items()}
        with open_source(self.path) as source:
            try:
                for batch in self._open(source, readable, list(columns)):
                    yield batch
                    if progress is not None:
                        progress(source.position(), source.total)
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                wrong = _UNCONVERTIBLE.search(str(error))
                assert self._header is not None
                name = self._header[int(wrong[1])] if wrong else None
                if name is None or pa.types.is_string(readable[name]):
                    raise
                self._types[name] = pa.string()
                raise AsTextError from None

    def _open(self, source: Source, types: dict[str, Any] | None, columns: list[str] | None = None) -> Any:
        import pyarrow.csv as pa_csv

        return pa_csv.open_csv(
            source,
            read_options=pa_csv.ReadOptions(block_size=self._block_bytes, use_threads=False),
            parse_options=pa_csv.ParseOptions(delimiter=self._separator),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=columns, strings_can_be_null=True, decimal_point=self._decimal
            ),
        )

    def _read_header(self) -> None:
        """Find the separator and the decimal point, and guess the types from the first block."""
        import pyarrow as pa

        first = self._line(0)[1]
        fields = {separator: _fields(first, separator) for separator in SEPARATORS}
        order = sorted(SEPARATORS, key=lambda s: (self._qid_column not in fields[s], -len(fields[s])))
        self._separator = "\t" if plain_name(self.path).endswith(".tsv") else order[0]
        guesses = []
        for decimal in (".", ",") if self._separator == ";" else (".",):
            self._decimal = decimal
            with open_source(self.path) as source:
                reader = self._open(source, None)
                guesses.append((decimal, next(iter(reader), None) or pa.RecordBatch.from_pylist([], reader.schema)))
        numeric = [sum(pa.types.is_floating(kind) for kind in batch.schema.types) for _, batch in guesses]
        self._decimal, first = guesses[int(np.argmax(numeric))]
        self._types = {
            name: _csv_type(first.column(i), name == self._qid_column) for i, name in enumerate(first.schema.names)
        }
        self._header = list(first.schema.names)

    def place(self, row: int) -> str:
        return f"{self.path}:{self._line(row + 1)[0]}"

    def found(self, row: int, column: str, value: Any) -> str:
        if value is not None:
            return repr(value)
        header, fields = (_fields(self._line(i)[1], self._separator) for i in (0, row + 1))
        if column not in header or len(fields) <= header.index(column):
            return "empty"
        text = fields[header.index(column)]
        return quoted(text.encode()) if text.strip() else "empty"

    def explained(self, error: Exception) -> InputError:
        """As :meth:`TableFile.explained`; pyarrow's ``Row #n`` counts the header as row 1."""
        text = one_line(error)
        if isinstance(error, DamagedDataError):
            return InputError(f"{self.path}: {error}; expected a whole compressed file")
        if isinstance(error, UnicodeDecodeError) or "UTF8" in text or "utf-8" in text:
            return InputError(f"{self.path}: bytes that are not UTF-8; expected CSV in UTF-8")
        if "Empty CSV file" in text:
            return InputError(f"{self.path}: an empty file; expected a header line and rows")
        row = _ROW_IN_MESSAGE.search(text)
        if row is None:
            return InputError(f"{self.path}: {text}; expected CSV with a header line")
        return InputError(
            f"{self.path}:{self._line(int(row[1]) - 1)[0]}: {row[2]}; expected fields like those of the lines before"
        )

    def _line(self, index: int) -> tuple[int, str]:
        """(one-based line number, text) of the line that is `index` non-blank lines behind the header."""
        number = 0
        with open_source(self.path) as source, io.BufferedReader(source, 1 << 20) as lines:
            for number, line in enumerate(lines, start=1):
                text = line.decode("utf-8", errors="replace").removeprefix("\ufeff").rstrip("\r\n")
                if text.strip():
                    if index == 0:
                        return number, text
                    index -= 1
        return number, ""


def _fields(line: str, separator: str) -> list[str]:
    """The fields of a line; none where they cannot be told, as with a carriage return in the middle."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _csv_type(first: pa.Array, is_qid: bool) -> pa.DataType:
    """The type to hold all blocks to: the first may show whole numbers where a later one has fractions.

    Whole numbers that 64-bit floats do not hold stay integers.
    """
    import pyarrow as pa

    guessed = first.type
    if not is_qid and (pa.types.is_integer(guessed) or pa.types.is_floating(guessed)):
        values = first.drop_null().to_numpy(zero_copy_only=False)
        largest = float(np.abs(values.astype(np.float64)).max(initial=0))
        if largest > 2**53 and pa.types.is_integer(guessed):
            return guessed
        if 2**63 <= largest < 2**64 and values.min() >= 0 and (values == np.round(values)).all():
            return pa.uint64()
    if is_qid:
        return pa.string()  # 007 is not 7
    if pa.types.is_integer(guessed) or pa.types.is_floating(guessed) or pa.types.is_null(guessed):
        return pa.float64()
    return guessed if pa.types.is_boolean(guessed) or pa.types.is_temporal(guessed) else pa.string()
