"""LETOR text (MSLR, SVMlight with query ids): ``LABEL qid:ID FEATURE:VALUE ... # comment``, one row a line.

Rows may be dense or sparse (an absent feature is 0), their features in any order. Blank lines, lines that hold a
comment only, tabs and repeated spaces are fine; so are Windows line endings, a byte order mark, and a last line without
a newline. Feature numbers go from 1, or from 0 where the caller says so, up to `MAX_FEATURE`. A query id is any text
without blanks. A value of ``nan``, or of 1e308 and more, counts as missing.

The file streams through a few buffers: one thread reads, hashes and writes, others parse, all without Python's lock.
"""

from __future__ import annotations

import io
import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hyperdpo.data.columns import MISSING_FROM
from hyperdpo.data.compression import DamagedDataError, Source, open_source
from hyperdpo.data.groups import RELEVANCE
from hyperdpo.data.letor_errors import BYTE_ORDER_MARK, ROW_FORM, diagnose, too_long
from hyperdpo.data.letor_origins import subtract_origins, suspicious_columns
from hyperdpo.data.qids import as_given
from hyperdpo.data.storage import GroupIndex, TableWriter
from hyperdpo.errors import InputError

#: Highest feature number. Rows are stored dense: at this width a row takes 256 KiB.
MAX_FEATURE = 65_536

#: Longest line, in bytes.
MAX_LINE = 1 << 20

#: Small enough for the text and its values to stay in the processor's cache between the threads, large enough for
#: Python's part to vanish. Measured on 2 cores: 256 KiB to 4 MiB are alike, 16 MiB is a quarter slower.
BLOCK_BYTES = 2 << 20

# Parsed values that wait to be written, per thread; room for 16 of the widest rows.
_MIN_VALUES_BYTES = 4 << 20

# How much text the first guess of the number of features looks at.
_GUESS_BYTES = 512 << 10

_NUMBER_TEXT = re.compile(rb"[-+.0-9eE]+")


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
        path: the text.
        directory: an existing, empty directory.
        sort: bring the rows of a query together; without it, they must stand in adjacent lines.
        features_from_zero: whether the lowest feature number is 0.
        origins: to subtract from columns of these names, and from no others; None: every column gets an origin where it
            needs one.
        threads: parsing threads; as many as there are processors, at most 8, if None.
        block_bytes: how much is read at a time. The result does not depend on it, nor on `threads`.
        progress: called with (bytes done, bytes in all) after each block; compressed bytes of a compressed file.

    Returns:
        The fingerprint of the content.

    Raises:
        InputError: the file cannot be opened, or a line is malformed; the first such line is named.
    """
    threads = threads or min(8, _available_processors())
    try:
        with TableWriter(directory) as writer:
            shift = int(features_from_zero)
            return _Reading(path, writer, sort, shift, threads, block_bytes, progress).run(origins)
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


class _Block:
    """Whole lines of text, ``text[start:stop]``, and room for what they say. Used again and again.

    Untouched parts of these arrays take no memory, so they are as large as the worst case.
    """

    def __init__(self, block_bytes: int, padding: int, max_undecided: int) -> None:
        self.buffer = bytearray(MAX_LINE + block_bytes + 1 + padding)  # a line that began before, and a block
        self.text = np.frombuffer(self.buffer, dtype=np.uint8)
        self.start = self.stop = 0
        self.values = np.empty(max(block_bytes, _MIN_VALUES_BYTES) // 4, dtype=np.float32)
        most_rows = min(len(self.buffer) // 7 + 1, len(self.values))  # a row has at least "0 qid:1" and a newline
        self.groups = np.empty((most_rows, 4), dtype=np.int64)
        self.undecided = np.empty((max_undecided + 2 + MAX_FEATURE, 3), dtype=np.int64)
        self.seen = np.empty(MAX_FEATURE + 2, dtype=np.int64)


@dataclass
class _Parsed:
    """What one call of the parser gave."""

    block: _Block
    state: int
    position: int
    lines: int
    rows: np.ndarray
    """(n, 1 + F) float32."""
    groups: np.ndarray
    """(k, 4) int64: qid, row, line, 0; or an id's place in the text, row, line, length. Counted in the block."""
    flags: int
    names: np.ndarray
    """(k,) int64 or str, the query ids."""


