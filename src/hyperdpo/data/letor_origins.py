"""Large whole numbers and time stamps in LETOR text: their columns are stored as differences from an origin.

32 bits hold every whole number up to 2^24 only. A column that goes beyond, and whose values are close together, is read
once more in 64 bits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hyperdpo.data.compression import open_source
from hyperdpo.data.origins import may_need_origin, origin_of
from hyperdpo.data.storage import TableWriter
from hyperdpo.errors import InputError

#: From here on float32 does not hold every whole number.
EXACT_FLOAT32 = float(2**24)

# Rows that decide whether an origin helps; evenly spread over a longer file.
_MOST_SAMPLED = 2_000_000


def subtract_origins(path: Path, writer: TableWriter, shift: int, block_bytes: int) -> dict[int, float]:
    """Subtract an origin from every column that needs one.

    Args:
        path: text that has been read into `writer`.
        writer: all rows, in the order of the text.
        shift: 0 if the first feature has the number 1, 1 if it has 0.
        block_bytes: how much is read at a time.

    Returns:
        Position of the column -> its origin.
    """
    lowest, highest = (extremes.astype(np.float64) for extremes in writer.extremes())
    candidates = [
        k
        for k in range(1, writer.width)
        if max(abs(lowest[k]), abs(highest[k])) >= EXACT_FLOAT32
        and (lowest[k] == highest[k] or may_need_origin(lowest[k], highest[k]))
    ]
    if not candidates:
        return {}
    with tempfile.TemporaryFile(dir=writer.directory) as file:
        minima, rows = np.full(len(candidates), np.inf), 0
        for values in _double_values(path, candidates, shift, block_bytes):
            minima = np.fmin(minima, np.fmin.reduce(values, axis=0, initial=np.inf))
            file.write(values.data.cast("B"))
            rows += len(values)
        if rows != writer.num_rows:
            raise _changed(path)
        file.flush()
        double = np.memmap(file, np.float64, "r", shape=(rows, len(candidates)))
        step = -(-rows // _MOST_SAMPLED)
        kept = [j for j in range(len(candidates)) if origin_of(np.array(double[::step, j])) is not None]
        if kept:
            places = [candidates[j] for j in kept]

            def change(first: int, chunk: np.ndarray) -> None:
                chunk[:, places] = double[first : first + len(chunk), kept] - minima[kept]

            writer.rewrite(change)
    return {candidates[j]: float(minima[j]) for j in kept}


def _double_values(path: Path, columns: list[int], shift: int, block_bytes: int) -> Iterator[np.ndarray]:
    """(n, k) float64 of some columns, block by block."""
    from hyperdpo.data import letor_kernel

    wanted = np.full(max(columns) + 1, -1, dtype=np.int64)
    wanted[columns] = np.arange(len(columns))
    for text in _whole_lines(path, block_bytes):
        buffer = np.frombuffer(bytearray(text) + bytes(letor_kernel.PADDING), dtype=np.uint8)
        values = np.empty((text.count(b"\n"), len(columns)))
        inexact = np.empty((values.size, 4), dtype=np.int64)
        start = 3 if text.startswith(b"\xef\xbb\xbf") else 0
        rows, num_inexact = letor_kernel.column_values(
            buffer, start, len(text), shift, wanted, values, inexact, letor_kernel.POWERS
        )
        if rows < 0:
            raise _changed(path)
        for row, column, begin, end in inexact[:num_inexact].tolist():
            values[row, column] = float(text[begin:end])
        yield values[:rows]


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
