"""Large numbers and time stamps in LETOR text: their columns are stored as differences from an origin.

32 bits hold every whole number up to 2^24 only. A column that goes beyond, and whose values are close together, is read
once more in 64 bits. So is one of smaller numbers with fractions (days such as 45321.5204), if the first rows show that
32 bits make some of them equal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping

import numpy as np

from hyperdpo.data.compression import open_source
from hyperdpo.data.letor_blocks import BadLineError, LetorBlocks
from hyperdpo.data.origins import EXACT_FLOAT32, origin_of
from hyperdpo.data.storage import TableWriter
from hyperdpo.errors import InputError

# How much text `_suspicious` looks at, and how many times as large as they are apart the values have to be.
_FIRST_BYTES = 512 << 10
_SUSPICIOUS = 16.0

# Rows that decide whether an origin helps; evenly spread over a longer file.
_MOST_SAMPLED = 2_000_000


def subtract_origins(
    blocks: LetorBlocks, writer: TableWriter, given: Mapping[int, float] | None, *, large: bool
) -> dict[int, float]:
    """Subtract an origin from every column that needs one.

    Args:
        blocks: the pass over the text that has been read into `writer`.
        writer: all rows, in the order of the text.
        given: the origins of these columns, and of no others; None: they are found.
        large: whether a column may hold values beyond 2^24.

    Returns:
        Position of the column -> its origin.

    Raises:
        InputError: the text is no longer what was read.
    """
    candidates = sorted(given) if given is not None else _candidates(blocks, writer, large)
    if not candidates:
        return {}
    with tempfile.TemporaryFile(dir=writer.directory) as file:
        rows = 0
        try:
            for parsed in blocks.in_double_precision(candidates):
                file.write(parsed.rows[:, candidates].tobytes())
                rows += len(parsed.rows)
        except BadLineError:
            rows = -1
        if rows != writer.num_rows:
            raise InputError(f"{blocks.path}: changed while it was read; expected a file that nothing writes to")
        file.flush()
        double = np.memmap(file, np.float64, "r", shape=(rows, len(candidates)))
        origins = dict(given or {})
        if given is None:
            step = -(-rows // _MOST_SAMPLED)
            found = {k: origin_of(np.array(double[::step, j])) for j, k in enumerate(candidates)}
            origins = {k: origin for k, origin in found.items() if origin is not None}
        if origins:
            kept = [j for j, k in enumerate(candidates) if k in origins]
            columns = [candidates[j] for j in kept]
            subtracted = np.array([origins[k] for k in columns])

            def change(first: int, chunk: np.ndarray) -> None:
                chunk[:, columns] = double[first : first + len(chunk), kept] - subtracted

            writer.rewrite(change)
    return origins


def _candidates(blocks: LetorBlocks, writer: TableWriter, large: bool) -> list[int]:
    """Features that may need an origin: all with values beyond 2^24, and those whose first rows show that they do."""
    candidates = set(_suspicious(blocks, writer))
    if large:
        size = np.fmax.reduce(np.abs(writer.extremes()), axis=0)
        candidates |= set(np.flatnonzero(size >= EXACT_FLOAT32).tolist())
    return sorted(candidates - {0})


def _suspicious(blocks: LetorBlocks, writer: TableWriter) -> list[int]:
    """Columns whose first rows need an origin. Next to no time where all values are near 0."""
    with open_source(blocks.path) as source:
        rows = writer.head(max(1, source.read(_FIRST_BYTES).count(b"\n")))
    lowest, highest = np.fmin.reduce(rows, axis=0), np.fmax.reduce(rows, axis=0)
    size = np.maximum(np.abs(lowest), np.abs(highest))
    with np.errstate(over="ignore"):
        columns = np.flatnonzero((size > 0) & (size >= _SUSPICIOUS * (highest - lowest))).tolist()
    if not columns:
        return []
    parts, left = [], len(rows)
    for parsed in blocks.in_double_precision(columns):
        parts.append(parsed.rows[:left, columns])
        left -= len(parts[-1])
        if left == 0:
            break
    return [k for k, column in zip(columns, np.concatenate(parts).T, strict=True) if origin_of(column) is not None]
