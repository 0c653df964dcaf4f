"""LETOR text (MSLR, SVMlight with query ids): ``LABEL qid:ID FEATURE:VALUE ... # comment``, one row a line.

Rows may be dense or sparse (an absent feature is 0), their features in any order. Blank lines, lines that hold a
comment only, tabs and repeated spaces are fine; so are Windows line endings, a byte order mark, and a last line without
a newline. Feature numbers go from 1, or from 0 where the caller says so, up to 65,536. A query id is any text
without blanks. A value of ``nan``, or of 1e308 and more, counts as missing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from hyperdpo.data.columns import MISSING_FROM
from hyperdpo.data.compression import open_source
from hyperdpo.data.groups import RELEVANCE
from hyperdpo.data.letor_blocks import BLOCK_BYTES, BadLineError, LetorBlocks, ParsedRows
from hyperdpo.data.letor_errors import BYTE_ORDER_MARK, ROW_FORM
from hyperdpo.data.letor_origins import subtract_origins
from hyperdpo.data.qids import as_written
from hyperdpo.data.storage import GroupIndex, TableWriter
from hyperdpo.errors import InputError
from hyperdpo.threads import available_cores


def convert_letor(
    path: Path,
    directory: Path,
    *,
    sort: bool = False,
    features_from_zero: bool = False,
    origins: Mapping[str, float] | None = None,
    threads: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Read a LETOR file, perhaps compressed, into the files of a table (see `hyperdpo.data.storage`).

    The columns are `relevance`, `1`, ..., `F`, with F the highest feature number in the file; with
    `features_from_zero` `relevance`, `0`, ..., `F`. A value becomes ``float32(float(text))``, less the column's origin
    where 32 bits would make different large numbers equal. Query ids are int64, else uint64, where all of them are
    such numbers in their shortest form, else text.

    Args:
        directory: an existing, empty directory.
        path, sort, features_from_zero, origins, progress: as of :func:`hyperdpo.data.cache.read_table`.
        threads: parsing threads; as many as there are processors, at most 8, if None.
        block_bytes: how much is read at a time. The result does not depend on it, nor on `threads`.

    Returns:
        The fingerprint of the content.

    Raises:
        InputError: the file cannot be opened, or a line is malformed; the first such line is named.
    """
    blocks = LetorBlocks(
        path,
        shift=int(features_from_zero),
        threads=threads or min(8, available_cores()),
        block_bytes=block_bytes,
        progress=progress,
    )
    try:
        with TableWriter(directory) as writer:
            return _Conversion(blocks, writer, sort).run(origins)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if error.filename is not None and Path(error.filename) == path:
            raise InputError(f"{path}: {error.strerror}; expected a readable file of {ROW_FORM}") from None
        raise


def line_of_row(path: Path, row: int) -> int:
    """The one-based line at which a zero-based row stands.

    Raises:
        InputError: the file has fewer rows.
    """
    left = row
    with open_source(path) as source, io.BufferedReader(source, 1 << 20) as lines:
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            if text.split(b"#", 1)[0].strip(b" \t\r\n"):
                if left == 0:
                    return number
                left -= 1
    raise InputError(f"{path}: no row {row}; expected the file that was read before")


class _Conversion:
    """Collects the rows of a file in a table."""

    def __init__(self, blocks: LetorBlocks, writer: TableWriter, sort: bool) -> None:
        from hyperdpo.data import letor_kernel

        self._kernel = letor_kernel
        self._blocks, self._writer, self._sort = blocks, writer, sort
        self._groups = GroupIndex()
        self._flags = 0
        self._missing = np.zeros(0, dtype=np.int64)  # values of each column that count as missing

    def run(self, known: Mapping[str, float] | None) -> str:
        try:
            for parsed in self._blocks:
                self._take(parsed)
            if self._writer.num_rows == 0:
                raise BadLineError(
                    max(self._blocks.lines, 1), f"no rows up to the end of the file; expected {ROW_FORM}"
                )
            self._check_split()
        except BadLineError as error:
            self._check_split()
            raise InputError(f"{self._blocks.path}:{error.line}: {error.message}") from None
        first = 1 - self._blocks.shift
        columns = [RELEVANCE, *map(str, range(first, first + self._writer.width - 1))]
        given = None
        if known is not None:
            given = {columns.index(name): origin for name, origin in known.items() if name in columns[1:]}
        found = subtract_origins(self._blocks, self._writer, given, large=bool(self._flags & self._kernel.LARGE))
        if self._groups.names().dtype.kind == "U":
            self._groups.rename(as_written)
        origins = {columns[k]: origin for k, origin in found.items()}
        notes = self._notes(columns)
        return self._writer.finish(columns, self._groups, origins=origins, notes=notes, sort=self._sort)

    def _take(self, parsed: ParsedRows) -> None:
        starts, lines = parsed.groups[:, 0], parsed.groups[:, 1]
        self._groups.append(parsed.names, starts + self._writer.num_rows, lines + 1)
        if self._groups.due():
            self._check_split()
        self._writer.append(parsed.rows)
        self._flags |= parsed.flags
        if parsed.flags & (self._kernel.NAN | self._kernel.OVERSIZED):
            counts = np.isnan(parsed.rows).sum(axis=0)
            counts[: len(self._missing)] += self._missing[: len(counts)]
            self._missing = np.append(counts, self._missing[len(counts) :])

    def _check_split(self) -> None:
        split = None if self._sort else self._groups.split()
        if split is not None:
            qid, again, first = split
            raise InputError(
                f"{self._blocks.path}:{again}: query id {qid!r} begins again, first seen in line {first}; "
                "expected the rows of a query in adjacent lines (--sort brings them together)"
            )

    def _notes(self, columns: list[str]) -> list[str]:
        if not self._missing.any():
            return []
        kinds = [f"of {MISSING_FROM:g} and more"] if self._flags & self._kernel.OVERSIZED else []
        kinds += ["nan"] if self._flags & self._kernel.NAN else []
        found = ", ".join(f"{self._missing[k]:,} in {columns[k]}" for k in np.flatnonzero(self._missing))
        return [f"values {' or '.join(kinds)} count as missing: {found}"]
