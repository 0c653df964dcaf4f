"""Arrays and data frames (numpy, scipy, pandas, polars, Arrow) as float32 columns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hyperdpo.data.columns import (
    MISSING_FROM,
    TOO_LARGE,
    ColumnPlan,
    UnusableColumnError,
    merges_integers,
    numbering,
    origins_of,
    rounded,
    says_nothing,
)
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.origins import may_need_origin
from hyperdpo.errors import InputError, counted, one_line

#: A sparse matrix is stored dense: up to so many columns.
MOST_SPARSE_COLUMNS = 65_536


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are numbers; fields as of :class:`~hyperdpo.data.groups.GroupedTable`."""

    values: np.ndarray
    """(N, C) float32, NaN where a value is missing."""
    names: tuple[str, ...]
    named: bool
    """Whether the names are the table's own, not numbers of columns."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    doubtful: Mapping[str, str] = field(default_factory=dict)
    numbering: tuple[str, ...] = ()
    origins: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def to_columns(values: Any, what: str, prefix: str, origins: Mapping[str, float] | None = None) -> Columns:
    """The columns of a table that are numbers.

    Args:
        values: array (N, C) or (N,), scipy sparse matrix, data frame, Arrow table, or mapping of names to (N,) columns.
        what: for messages.
        prefix: columns without names are called ``prefix0``, ``prefix1``, ...
        origins: to subtract from columns of these names, and from no others; None: every column gets an origin where it
            needs one.

    Raises:
        InputError: not a table, or an infinite number; says which row and column.
    """
    import narwhals as nw

    if isinstance(values, Mapping):
        parts = {str(name): _vector(column, f"{what} {name!r}") for name, column in values.items()}
        lengths = {len(column) for column in parts.values()}
        if len(lengths) != 1:
            raise InputError(f"{what}: columns of {sorted(lengths)} rows; expected the same number in each")
        described = {"named": True, "numbering": numbering({n: v for n, v in parts.items() if says_nothing(n)})}
        return _rounded(np.column_stack(list(parts.values())), tuple(parts), what, origins, **described)
    if not isinstance(values, np.ndarray):
        try:
            frame = nw.from_native(values, eager_only=True, pass_through=True)
        except nw.exceptions.DuplicateError as error:
            raise InputError(f"{what}: {one_line(error)}") from None
        if isinstance(frame, nw.DataFrame):
            return _of_frame(frame, what, origins)
    if _is_sparse(values):
        if values.shape[1] > MOST_SPARSE_COLUMNS:
            raise InputError(
                f"{what}: {values.shape[1]:,} columns; expected at most {MOST_SPARSE_COLUMNS:,}: they are stored dense"
            )
        values = values.toarray()
    array = _numbers(values, what)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise InputError(f"{what}: found shape {array.shape}; expected (rows, columns)")
    return _rounded(array, tuple(f"{prefix}{i}" for i in range(array.shape[1])), what, origins, named=False)


def _of_frame(frame: Any, what: str, origins: Mapping[str, float] | None) -> Columns:
    import pyarrow as pa

    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{what}: column {twice!r} occurs twice; expected distinct names")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of names that are numbers
            table = frame.to_arrow().select(names)  # of pandas without its index
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{what}: a column of values of several kinds ({one_line(error)}); expected one kind"
        ) from None
    left_out: dict[str, str] = {}
    while True:
        plan = ColumnPlan.of(table.schema, left_out=left_out)
        try:
            found = plan.take(table, 0)
            break
        except UnusableColumnError as error:
            left_out[error.name] = error.reason
    doubtful = {
        name: f" row {text.row}: {text.problem(name, 'or a frame without the column')}"
        for name, text in plan.texts.items()
        if text.doubtful
    }
    order = {name: position for position, name in enumerate(names)}
    reasons = dict(sorted(plan.reasons().items(), key=lambda pair: order[pair[0]]))
    return _rounded(
        found,
        tuple(plan.columns),
        what,
        origins,
        named=True,
        left_out=reasons,
        doubtful=doubtful,
        numbering=plan.numbering(),
        notes=tuple(plan.notes()),
    )


def _rounded(
    array: np.ndarray, names: tuple[str, ...], what: str, known: Mapping[str, float] | None, **described: Any
) -> Columns:
    """Columns of an array of any kind of numbers, origins subtracted where 64 bits are needed."""
    origins = {name: origin for name, origin in (known or {}).items() if name in names}
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        for name, column in zip(names, array.T, strict=True):
            if merges_integers(column):
                raise InputError(f"{what}, column {name!r}: {TOO_LARGE}; expected smaller numbers")
    if array.size and array.dtype.itemsize > 2 and array.dtype != np.float32:
        array = array.astype(np.float64)
        array[(np.abs(array) >= MISSING_FROM) & np.isfinite(array)] = np.nan
    if known is None and array.size and array.dtype == np.float64:
        low, high = np.fmin.reduce(array, axis=0), np.fmax.reduce(array, axis=0)
        candidates = [j for j in range(len(names)) if may_need_origin(float(low[j]), float(high[j]))]
        origins = origins_of({names[j]: array[:, j] for j in candidates})
    result = rounded(array, list(names), origins)
    _check_not_infinite(result, what, names)
    return Columns(result, names, origins=origins, **described)


def _is_sparse(values: Any) -> bool:
    return hasattr(values, "toarray") and hasattr(values, "nnz") and len(getattr(values, "shape", ())) == 2


def to_vector(values: Any, what: str, *, rows: int | None = None, missing: bool = False) -> np.ndarray:
    """A column as (N,) float32.

    Args:
        rows: N, if it is known.
        missing: whether values may be missing: NaN.

    Raises:
        InputError: not one column of finite numbers.
    """
    array = _vector(values, what)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    _check_not_infinite(array[:, None], what, (what,))
    if not missing and (absent := np.flatnonzero(np.isnan(array))).size:
        raise InputError(f"{what}: row {absent[0]} is missing (nan); expected a finite number")
    if rows is not None:
        check_rows(what, len(array), rows)
    return array


def check_rows(what: str, found: int, rows: int) -> None:
    """Refuse another number of rows than X has."""
    if found != rows:
        raise InputError(f"{what}: found {counted(found, 'row')}; expected {rows}, one per row of X")


def group_rows(qid: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Names (G,) and offsets (G + 1,) of groups from one name per row; rows of a group are adjacent.

    Raises:
        InputError: another number of rows, a missing name, or a group in two places.
    """
    names = np.asarray(qid)
    if names.dtype.kind == "O":
        missing = [row for row, name in enumerate(names.flat) if name is None or name != name]
        if missing:
            raise InputError(f"qid: row {missing[0]} is {names.flat[missing[0]]}; expected the name of a group")
    if names.shape != (rows,):
        raise InputError(f"qid: found shape {names.shape}; expected ({rows},), one per row of X")
    if names.dtype.kind == "f" and not np.isfinite(names).all():
        raise InputError(
            f"qid: row {int(np.flatnonzero(~np.isfinite(names))[0])} is {names[~np.isfinite(names)][0]}; expected an id"
        )
    if names.dtype.kind == "O":
        whole = all(isinstance(name, int | np.integer) for name in names.flat)
        names = names.astype(np.int64 if whole else str)
    if names.dtype.kind == "f":  # as data frames write nullable integers
        odd = np.flatnonzero((names != np.floor(names)) | (np.abs(names) >= 2**53))
        if len(odd):
            raise InputError(f"qid: row {odd[0]} is {names[odd[0]]:g}; expected whole numbers below 2^53, or texts")
        names = names.astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], names[1:] != names[:-1]])) if rows else np.empty(0, np.int64)
    firsts = names[starts]
    unique, positions = np.unique(firsts, return_index=True)
    if len(unique) != len(firsts):
        again = int(starts[np.setdiff1d(np.arange(len(firsts)), positions)[0]])
        raise InputError(
            f"qid: group {names[again].item()!r} starts again in row {again}; expected adjacent rows (sort by qid)"
        )
    return firsts, np.append(starts, rows).astype(np.int64)


