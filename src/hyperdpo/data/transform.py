"""The feature transform: signed log1p, then standardisation, fitted on the training split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hyperdpo.data.splits import Part

#: Rows that are held in memory while statistics are gathered.
CHUNK_ROWS = 65_536


@dataclass(frozen=True)
class FeatureTransform:
    """x -> (sign(x) log(1 + |x|) - mean) / std, per column.

    Counts, lengths and BM25 scores span orders of magnitude; the logarithm makes them comparable. A column
    that is constant in the training split becomes 0.
    """

    columns: tuple[str, ...]
    """F names, in the order in which the scorer sees them."""
    mean: np.ndarray
    """(F,) float32, of the logarithms."""
    scale: np.ndarray
    """(F,) float32: 1 / standard deviation of the logarithms, or 0 for a constant column."""

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N, F) raw -> (N, F) float32."""
        features = np.asarray(features, dtype=np.float32)
        logs = np.log1p(np.abs(features))
        np.copysign(logs, features, out=logs)
        logs -= self.mean
        logs *= self.scale
        return logs

    @staticmethod
    def fit(part: Part, columns: tuple[str, ...]) -> FeatureTransform:
        """Mean and standard deviation over the rows of ``part``, in one streaming pass."""
        count, mean, m2 = 0, np.zeros(len(columns)), np.zeros(len(columns))
        for chunk in column_chunks(part, columns):
            logs = np.copysign(np.log1p(np.abs(chunk)), chunk).astype(np.float64)
            # Chan's update: exact for chunks, no catastrophic cancellation.
            n, chunk_mean = len(logs), logs.mean(0)
            delta = chunk_mean - mean
            m2 += ((logs - chunk_mean) ** 2).sum(0) + delta**2 * (count * n / (count + n))
            mean += delta * (n / (count + n))
            count += n
        deviation = np.sqrt(m2 / max(count, 1))
        constant = deviation < 1e-7
        scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
        return FeatureTransform(columns, mean.astype(np.float32), scale.astype(np.float32))


def column_chunks(part: Part, columns: tuple[str, ...], origins: np.ndarray | None = None) -> Iterable[np.ndarray]:
    """Raw values of some columns, (rows, len(columns)) float32, a bounded number of rows at a time.

    Args:
        origins: (len(columns),) float64 to subtract, in double precision; None: zeros.
    """
    index = part.table.column_indices(columns)
    rows = part.rows()
    for start in range(0, len(rows), CHUNK_ROWS):
        yield part.table.take(rows[start : start + CHUNK_ROWS], index, origins)


def column_values(part: Part, columns: tuple[str, ...]) -> np.ndarray:
    """(N, len(columns)) float32 raw values of a few columns, in one pass over the part's rows."""
    values = np.empty((int(part.sizes.sum()), len(columns)), dtype=np.float32, order="F")
    done = 0
    for chunk in column_chunks(part, columns):
        values[done : done + len(chunk)] = chunk
        done += len(chunk)
    return values
