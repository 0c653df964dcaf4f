"""The rows of a LETOR file, block by block in the order of the file.

The file streams through a few buffers: one thread reads, others parse, all without Python's lock.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hyperdpo.data.columns import MISSING_FROM
from hyperdpo.data.compression import DamagedDataError, Source, open_source
from hyperdpo.data.letor_errors import BYTE_ORDER_MARK, MAX_FEATURE, MAX_LINE, diagnose, fits_float32, too_long
from hyperdpo.data.qids import as_written

#: Small enough for the text and its values to stay in the processor's cache between the threads, large enough for
#: Python's part to vanish. Measured on 2 cores: 256 KiB to 4 MiB are alike, 16 MiB is a quarter slower.
BLOCK_BYTES = 2 << 20

# Parsed values of one block: room for 16 of the widest rows.
_MIN_VALUES = 1 << 20

# How much text a guess of the number of features looks at.
_GUESS_BYTES = 64 << 10

_COMMENT = re.compile(rb"#.*")
_FEATURE = re.compile(rb"[ \t]0*([0-9]{1,5}):")


class BadLineError(Exception):
    """The file cannot be read any further: the one-based line, and ``what was found; expected ...``."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line, self.message = line, message


class _Block:
    """Whole lines of text, ``text[start:stop]``, and room for what they say. Used again and again.

    Untouched parts of these arrays take no memory, so they are as large as the worst case.
    """

    def __init__(self, block_bytes: int, padding: int, dtype: type[np.floating]) -> None:
        self.buffer = bytearray(MAX_LINE + block_bytes + 1 + padding)  # a line that began before, and a block
        self.text = np.frombuffer(self.buffer, dtype=np.uint8)
        self.start = self.stop = 0
        self.values = np.empty(max(block_bytes // 4, _MIN_VALUES), dtype=dtype)
        most = len(self.buffer) // 7 + 1  # a row has at least "0 qid:1" and a newline; a hard number, " 1:1e23"
        self.groups = np.empty((most, 4), dtype=np.int64)
        self.hard = np.empty((most, 4), dtype=np.int64)
        self.seen = np.empty(MAX_FEATURE + 2, dtype=np.int64)


@dataclass
class ParsedRows:
    """Consecutive rows. Their arrays are used again for the rows that follow."""

    rows: np.ndarray
    """(n, 1 + F) float32 or float64: label, then the features."""
    groups: np.ndarray
    """(k, 4) int64: row, line, and place of the query id in the text, where the id differs from that of the row
    before. Rows and lines are counted from 0."""
    flags: int
    """What was met: bits of the kernel's NAN, OVERSIZED and LARGE."""
    lines: int
    """How many lines of text."""
    block: _Block
    state: int
    position: int
    """Where in the block the kernel stopped, and why."""
    names: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(k,) int64, uint64 or str: the query ids."""


class LetorBlocks:
    """One pass over one file.

    Args:
        path: LETOR text, perhaps compressed.
        shift: 0 if the first feature has the number 1, 1 if it has 0.
        threads: parsing threads.
        block_bytes: how much is read at a time.
        progress: called with (bytes done, bytes in all) after each block.
    """

    def __init__(
        self,
        path: Path,
        *,
        shift: int,
        threads: int,
        block_bytes: int = BLOCK_BYTES,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        from hyperdpo.data import letor_kernel  # imports numba: only when there is something to read

        self._kernel = letor_kernel
        self.path, self.shift = path, shift
        self._threads, self._block_bytes, self._progress = threads, block_bytes, progress
        self._precise = np.zeros(MAX_FEATURE + 2, dtype=bool)
        self._dtype: type[np.floating] = np.float32
        self._width = shift, letor_kernel.feature_patterns(shift, shift)
        self._trouble: tuple[int, str] | None = None  # (lines ahead, message), found by `_blocks`
        self.lines = 0
        """Lines of text whose rows have been given."""

    def in_double_precision(self, columns: Sequence[int]) -> LetorBlocks:
        """Another pass, after this one: all rows as float64, some columns exact, the others as exact as float32."""
        again = LetorBlocks(self.path, shift=self.shift, threads=self._threads, block_bytes=self._block_bytes)
        again._precise[list(columns)] = True
        again._dtype, again._width = np.float64, self._width
        return again

    def __iter__(self) -> Iterator[ParsedRows]:
        """All rows.

        Raises:
            BadLineError: after the rows before it.
        """
        pending: deque[Future[ParsedRows]] = deque()
        self._free = deque(  # one in each thread, one being read, one being used
            _Block(self._block_bytes, self._kernel.PADDING, self._dtype) for _ in range(self._threads + 2)
        )
        with open_source(self.path) as source, ThreadPoolExecutor(self._threads, "letor") as pool:
            try:
                for block in self._blocks(source):
                    pending.append(pool.submit(self._parse, block))
                    if not self._free:
                        yield from self._finished(pending.popleft().result())
                while pending:
                    yield from self._finished(pending.popleft().result())
            finally:
                for future in pending:
                    future.cancel()
        if self._trouble is not None:
            ahead, message = self._trouble
            raise BadLineError(max(self.lines + ahead, 1), message)

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
                    self._trouble = 1, too_long(bytes(view[:64]))
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
                    self._guess_width(block)
                    first = False
                yield block
            if self._progress is not None:
                self._progress(source.position(), source.total)
            if ended:
                return

    def _guess_width(self, block: _Block) -> None:
        """Be ready for the highest feature number of the next lines; a row with a higher one comes back as WIDER."""
        stop = min(block.stop, block.buffer.find(b"\n", min(block.stop - 1, block.start + _GUESS_BYTES)) + 1)
        text = _COMMENT.sub(b"", block.buffer[block.start : stop])
        numbers = (int(number) for number in set(_FEATURE.findall(text)))
        width = max((n + self.shift for n in numbers if n <= MAX_FEATURE), default=0)
        if width > self._width[0]:
            self._width = width, self._kernel.feature_patterns(width, self.shift)

    def _parse(self, block: _Block) -> ParsedRows:
        """Parse a block, up to where the kernel stops. In a thread of the pool."""
        width, patterns = self._width  # one read: the main thread may replace the pair meanwhile
        state, position, lines, num_rows, num_groups, num_hard, flags = self._kernel.parse_block(
            block.text, block.start, block.stop, block.values, width, self.shift, block.seen, self._precise, block.hard,
            block.groups, patterns, self._kernel.POWERS,
        )  # fmt: skip
        rows = block.values[: num_rows * (1 + width)].reshape(num_rows, 1 + width)
        parsed = ParsedRows(rows, block.groups[:num_groups], flags, lines, block, state, position)
        for row, column, begin, end in block.hard[:num_hard].tolist():
            value = float(block.buffer[begin:end])
            if column and abs(value) >= MISSING_FROM:
                value = np.nan
                parsed.flags |= self._kernel.OVERSIZED
            if row >= num_rows or not fits_float32(value):
                self._stop_before(parsed, row, begin)
                break
            rows[row, column] = value
        names = []
        for row, _, begin, end in parsed.groups.tolist():
            try:
                names.append(block.buffer[begin:end].decode())
            except UnicodeDecodeError:
                self._stop_before(parsed, row, begin)
                break
        parsed.names = as_written(np.array(names, dtype=str))
        return parsed

    def _stop_before(self, parsed: ParsedRows, row: int, at: int) -> None:
        """Keep the rows before `row`, whose line is bad: the text at `at` stands in it."""
        block = parsed.block
        parsed.state = self._kernel.BAD
        parsed.position = max(block.buffer.rfind(b"\n", block.start, at) + 1, block.start)
        parsed.lines = block.buffer.count(b"\n", block.start, at)
        parsed.rows = parsed.rows[:row]
        parsed.groups = parsed.groups[parsed.groups[:, 0] < row]

    def _finished(self, parsed: ParsedRows) -> Iterator[ParsedRows]:
        """The rows of a block, parsing again from where the kernel stopped before the block's end."""
        block = parsed.block
        while True:
            parsed.groups[:, 1] += self.lines
            yield parsed
            self.lines += parsed.lines
            if parsed.state == self._kernel.BAD:
                line = bytes(block.buffer[parsed.position : block.buffer.index(b"\n", parsed.position)])
                raise BadLineError(self.lines + 1, diagnose(line, self.lines == 0, self.shift == 1))
            if parsed.state == self._kernel.DONE:
                break
            block.start = parsed.position
            if parsed.state == self._kernel.WIDER:
                self._guess_width(block)
            parsed = self._parse(block)
        self._free.append(block)
