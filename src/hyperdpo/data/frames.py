"""Arrays and data frames (numpy, pandas, polars, Arrow) as float32 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperdpo.data.groups import GroupedTable
from hyperdpo.errors import InputError


def to_columns(values: Any, what: str, prefix: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """A table as (N, C) float32 and its column names.

    Args:
        values: array (N, C) or (N,), data frame, Arrow table, or mapping of names to (N,) columns.
        what: for messages.
        prefix: columns without names are called ``prefix0``, ``prefix1``, ...

    Raises:
        InputError: not a table of finite numbers; says which row and column.
    """
    if isinstance(values, Mapping):
        parts = {str(name): to_vector(column, f"{what} {name!r}") for name, column in values.items()}
        lengths = {len(column) for column in parts.values()}
        if len(lengths) != 1:
            raise InputError(f"{what}: columns of {sorted(lengths)} rows; expected the same number in each")
        return np.column_stack(list(parts.values())), tuple(parts)
    names: tuple[str, ...] | None = None
    if not isinstance(values, np.ndarray):
        import narwhals as nw

        try:
            frame = nw.from_native(values, eager_only=True, pass_through=True)
        except nw.exceptions.DuplicateError as error:
            raise InputError(f"{what}: {' '.join(str(error).split())}") from None
        if isinstance(frame, nw.DataFrame):
            names = tuple(str(name) for name in frame.columns)
            wrong = [name for name, kind in frame.schema.items() if not (kind.is_numeric() or kind == nw.Boolean)]
            if wrong:
                raise InputError(f"{what}: column {wrong[0]!r} holds {frame.schema[wrong[0]]}; expected numbers")
            values = (
                np.column_stack([column.to_numpy() for column in frame.iter_columns()]) if names else np.empty((0, 0))
            )
    array = _numbers(values, what)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2:
        raise InputError(f"{what}: found shape {array.shape}; expected (rows, columns)")
    names = names or tuple(f"{prefix}{i}" for i in range(array.shape[1]))
    _check_finite(array, what, names)
    return array, names


def to_vector(values: Any, what: str) -> np.ndarray:
    """A column as (N,) float32.

    Raises:
        InputError: not one column of finite numbers.
    """
    array = _numbers(values, what)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{what}: found shape {array.shape}; expected one number per row")
    _check_finite(array[:, None], what, (what,))
    return array


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
        raise InputError(f"qid: row {int(np.flatnonzero(~np.isfinite(names))[0])} is {names[~np.isfinite(names)][0]}")
    if names.dtype.kind == "O":
        names = names.astype(str)
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
    values: np.ndarray, names: tuple[str, ...], qids: np.ndarray, offsets: np.ndarray, *, fingerprint: bool = False
) -> GroupedTable:
    """Columns (N, C) in memory as a table; with a fingerprint where base scores are to be kept for it."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    digest = ""
    if fingerprint:
        import xxhash

        hashed = xxhash.xxh3_128(values.data)
        hashed.update(np.ascontiguousarray(offsets).data)
        hashed.update(",".join(names).encode())
        digest = hashed.hexdigest()
    return GroupedTable(values, names, qids, offsets, "X", digest)


def _numbers(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(
            f"{what}: found {type(values).__name__}; expected an array or a data frame of numbers"
        ) from None


def _check_finite(array: np.ndarray, what: str, names: tuple[str, ...]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        row, column = (int(i) for i in np.argwhere(~finite)[0])
        place = what if names[column] == what else f"{what}, column {names[column]!r}"
        raise InputError(f"{place}: row {row} is {array[row, column]}; expected a finite number")
