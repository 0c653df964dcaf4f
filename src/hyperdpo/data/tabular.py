"""Parquet and CSV: one column names the group, the columns of numbers become float32.

:mod:`hyperdpo.data.columns` says which columns those are; the table remembers the others with the reason. Files are
read in batches with pyarrow, once as a rule. They are read again where a later row shows that a column is not what it
seemed, or where a column of large numbers needs an origin.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hyperdpo.data.columns import ColumnPlan, UnusableListError, origins_of, rounded
from hyperdpo.data.compression import DamagedDataError, Source, open_source, plain_name
from hyperdpo.data.groups import abridged
from hyperdpo.data.letor_errors import quoted
from hyperdpo.data.qids import as_given
from hyperdpo.data.storage import GroupIndex, TableWriter
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

Progress = Callable[[int, int], None]

#: Bytes of CSV text parsed at a time; the types of its columns are guessed from the first so many.
BLOCK_BYTES = 4 << 20

#: What may stand between the columns of CSV.
SEPARATORS = (",", ";", "\t", "|")

_BATCH_VALUES = 1 << 20  # values of Parquet converted at a time
_ROW_IN_MESSAGE = re.compile(r"Row #(\d+): *(.*)", re.DOTALL)
_UNCONVERTIBLE = re.compile(r"In CSV column #(\d+): .*conversion error", re.DOTALL)


class _File(Protocol):
    """A file of one format."""

    path: Path

    def schema(self) -> pa.Schema: ...

    def batches(self, columns: Sequence[str], progress: Progress | None) -> Iterator[pa.RecordBatch]: ...

    def place(self, row: int) -> str:
        """The file and the line, or row, of a zero-based row."""

    def found(self, row: int, column: str, value: Any) -> str:
        """What stands there."""


def convert_parquet(
    path: Path, directory: Path, *, qid_column: str = "qid", sort: bool = False, progress: Progress | None = None
) -> str:
    """Read a Parquet file into the files of a table (see `hyperdpo.data.storage`).

    Args:
        path: the file.
        directory: an existing, empty directory.
        qid_column: integers, whole floats or texts.
        sort: bring rows of one group together; without it, equal query ids have to stand in adjacent rows.
        progress: called with (bytes done, bytes in all), in proportion to the rows.

    Returns:
        The fingerprint of the content.

    Raises:
        InputError: not a Parquet file, no such column, no rows, no query id, an infinite value, a group in two places.
    """
    import pyarrow as pa

    try:
        return _convert(_ParquetFile(path, qid_column), directory, qid_column, sort, progress)
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
    sort: bool = False,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> str:
    """Read CSV with a header line, perhaps compressed, into the files of a table.

    The separator is found in the header line. With ``;`` numbers may have decimal commas. Arguments, result and errors
    as for :func:`convert_parquet`; errors name the line. Values with line breaks in quotes are not supported.
    """
    import pyarrow as pa

    file = _CsvFile(path, qid_column, block_bytes)
    try:
        return _convert(file, directory, qid_column, sort, progress)
    except DamagedDataError as error:
        raise InputError(f"{path}: {error}; expected a whole compressed file") from None
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, UnicodeDecodeError) as error:
        raise file.explained(error) from None


@dataclass(frozen=True)
class _Settings:
    """What earlier passes over the file have shown."""

    left_out: dict[str, str] = field(default_factory=dict)
    origins: dict[str, float] = field(default_factory=dict)


def _convert(file: _File, directory: Path, qid_column: str, sort: bool, progress: Progress | None) -> str:
    """As many passes as it takes."""
    settings = _Settings()
    while True:
        plan = ColumnPlan.of(file.schema(), qid_column, settings.left_out)
        try:
            with TableWriter(directory) as writer:
                conversion = _Conversion(file, plan, qid_column, settings.origins, writer, sort)
                for batch in file.batches([qid_column, *plan.sources], progress):
                    conversion.take(batch)
                conversion.check_groups()
                if not settings.origins and (origins := _origins(file, plan)):
                    settings = replace(settings, origins=origins)
                    continue
                return conversion.finish()
        except UnusableListError as error:
            settings = replace(settings, left_out={**settings.left_out, error.name: error.reason})
        except _AsTextError:
            continue


def _origins(file: _File, plan: ColumnPlan) -> dict[str, float]:
    """Origins of the columns that need one, read once more for it."""
    wanted = [plan.columns[j] for j in plan.origin_candidates()]
    if not wanted:
        return {}
    sources = [name for name in plan.sources if name in wanted or any(w.startswith(f"{name}[") for w in wanted)]
    kept: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    fresh = ColumnPlan(
        [name for name in plan.numbers if name in sources],
        {name: length for name, length in plan.lists.items() if name in sources},
        {},
        {},
    )
    for batch in file.batches(sources, None):
        values = fresh.take(batch, 0)
        for j, name in enumerate(fresh.columns):
            if name in kept:
                kept[name].append(values[:, j].copy())
    return origins_of({name: np.concatenate(parts) for name, parts in kept.items()})


class _Conversion:
    """Turns record batches into rows and groups, whatever file they come from."""

    def __init__(
        self,
        file: _File,
        plan: ColumnPlan,
        qid_column: str,
        origins: dict[str, float],
        writer: TableWriter,
        sort: bool,
    ) -> None:
        names = file.schema().names
        path = file.path
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}: column {twice!r} occurs twice; expected distinct names")
        if qid_column not in names:
            raise InputError(f"{path}: no column {qid_column!r} with the query id; the columns are {abridged(names)}")
        self._file, self._plan, self._qid_column = file, plan, qid_column
        self._origins, self._writer, self._sort = origins, writer, sort
        self._groups = GroupIndex()
        self._rows = 0
        self._check_qid_type(file.schema().field(qid_column).type)

    def _check_qid_type(self, kind: pa.DataType) -> None:
        import pyarrow as pa

        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
        self._qid_is_text = any(check(kind) for check in text)
        if not self._qid_is_text and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise InputError(
                f"{self._file.path}: column {self._qid_column!r} is {kind}; expected integer or string query ids"
            )

    def take(self, batch: pa.RecordBatch) -> None:
        """Add the rows of one batch."""
        import pyarrow as pa
        import pyarrow.compute as pc

        first = self._rows
        values = self._plan.take(batch, first)
        names = self._plan.columns
        rows = rounded(values, names, self._origins)
        infinite = np.isinf(rows)
        bad = np.flatnonzero(infinite.any(axis=1))
        bad_row = int(bad[0]) if len(bad) else batch.num_rows

        qids = batch.column(self._qid_column)
        if pa.types.is_dictionary(qids.type):
            qids = qids.dictionary_decode()
        null_row = int(pc.index(qids.is_null(), True).as_py()) if qids.null_count else batch.num_rows
        usable = min(bad_row, null_row)
        if usable:
            self._add_groups(qids.slice(0, usable), first)
        if usable < batch.num_rows or self._groups.due():
            self.check_groups()
        if usable < batch.num_rows:
            row = first + usable
            if null_row == usable:
                name, found, expected = self._qid_column, self._file.found(row, self._qid_column, None), "a query id"
            else:
                name = names[int(np.flatnonzero(infinite[usable])[0])]
                source = batch.column(name)[usable].as_py() if name in batch.schema.names else rows[usable].max()
                found, expected = self._file.found(row, name, source), "a finite number (of 32 bits)"
            raise InputError(f"{self._file.place(row)}: column {name!r} is {found}; expected {expected}")
        self._rows += batch.num_rows
        if names:
            self._writer.append(rows)

    def _add_groups(self, qids: pa.Array, first: int) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_floating(qids.type):
            values = qids.to_numpy(zero_copy_only=False).astype(np.float64)
            wrong = np.flatnonzero(~(np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**53)))
            if len(wrong):
                row = int(wrong[0])
                raise InputError(
                    f"{self._file.place(first + row)}: query id {values[row]:g} in column {self._qid_column!r}; "
                    "expected whole numbers or texts"
                )
            qids = pa.array(values.astype(np.int64))
        runs = pc.run_end_encode(qids.cast(pa.string()) if self._qid_is_text else qids)
        names = runs.values.to_numpy(zero_copy_only=False)
        starts = first + np.append(0, runs.run_ends.to_numpy(zero_copy_only=False)[:-1]).astype(np.int64)
        if names.dtype == object:
            names = names.astype(str)
        elif names.dtype != np.uint64:
            names = names.astype(np.int64)
        self._groups.append(names, starts, starts)

    def finish(self) -> str:
        """Complete the table and return its fingerprint."""
        if self._rows == 0:
            raise InputError(f"{self._file.path}: no rows; expected at least one")
        if isinstance(self._file, _CsvFile):
            self._groups.rename(as_given)
        plan, doubtful = self._plan, {}
        for name, text in plan.texts.items():
            if text.doubtful and text.odd is not None:
                doubtful[name] = f"{self._file.place(text.odd[0])}: {text.problem(name)}"
        if not plan.columns:
            names = abridged(self._file.schema().names)
            missing = f"{self._file.path}: no numeric column beside {self._qid_column!r}; the columns are {names}"
            raise InputError(next(iter(doubtful.values()), missing))
        prefix = f"{self._file.path}:"
        return self._writer.finish(
            plan.columns,
            self._groups,
            left_out=plan.reasons(),
            doubtful={name: message.removeprefix(prefix) for name, message in doubtful.items()},
            origins=self._origins,
            notes=plan.notes(),
            sort=self._sort,
        )

    def check_groups(self) -> None:
        """Refuse a group in two places, unless rows are sorted."""
        split = None if self._sort else self._groups.split()
        if split is not None:
            qid, again, first = split
            there = self._file.place(first).removeprefix(f"{self._file.path}:")
            raise InputError(
                f"{self._file.place(again)}: query id {qid} begins again, first seen in {there}; "
                "expected the rows of a query in adjacent rows (--sort brings them together)"
            )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


class _ParquetFile:
    def __init__(self, path: Path, qid_column: str) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self._qid_column = qid_column
        with pq.ParquetFile(path) as file:
            self._schema, self._rows = file.schema_arrow, file.metadata.num_rows
        self._total = path.stat().st_size

    def schema(self) -> pa.Schema:
        return self._schema

    def batches(self, columns: Sequence[str], progress: Progress | None) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        done = 0
        batch_rows = max(1, min(65_536, _BATCH_VALUES // (1 + len(columns))))
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=batch_rows, columns=list(columns)):
                yield batch
                done += batch.num_rows
                if progress is not None:
                    progress(self._total * done // max(1, self._rows), self._total)

    def place(self, row: int) -> str:
        return f"{self.path}:row {row + 1}"

    def found(self, row: int, column: str, value: Any) -> str:
        return "null" if value is None else repr(value)


class _AsTextError(Exception):
    """A CSV column turned out to hold text: read it as text in the next pass."""


class _CsvFile:
    """A CSV file. pyarrow counts rows without blank lines, so the file is read again to find a line."""

    def __init__(self, path: Path, qid_column: str, block_bytes: int) -> None:
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
                raise _AsTextError from None

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
        fields = {separator: next(csv.reader([first], delimiter=separator), []) for separator in SEPARATORS}
        order = sorted(SEPARATORS, key=lambda s: (self._qid_column not in fields[s], -len(fields[s])))
        self._separator = "\t" if plain_name(self.path).endswith(".tsv") else order[0]
        guesses = []
        for decimal in (".", ",") if self._separator == ";" else (".",):
            self._decimal = decimal
            with open_source(self.path) as source:
                guesses.append((decimal, self._open(source, None).schema))
        numeric = [sum(pa.types.is_floating(kind) for kind in schema.types) for _, schema in guesses]
        self._decimal, guessed = guesses[int(np.argmax(numeric))]
        self._types = {
            name: _csv_type(kind, name == self._qid_column)
            for name, kind in zip(guessed.names, guessed.types, strict=True)
        }
        self._header = list(guessed.names)

    def place(self, row: int) -> str:
        return f"{self.path}:{self._line(row + 1)[0]}"

    def found(self, row: int, column: str, value: Any) -> str:
        if value is not None:
            return repr(value)
        header, fields = (next(csv.reader([self._line(i)[1]], delimiter=self._separator)) for i in (0, row + 1))
        text = fields[header.index(column)]
        return quoted(text.encode()) if text.strip() else "empty"

    def explained(self, error: Exception) -> InputError:
        """The message for an error of pyarrow, whose ``Row #n`` counts the header as row 1."""
        text = _one_line(error)
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


def _csv_type(guessed: pa.DataType, is_qid: bool) -> pa.DataType:
    """The type to hold all blocks to: the first may show whole numbers where a later one has fractions."""
    import pyarrow as pa

    if is_qid:
        return pa.string()  # 007 is not 7
    if pa.types.is_integer(guessed) or pa.types.is_floating(guessed) or pa.types.is_null(guessed):
        return pa.float64()
    return guessed if pa.types.is_boolean(guessed) or pa.types.is_temporal(guessed) else pa.string()
