"""Large numbers and time stamps in LETOR text: their columns are stored as differences from an origin.

32 bits hold every whole number up to 2^24 only. A column that goes beyond, and whose values are close together, is read
once more in 64 bits. So is one of smaller numbers with fractions (days such as 45321.5204), if the first rows show that
32 bits make some of them equal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hyperdpo.data.compression import open_source
from hyperdpo.data.letor_errors import BYTE_ORDER_MARK
from hyperdpo.data.origins import EXACT_FLOAT32, origin_of
from hyperdpo.data.storage import TableWriter
from hyperdpo.errors import InputError

# How much text `suspicious_columns` looks at, and how many times as large as they are apart the values have to be.
_FIRST_BYTES = 512 << 10
_SUSPICIOUS = 16.0

# Rows that decide whether an origin helps; evenly spread over a longer file.
_MOST_SAMPLED = 2_000_000


def suspicious_columns(path: Path, writer: TableWriter, shift: int) -> list[int]:
    """Columns that need an origin, as far as the first rows show. Next to no time where all values are near 0.

    Args:
        path: text that has been read into `writer`.
        writer: all rows, in the order of the text.
        shift: 0 if the first feature has the number 1, 1 if it has 0.
    """
    text = next(_whole_lines(path, _FIRST_BYTES), b"")
    rows = writer.head(text.count(b"\n"))
    lowest, highest = np.fmin.reduce(rows, axis=0), np.fmax.reduce(rows, axis=0)
    size = np.maximum(np.abs(lowest), np.abs(highest))
    with np.errstate(over="ignore"):
        columns = [int(k) for k in np.flatnonzero((size > 0) & (size >= _SUSPICIOUS * (highest - lowest))) if k]
    if not columns:
        return []
    values = _column_values(path, text, columns, shift)
    return [k for k, column in zip(columns, values.T, strict=True) if origin_of(column) is not None]


def subtract_origins(
    path: Path,
    writer: TableWriter,
    shift: int,
    block_bytes: int,
    suspects: Sequence[int],
    known: Mapping[int, float],
    *,
    large: bool,
) -> dict[int, float]:
    """Subtract an origin from every column that needs one.

    Args:
        path: text that has been read into `writer`.
        writer: all rows, in the order of the text.
        shift: 0 if the first feature has the number 1, 1 if it has 0.
        block_bytes: how much is read at a time.
        suspects: columns that `suspicious_columns` found.
        known: origins of columns that are given.
        large: whether any other column may hold values beyond 2^24.

    Returns:
        Position of the column -> its origin.

    Raises:
        InputError: the text is no longer what was read.
    """
    lowest, highest = (extremes.astype(np.float64) for extremes in writer.extremes())
    size = np.fmax(np.abs(lowest), np.abs(highest))
    candidates = [
        k for k in range(1, writer.width) if k in known or k in suspects or (large and size[k] >= EXACT_FLOAT32)
    ]
    if not candidates:
        return {}
    with tempfile.TemporaryFile(dir=writer.directory) as file:
        rows = 0
        for lines in _whole_lines(path, block_bytes):
            values = _column_values(path, lines, candidates, shift)
            file.write(values.tobytes())
            rows += len(values)
        if rows != writer.num_rows:
            raise _changed(path)
        file.flush()
        double = np.memmap(file, np.float64, "r", shape=(rows, len(candidates)))
        step = -(-rows // _MOST_SAMPLED)
        sampled = {k: origin_of(np.array(double[::step, j])) for j, k in enumerate(candidates) if k not in known}
        origins = {k: origin for k, origin in sampled.items() if origin is not None} | dict(known)
        kept = [j for j, k in enumerate(candidates) if k in origins]
        subtracted = np.array([origins[candidates[j]] for j in kept])
        if kept:
            places = [candidates[j] for j in kept]

            def change(first: int, chunk: np.ndarray) -> None:
                chunk[:, places] = double[first : first + len(chunk), kept] - subtracted

            writer.rewrite(change)
    return {candidates[j]: origins[candidates[j]] for j in kept}


def _column_values(path: Path, lines: bytes, columns: list[int], shift: int) -> np.ndarray:
    """(n, k) float64: what some whole lines of the file hold in some columns."""
    from hyperdpo.data import letor_kernel

    text = np.frombuffer(bytearray(lines) + bytes(letor_kernel.PADDING), dtype=np.uint8)
    start = len(BYTE_ORDER_MARK) if lines.startswith(BYTE_ORDER_MARK) else 0
    wanted = np.full(max(columns) + 1, -1, dtype=np.int64)
    wanted[columns] = np.arange(len(columns))
    values = np.empty((lines.count(b"\n"), len(columns)))
    inexact = np.empty((values.size, 4), dtype=np.int64)
    rows, num_inexact = letor_kernel.column_values(
        text, start, len(lines), shift, wanted, values, inexact, letor_kernel.POWERS
    )
    if rows < 0:
        raise _changed(path)
    for row, column, begin, end in inexact[:num_inexact].tolist():
        values[row, column] = float(lines[begin:end])
    return values[:rows]


def _whole_lines(path: Path, block_bytes: int) -> Iterator[bytes]:
    carry = b""
    with open_source(path) as source:
        while piece := source.read(block_bytes):
            text = carry + piece
            end = text.rfind(b"\n") + 1
            carry = text[end:]
            if end:
                yield text[:end]
    if carry:
        yield carry + b"\n"


def _changed(path: Path) -> InputError:
    return InputError(f"{path}: changed while it was read; expected a file that nothing writes to")
