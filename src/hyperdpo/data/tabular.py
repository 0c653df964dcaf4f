"""Parquet and CSV: one column names the group, the columns of numbers become float32.

:mod:`hyperdpo.data.columns` says which columns those are; the table remembers the others with the reason. Files are
read in batches with pyarrow, once as a rule. They are read again where a later row shows that a column is not what it
seemed, or where a column of large numbers needs an origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hyperdpo.data.columns import ColumnPlan, UnusableColumnError, origins_of, rounded
from hyperdpo.data.compression import DamagedDataError
from hyperdpo.data.groups import abridged
from hyperdpo.data.qids import as_given
from hyperdpo.data.storage import GroupIndex, TableWriter
from hyperdpo.data.table_files import BLOCK_BYTES, AsTextError, CsvFile, ParquetFile, Progress, TableFile
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


def convert_table(
    path: Path,
    directory: Path,
    *,
    qid_column: str = "qid",
    sort: bool = False,
    origins: Mapping[str, float] | None = None,
    rows: range | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Progress | None = None,
) -> str:
    """Read a Parquet or CSV file into the files of a table (see `hyperdpo.data.storage`).

    CSV has a header line, in which the separator is found, and may be compressed. With ``;`` numbers may have decimal
    commas. Values with line breaks in quotes are not supported.

    Args:
        directory: an existing, empty directory.
        qid_column: integers, whole floats or texts.
        path, sort, origins, progress: as of :func:`hyperdpo.data.cache.read_table`. Of Parquet, progress is in
            proportion to the rows.
        rows: of Parquet, those that are read, from 0; None: all of them.
        block_bytes: of CSV, parsed at a time.

    Returns:
        The fingerprint of the content.

    Raises:
        InputError: not such a file, no such column, no rows, no query id, an infinite value, a group in two places.
    """
    parquet = path.name.lower().endswith(".parquet")
    file: TableFile = ParquetFile(path, rows) if parquet else CsvFile(path, qid_column, block_bytes)
    with _explained(file):
        return _convert(file, directory, qid_column, sort, origins, progress)


def parquet_groups(path: Path, *, qid_column: str = "qid", sort: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Where the groups of a Parquet file begin, from its column of query ids alone.

    Args:
        qid_column, sort: as of :func:`convert_table`. With ``sort``, a group may be there several times.

    Returns:
        (G,) names, int64, uint64 or str, and (G + 1,) int64 offsets, in the order of the file.

    Raises:
        InputError: not such a file, no such column, no query id, a group in two places.
    """
    file = ParquetFile(path)
    with _explained(file):
        conversion = _Conversion(file, ColumnPlan([], {}, {}, {}), qid_column, {}, None, sort)
        for batch in file.batches([qid_column], None):
            conversion.take(batch)
        conversion.check_groups()
        return conversion.groups()


@contextmanager
def _explained(file: TableFile) -> Iterator[None]:
    """Turn the errors of whatever read the file into a message."""
    import pyarrow as pa

    wrong = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, UnicodeDecodeError, DamagedDataError)
    try:
        yield
    except wrong as error:
        raise file.explained(error) from None
    except OSError as error:
        if error.errno is not None or not isinstance(file, ParquetFile):
            raise
        raise file.explained(error) from None  # pyarrow: damaged


@dataclass(frozen=True)
class _Settings:
    """What earlier passes over the file have shown."""

    origins: dict[str, float]
    left_out: dict[str, str] = field(default_factory=dict)
    looked: bool = False
    """Whether columns were looked at for origins."""


def _convert(
    file: TableFile,
    directory: Path,
    qid_column: str,
    sort: bool,
    origins: Mapping[str, float] | None,
    progress: Progress | None,
) -> str:
    """As many passes as it takes."""
    settings = _Settings(dict(origins or {}), looked=origins is not None)
    while True:
        plan = ColumnPlan.of(file.schema(), qid_column, settings.left_out)
        try:
            with TableWriter(directory) as writer:
                conversion = _Conversion(file, plan, qid_column, settings.origins, writer, sort)
                for batch in file.batches([qid_column, *plan.sources], progress):
                    conversion.take(batch)
                conversion.check_groups()
                if not settings.looked:
                    settings = replace(settings, origins=_origins(file, plan), looked=True)
                    if settings.origins:
                        continue
                return conversion.finish()
        except UnusableColumnError as error:
            settings = replace(settings, left_out={**settings.left_out, error.name: error.reason})
        except AsTextError:
            continue


def _origins(file: TableFile, plan: ColumnPlan) -> dict[str, float]:
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
        file: TableFile,
        plan: ColumnPlan,
        qid_column: str,
        origins: dict[str, float],
        writer: TableWriter | None,
        sort: bool,
    ) -> None:
        names = file.schema().names
        path = file.path
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{path}: column {twice!r} occurs twice; expected distinct names")
        if qid_column not in names:
            raise InputError(
                f"{path}: no column {qid_column!r} with the query id; rename one, or name it as qid_column in the "
                f"configuration file; the columns are {abridged(names)}"
            )
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
        if names and self._writer is not None:
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
        if isinstance(self._file, CsvFile):
            self._groups.rename(as_given)
        plan, doubtful = self._plan, {}
        for name, text in plan.texts.items():
            if text.doubtful:
                problem = text.problem(name, "or the column in excluded_columns")
                doubtful[name] = f"{self._file.place(text.row)}: {problem}"
        if not plan.columns:
            names = abridged(self._file.schema().names)
            missing = f"{self._file.path}: no numeric column beside {self._qid_column!r}; the columns are {names}"
            raise InputError(next(iter(doubtful.values()), missing))
        prefix = f"{self._file.path}:"
        assert self._writer is not None
        return self._writer.finish(
            plan.columns,
            self._groups,
            left_out=plan.reasons(),
            doubtful={name: message.removeprefix(prefix) for name, message in doubtful.items()},
            numbering=plan.numbering(),
            origins={name: origin for name, origin in self._origins.items() if name in plan.columns},
            notes=plan.notes(),
            sort=self._sort,
        )

    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        """(G,) names and (G + 1,) offsets of the groups so far."""
        return self._groups.names(), self._groups.offsets(self._rows)

    def check_groups(self) -> None:
        """Refuse a group in two places, unless rows are sorted."""
        split = None if self._sort else self._groups.split()
        if split is not None:
            qid, again, first = split
            there = self._file.place(first).removeprefix(f"{self._file.path}:")
            there = f"line {there}" if there.isdecimal() else there
            raise InputError(
                f"{self._file.place(again)}: query id {qid} begins again, first seen in {there}; "
                "expected the rows of a query in adjacent rows (--sort brings them together)"
            )
