"""LETOR text (MSLR, SVMlight with query ids): ``LABEL qid:ID FEATURE:VALUE ... # comment``, one row a line.

Rows may be dense or sparse (an absent feature is 0). Blank lines, lines that hold a comment only, tabs and repeated
spaces are fine, and so is a last line without a newline. Feature numbers are one-based and increasing, up to
`MAX_FEATURE`.

The file streams through a few buffers: one thread reads, hashes and writes, others parse, all without Python's lock.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hyperdpo.data.groups import RELEVANCE
from hyperdpo.data.letor_errors import ROW_FORM, diagnose, quoted, too_long
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
    threads: int | None = None,
    block_bytes: int = BLOCK_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Read a LETOR file, plain or ``.gz``, into the files of a table (see `hyperdpo.data.storage`).

    The columns are `relevance`, `1`, ..., `F`, with F the highest feature number in the file. A value becomes
    ``float32(float(text))``.

    Args:
        path: the text.
        directory: an existing, empty directory.
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
        with open(path, "rb", buffering=0) as file, TableWriter(directory) as writer:
            source = _GzipSource(file) if path.suffix.lower() == ".gz" else _PlainSource(file)
            reading = _Reading(str(path), source, writer, threads, block_bytes, progress)
            return reading.run()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if error.filename is not None and Path(error.filename) == path:
            raise InputError(f"{path}: {error.strerror}; expected a readable file of {ROW_FORM}") from None
        raise


class _PlainSource:
    """An uncompressed file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.total = os.fstat(file.fileno()).st_size

    def readinto(self, view: memoryview) -> int:
        return self._file.readinto(view)  # type: ignore[attr-defined]

    def position(self) -> int:
        return self._file.tell()


class _GzipSource(_PlainSource):
    """A gzip file. A damaged one gives all bytes before the damage, then raises."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._text = gzip.GzipFile(fileobj=file, mode="rb")
        self._error: Exception | None = None

    def readinto(self, view: memoryview) -> int:
        filled = 0
        while filled < len(view) and self._error is None:
            try:
                piece = self._text.read1(min(len(view) - filled, 1 << 18))
            except (OSError, EOFError, zlib.error) as error:
                self._error = error
                break
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled == 0 and self._error is not None:
            raise self._error
        return filled


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
        self.groups = np.empty((most_rows, 3), dtype=np.int64)
        self.undecided = np.empty((max_undecided + 1 + MAX_FEATURE, 3), dtype=np.int64)


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
    """(k, 3) int64: qid, row, line, counted from the block's start."""


