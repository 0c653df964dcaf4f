"""The feature transform: signed log1p, then standardisation, fitted on the training split; missing values; origins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hyperdpo.data.splits import Part

#: Rows that are held in memory while statistics are gathered.
CHUNK_ROWS = 65_536

#: Values that decide whether the logarithm keeps a column's resolution.
_SAMPLE_VALUES = 8_000_000

#: How far a column without logarithm goes straight on, in standard deviations: a time stamp of 0, or of a later year,
#: would else be a million of them away.
LINEAR = 4.0

#: The part of a column's different values that the logarithm in 32 bits has to keep.
LEAST_KEPT = 0.9


@dataclass(frozen=True)
class FeatureTransform:
    """x -> (sign(x) log(1 + |x|) - mean) / std, per column.

    Counts, lengths and BM25 scores span orders of magnitude; the logarithm makes them comparable. It is left out where
    it would destroy resolution: 8,000,000 and 8,000,001 have the same logarithm in 32 bits. Such a column is linear up
    to :data:`LINEAR` standard deviations from its mean, and logarithmic beyond. A column that is constant in the
    training split becomes 0. A missing value becomes 0, the mean; where the training split has missing values,
    one more column says which they are.

    Raw values are numbers minus their column's origin.
    """

    columns: tuple[str, ...]
    """F names, in the order in which the scorer sees them."""
    mean: np.ndarray
    """(F,) float32, of the logarithms."""
    scale: np.ndarray
    """(F,) float32: 1 / standard deviation of the logarithms, or 0 for a constant column."""
    origins: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(F,) float64: what is subtracted from the numbers first; zeros if left out."""
    logs: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    """(F,) bool: whether the logarithm is taken; True if left out."""
    indicators: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """(I,) int64: positions of the columns with missing values in the training split; none if left out."""
    constant: tuple[str, ...] = ()
    """Columns that are the same on every training row, or become so here; known after :meth:`fit`."""

    def __post_init__(self) -> None:
        count = len(self.columns)
        for name, default in (("origins", np.zeros(count)), ("logs", np.ones(count, dtype=bool))):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, default)

    @property
    def width(self) -> int:
        """F + I: columns of the result."""
        return len(self.columns) + len(self.indicators)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(N, F) raw, NaN where missing -> (N, F + I) float32."""
        features = np.asarray(features, dtype=np.float32)
        values = self._logarithms(features)
        values -= self.mean
        values *= self.scale
        if not self.logs.all():
            linear = ~self.logs
            distance = (features[:, linear].astype(np.float64) - self.mean[linear]) * self.scale[linear]
            size = np.abs(distance)
            values[:, linear] = np.sign(distance) * (np.minimum(size, LINEAR) + np.log1p(np.maximum(size - LINEAR, 0)))
        missing = np.isnan(features)
        if missing.any():
            values[missing] = 0
        if not len(self.indicators):
            return values
        return np.concatenate([values, missing[:, self.indicators]], axis=1, dtype=np.float32)

    def unexpected(self, features: np.ndarray) -> list[str]:
        """Columns with missing values among (N, F) raw ones, though the training split had none there."""
        missing = np.isnan(features).any(axis=0)
        missing[self.indicators] = False
        return [self.columns[j] for j in np.flatnonzero(missing)]

    def _logarithms(self, features: np.ndarray) -> np.ndarray:
        values = np.log1p(np.abs(features))
        np.copysign(values, features, out=values)
        if not self.logs.all():
            values[:, ~self.logs] = features[:, ~self.logs]
        return values

    @staticmethod
    def fit(part: Part, columns: tuple[str, ...]) -> FeatureTransform:
        """Mean and standard deviation over the rows of ``part`` in double precision, in one streaming pass."""
        origins = np.array([part.table.origins.get(name, 0.0) for name in columns])
        plain = FeatureTransform(columns, np.zeros(0), np.zeros(0), origins, _keeps_resolution(part, columns, origins))
        count, mean, m2 = np.zeros(len(columns)), np.zeros(len(columns)), np.zeros(len(columns))
        lowest, highest = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
        rows = 0
        for chunk in column_chunks(part, columns, origins):
            logs = plain._logarithms(chunk).astype(np.float64)
            missing = np.isnan(logs)
            n = len(logs) - missing.sum(0)
            logs[missing] = 0
            # Chan's update: exact for chunks, no catastrophic cancellation.
            chunk_mean = logs.sum(0) / np.maximum(n, 1)
            delta = np.where(n > 0, chunk_mean - mean, 0)
            total = np.maximum(count + n, 1)
            logs -= chunk_mean
            logs[missing] = 0
            m2 += (logs**2).sum(0) + delta**2 * (count * n / total)
            mean += delta * (n / total)
            count += n
            rows += len(chunk)
            lowest, highest = np.fmin(lowest, np.fmin.reduce(chunk, 0)), np.fmax(highest, np.fmax.reduce(chunk, 0))
        deviation = np.sqrt(m2 / np.maximum(count, 1))
        constant = ~(highest > lowest) | (deviation < 1e-7 * np.abs(mean) * plain.logs)
        scale = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, deviation))
        return FeatureTransform(
            columns,
            mean.astype(np.float32),
            scale.astype(np.float32),
            origins,
            plain.logs,
            np.flatnonzero((count < rows) & (count > 0)),
            tuple(columns[j] for j in np.flatnonzero(constant)),
        )


def _keeps_resolution(part: Part, columns: tuple[str, ...], origins: np.ndarray) -> np.ndarray:
    """(F,) bool: columns of which the logarithm, in 32 bits, leaves different values different. Not those with an
    origin, which are distances from it, not magnitudes."""
    rows = part.rows()
    most = min(max(_SAMPLE_VALUES // max(len(columns), 1), 1024), CHUNK_ROWS)
    sample = rows[np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)] if len(rows) else rows
    raw = part.table.take(sample, part.table.column_indices(columns), origins)
    keeps = origins == 0
    for j in np.flatnonzero(keeps):
        values = raw[:, j]
        values = np.unique(values[~np.isnan(values)])
        logs = np.copysign(np.log1p(np.abs(values)), values)
        keeps[j] = len(np.unique(logs)) >= LEAST_KEPT * len(values)
    return keeps


def column_chunks(part: Part, columns: tuple[str, ...], origins: np.ndarray | None = None) -> Iterable[np.ndarray]:
    """Raw values of some columns, (rows, len(columns)) float32, a bounded number of rows at a time.

    Args:
        origins: (len(columns),) float64 to subtract, in double precision; None: zeros.
    """
    index = part.table.column_indices(columns)
    rows = part.rows()
    for start in range(0, len(rows), CHUNK_ROWS):
        yield part.table.take(rows[start : start + CHUNK_ROWS], index, origins)


def column_values(part: Part, columns: tuple[str, ...], origins: np.ndarray | None = None) -> np.ndarray:
    """(N, len(columns)) float32 raw values of a few columns, in one pass over the part's rows.

    Args:
        origins: as of :func:`column_chunks`.
    """
    values = np.empty((int(part.sizes.sum()), len(columns)), dtype=np.float32, order="F")
    done = 0
    for chunk in column_chunks(part, columns, origins):
        values[done : done + len(chunk)] = chunk
        done += len(chunk)
    return values


def label_values(part: Part, columns: Sequence[str]) -> np.ndarray:
    """(N, len(columns)) float32 raw values of labels, from where the table holds them."""
    if not part.table.labels:
        return column_values(part, tuple(columns))
    rows = part.rows()
    return np.stack([part.table.labels[name][rows] for name in columns], axis=1)