def to_table(
    columns: Columns, qids: np.ndarray, offsets: np.ndarray, labels: Mapping[str, np.ndarray] | None = None
) -> GroupedTable:
    """Columns in memory as a table.

    Args:
        labels: label column -> (N,) values, of training data: base scores are kept for them, so the table has a
            fingerprint.
    """
    values = np.ascontiguousarray(columns.values, dtype=np.float32)
    digest = ""
    if labels is not None:
        import xxhash

        hashed = xxhash.xxh3_128(values.data)
        hashed.update(np.ascontiguousarray(offsets).data)
        hashed.update(repr([columns.names, *labels]).encode())
        for column in labels.values():
            hashed.update(np.ascontiguousarray(column, dtype=np.float32).data)
        if columns.origins:
            hashed.update(repr(sorted(columns.origins.items())).encode())
        digest = hashed.hexdigest()
    return GroupedTable(
        values,
        columns.names,
        qids,
        offsets,
        "X",
        digest,
        left_out=columns.left_out,
        doubtful=columns.doubtful,
        numbering=columns.numbering,
        origins=columns.origins,
        notes=columns.notes,
        labels={name: np.asarray(column, dtype=np.float32) for name, column in (labels or {}).items()},
    )


def _vector(values: Any, what: str) -> np.ndarray:
    array = _numbers(values, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{what}: found shape {array.shape}; expected one number per row")
    return array


def _numbers(values: Any, what: str) -> np.ndarray:
    """An array of some kind of numbers; what is missing in it is NaN."""
    try:
        array = np.asarray(values)
        if array.dtype.kind in "US":
            raise TypeError
        return array if array.dtype.kind in "biuf" else np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"{what}: found {type(values).__name__}; expected an array or a data frame of numbers"
        ) from None


def _check_not_infinite(array: np.ndarray, what: str, names: tuple[str, ...]) -> None:
    infinite = np.isinf(array)
    if infinite.any():
        row, column = (int(i) for i in np.argwhere(infinite)[0])
        place = what if names[column] == what else f"{what}, column {names[column]!r}"
        raise InputError(f"{place}: row {row} is {array[row, column]}; expected a finite number (of 32 bits)")