class _Reading:
    """One pass over one file."""

    def __init__(
        self,
        name: str,
        source: _PlainSource,
        writer: TableWriter,
        threads: int,
        block_bytes: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        from hyperdpo.data import letor_kernel  # imports numba: only when there is something to read

        self._kernel = letor_kernel
        self._name = name
        self._source = source
        self._writer = writer
        self._threads = threads
        self._block_bytes = block_bytes
        self._progress = progress
        self._groups = GroupIndex()
        self._lines = 0
        self._width = 0, letor_kernel.feature_patterns(0)
        self._trouble: tuple[int, str] | None = None  # (line behind the last whole one, message), found by `_blocks`
        self._free = deque(  # one in each thread, one being read, one being written
            _Block(block_bytes, letor_kernel.PADDING, letor_kernel.MAX_UNDECIDED) for _ in range(threads + 2)
        )

    def run(self) -> str:
        pending: deque[Future[_Parsed]] = deque()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="letor") as pool:
            try:
                for block in self._blocks():
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
        columns = [RELEVANCE, *(str(k) for k in range(1, self._writer.width))]
        return self._writer.finish(columns, self._groups)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _blocks(self) -> Iterator[_Block]:
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
                    count = self._source.readinto(view[filled : filled + self._block_bytes])
                except (OSError, EOFError, zlib.error) as error:
                    self._trouble = 0, f"{_reason(error)}; expected more data or its proper end"
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
                    self._guess_width(block, min(block.stop, _GUESS_BYTES))
                    first = False
                yield block
            if self._progress is not None:
                self._progress(self._source.position(), self._source.total)
            if ended:
                return

    # -- parsing (in threads) --------------------------------------------------------------------------------------

    def _parse(self, block: _Block) -> _Parsed:
        width, patterns = self._width  # one read: the main thread may replace the pair meanwhile
        values, groups, undecided = block.values, block.groups, block.undecided
        max_rows = min(len(values) // (1 + width), len(groups))
        state, position, lines, num_rows, num_groups, num_undecided = self._kernel.parse_block(
            block.text, block.start, block.stop, values, width, max_rows, groups, undecided, patterns,
            self._kernel.POWERS, MAX_LINE, MAX_FEATURE,
        )  # fmt: skip
        rows = values[: num_rows * (1 + width)].reshape(num_rows, 1 + width)
        parsed = _Parsed(block, state, int(position), lines, rows, groups[:num_groups])
        for row, column, at in undecided[:num_undecided].tolist():
            if row < num_rows and not self._decide(parsed, row, column, at):
                break
        return parsed

    def _decide(self, parsed: _Parsed, row: int, column: int, at: int) -> bool:
        """Round one value exactly; if it overflows, make its line the bad one."""
        block = parsed.block
        found = _NUMBER_TEXT.match(block.buffer, at)
        assert found is not None
        with np.errstate(over="ignore"):
            value = np.float32(float(found[0]))
        parsed.rows[row, column] = value
        if not np.isinf(value):
            return True
        parsed.position = block.buffer.rfind(b"\n", block.start, at) + 1 or block.start
        parsed.state = self._kernel.BAD
        parsed.lines = block.buffer.count(b"\n", block.start, at)
        parsed.rows = parsed.rows[:row]
        parsed.groups = parsed.groups[parsed.groups[:, 1] < row]
        return False

    # -- collecting, in order --------------------------------------------------------------------------------------

    def _take(self, parsed: _Parsed) -> None:
        """Store a block's rows, parsing again from where the parser stopped before the block's end."""
        block = parsed.block
        while True:
            qids, rows, lines = parsed.groups.T
            self._groups.append(qids, rows + self._writer.num_rows, lines + self._lines + 1)
            self._writer.append(parsed.rows)
            self._lines += parsed.lines
            if parsed.state == self._kernel.BAD:
                self._check_split()
                line = bytes(block.buffer[parsed.position : block.buffer.index(b"\n", parsed.position)])
                self._fail(1, diagnose(line, self._lines == 0, MAX_LINE, MAX_FEATURE))
            if parsed.state == self._kernel.DONE:
                break
            block.start = parsed.position
            if parsed.state == self._kernel.WIDER:
                self._guess_width(block, block.stop)
            parsed = self._parse(block)
        if self._groups.due():
            self._check_split()
        self._free.append(block)

    def _guess_width(self, block: _Block, stop: int) -> None:
        """Be ready for the highest feature number up to `stop`; a row with a higher one comes back as WIDER."""
        widest = int(self._kernel.widest_feature(block.text, block.start, stop, MAX_FEATURE))
        width = max(widest, self._width[0])
        self._width = width, self._kernel.feature_patterns(width)

    def _check_split(self) -> None:
        split = self._groups.split()
        if split is not None:
            qid, again, first = split
            raise InputError(
                f"{self._name}:{again}: query id {qid} begins again, first seen in line {first}; "
                "expected the rows of a query in adjacent lines"
            )

    def _fail(self, ahead: int, message: str) -> None:
        raise InputError(f"{self._name}:{max(self._lines + ahead, 1)}: {message}")


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "the gzip data end too early, at or after this line"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"damaged or no gzip data, at or after this line ({quoted(str(error).encode(), 60)})"
    return f"cannot be read any further ({error})"


def _available_processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