class _Reading:
    """One pass over one file."""

    def __init__(
        self,
        path: Path,
        writer: TableWriter,
        sort: bool,
        shift: int,
        threads: int,
        block_bytes: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        from hyperdpo.data import letor_kernel  # imports numba: only when there is something to read

        self._kernel = letor_kernel
        self._path = path
        self._writer = writer
        self._sort = sort
        self._shift = shift
        self._threads = threads
        self._block_bytes = block_bytes
        self._progress = progress
        self._groups = GroupIndex()
        self._lines = 0
        self._flags = 0
        self._missing = np.zeros(0, dtype=np.int64)  # values of each column that count as missing
        self._width = shift, letor_kernel.feature_patterns(shift, shift)
        self._trouble: tuple[int, str] | None = None  # (line behind the last whole one, message), found by `_blocks`
        self._free = deque(  # one in each thread, one being read, one being written
            _Block(block_bytes, letor_kernel.PADDING, letor_kernel.MAX_UNDECIDED) for _ in range(threads + 2)
        )

    def run(self, known: Mapping[str, float] | None) -> str:
        pending: deque[Future[_Parsed]] = deque()
        with open_source(self._path) as source, ThreadPoolExecutor(self._threads, "letor") as pool:
            try:
                for block in self._blocks(source):
                    pending.append(pool.submit(self._parse, block))
                    if not self._free:
                        self._take(pending.popleft().result())
                while pending:
                    self._take(pending.popleft().result())
            finally:
                for future in pending:
                    future.cancel()
        self._check_split()
        if self._trouble is not None:
            self._fail(*self._trouble)
        if self._writer.num_rows == 0:
            self._fail(0, f"no rows up to the end of the file; expected {ROW_FORM}")
        columns = [RELEVANCE, *(str(k - self._shift) for k in range(1, self._writer.width))]
        large = known is None and bool(self._flags & self._kernel.LARGE)
        suspects = [] if known is not None else suspicious_columns(self._path, self._writer, self._shift)
        given = {columns.index(name): origin for name, origin in (known or {}).items() if name in columns[1:]}
        origins = {}
        if large or suspects or given:
            found = subtract_origins(
                self._path, self._writer, self._shift, self._block_bytes, suspects, given, large=large
            )
            origins = {columns[k]: origin for k, origin in found.items()}
        if self._groups.names().dtype.kind == "U":
            self._groups.rename(_as_written)
        notes = self._notes(columns)
        return self._writer.finish(columns, self._groups, origins=origins, notes=notes, sort=self._sort)

    def _notes(self, columns: list[str]) -> list[str]:
        if not self._missing.any():
            return []
        kinds = [f"of {MISSING_FROM:g} and more"] if self._flags & self._kernel.OVERSIZED else []
        kinds += ["nan"] if self._flags & self._kernel.NAN else []
        found = ", ".join(f"{self._missing[k]:,} in {columns[k]}" for k in np.flatnonzero(self._missing))
        return [f"values {' or '.join(kinds)} count as missing: {found}"]

    # -- reading ---------------------------------------------------------------------------------------------------

    def _blocks(self, source: Source) -> Iterator[_Block]:
        """Whole lines, in order. What cannot be read is left in `_trouble`, for after the lines before it."""
        carry = b""
        first = True
        while True:
            block = self._free.popleft()
            buffer = block.buffer
            view = memoryview(buffer)
            filled = len(carry)
            view[:filled] = carry
            newline = -1
            ended = False
            while newline < 0 and not ended:
                if filled > MAX_LINE:
                    self._trouble = 1, too_long(bytes(view[:64]), MAX_LINE)
                    return
                try:
                    count = source.readinto(view[filled : filled + self._block_bytes])
                except DamagedDataError as error:
                    self._trouble = 0, f"{error}, at or after this line; expected more data or its proper end"
                    return
                except OSError as error:
                    self._trouble = 0, f"cannot be read any further ({error}); expected more data or its proper end"
                    return
                ended = count == 0
                newline = buffer.rfind(b"\n", filled, filled + count)
                filled += count
            if ended and filled:
                buffer[filled] = 10
                newline = filled
            carry = bytes(view[newline + 1 : filled])
            if newline >= 0:
                block.start, block.stop = 0, newline + 1
                if first:
                    block.start = len(BYTE_ORDER_MARK) if buffer.startswith(BYTE_ORDER_MARK) else 0
                    self._guess_width(block, min(block.stop, _GUESS_BYTES))
                    first = False
                yield block
            if self._progress is not None:
                self._progress(source.position(), source.total)
            if ended:
                return

    # -- parsing (in threads) --------------------------------------------------------------------------------------

    def _parse(self, block: _Block) -> _Parsed:
        width, patterns = self._width  # one read: the main thread may replace the pair meanwhile
        values, groups, undecided = block.values, block.groups, block.undecided
        max_rows = min(len(values) // (1 + width), len(groups))
        state, position, lines, num_rows, num_groups, num_undecided, flags = self._kernel.parse_block(
            block.text, block.start, block.stop, values, width, self._shift, max_rows, groups, undecided, block.seen,
            patterns, self._kernel.POWERS, MAX_LINE, MAX_FEATURE,
        )  # fmt: skip
        rows = values[: num_rows * (1 + width)].reshape(num_rows, 1 + width)
        groups = groups[:num_groups]
        parsed = _Parsed(block, state, int(position), lines, rows, groups, int(flags), groups[:, 0])
        for row, column, at in undecided[:num_undecided].tolist():
            if row < num_rows and not self._decide(parsed, row, column, at):
                break
        if groups[:, 3].any():
            self._name_groups(parsed)
        return parsed

    def _decide(self, parsed: _Parsed, row: int, column: int, at: int) -> bool:
        """Round one value exactly; if it overflows, make its line the bad one."""
        found = _NUMBER_TEXT.match(parsed.block.buffer, at)
        assert found is not None
        with np.errstate(over="ignore"):
            value = np.float32(float(found[0]))
        parsed.rows[row, column] = value
        if not np.isinf(value):
            return True
        self._stop_before(parsed, row, at)
        return False

    def _name_groups(self, parsed: _Parsed) -> None:
        """Query ids as text; one that is not UTF-8 makes its line the bad one."""
        names = []
        for value, row, _, length in parsed.groups.tolist():
            text = parsed.block.buffer[value : value + length] if length else b"%d" % value
            try:
                names.append(text.decode())
            except UnicodeDecodeError:
                self._stop_before(parsed, row, value)
                break
        parsed.names = np.array(names, dtype=str)

    def _stop_before(self, parsed: _Parsed, row: int, at: int) -> None:
        """Keep the rows before `row`, whose line is bad: the text at `at` stands in it."""
        block = parsed.block
        parsed.position = max(block.buffer.rfind(b"\n", block.start, at) + 1, block.start)
        parsed.state = self._kernel.BAD
        parsed.lines = block.buffer.count(b"\n", block.start, at)
        parsed.rows = parsed.rows[:row]
        parsed.groups = parsed.groups[parsed.groups[:, 1] < row]
        parsed.names = parsed.names[: len(parsed.groups)]

    # -- collecting, in order --------------------------------------------------------------------------------------

    def _take(self, parsed: _Parsed) -> None:
        """Store a block's rows, parsing again from where the parser stopped before the block's end."""
        block = parsed.block
        while True:
            _, rows, lines, _ = parsed.groups.T
            self._groups.append(parsed.names, rows + self._writer.num_rows, lines + self._lines + 1)
            self._writer.append(parsed.rows)
            self._flags |= parsed.flags
            if parsed.flags & (self._kernel.OVERSIZED | self._kernel.NAN):
                self._count_missing(parsed.rows)
            self._lines += parsed.lines
            if parsed.state == self._kernel.BAD:
                self._check_split()
                line = bytes(block.buffer[parsed.position : block.buffer.index(b"\n", parsed.position)])
                self._fail(1, diagnose(line, self._lines == 0, MAX_LINE, MAX_FEATURE, self._shift == 1))
            if parsed.state == self._kernel.DONE:
                break
            block.start = parsed.position
            if parsed.state == self._kernel.WIDER:
                self._guess_width(block, block.stop)
            parsed = self._parse(block)
        if self._groups.due():
            self._check_split()
        self._free.append(block)

    def _count_missing(self, rows: np.ndarray) -> None:
        counts = np.isnan(rows).sum(axis=0)
        counts[: len(self._missing)] += self._missing[: len(counts)]
        self._missing = np.append(counts, self._missing[len(counts) :])

    def _guess_width(self, block: _Block, stop: int) -> None:
        """Be ready for the highest feature number up to `stop`; a row with a higher one comes back as WIDER."""
        widest = int(self._kernel.widest_feature(block.text, block.start, stop, MAX_FEATURE))
        width = max(widest + self._shift, self._width[0])
        self._width = width, self._kernel.feature_patterns(width, self._shift)

    def _check_split(self) -> None:
        split = None if self._sort else self._groups.split()
        if split is not None:
            qid, again, first = split
            raise InputError(
                f"{self._path}:{again}: query id {qid!r} begins again, first seen in line {first}; "
                "expected the rows of a query in adjacent lines (--sort brings them together)"
            )

    def _fail(self, ahead: int, message: str) -> None:
        raise InputError(f"{self._path}:{max(self._lines + ahead, 1)}: {message}")


def _as_written(names: np.ndarray) -> np.ndarray:
    """Query ids as numbers where that loses nothing: 64-bit unsigned ones are collected as text."""
    return names if np.strings.find(names, ".").max(initial=-1) >= 0 else as_given(names)


def _available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
