"""Ragged tables: rows of named columns, in groups (a query with its documents)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hyperdpo.data.blocks import CheckedValues
from hyperdpo.errors import InputError

#: LETOR's first field; also the default name of the main label's column.
RELEVANCE = "relevance"


@dataclass(frozen=True)
class GroupedTable:
    """N rows of C numeric columns in G groups; group g holds rows ``offsets[g]:offsets[g + 1]``.

    A file in LETOR text has the columns ``relevance``, ``1``, ``2``, ... (its features keep their numbers, from
    ``0`` where the file was read so); Parquet and CSV keep their own names. Which column is a feature, a label or a
    base score is decided later, by the configuration.
    """

    values: np.ndarray
    """(N, C) float32, an array in memory or a read-only memory map; NaN where a value is missing. Of a column in
    `origins` the difference from its origin."""
    columns: tuple[str, ...]
    """C names."""
    qids: np.ndarray
    """(G,) int64, uint64 or str: the name of each group, each once."""
    offsets: np.ndarray
    """(G + 1,) int64, strictly increasing from 0 to N."""
    source: str = "memory"
    """Where the rows came from, for messages."""
    fingerprint: str = ""
    """Hash of the content: equal for equal rows, whatever the file's name or time."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Columns of the source that are not among `columns`, and why: ``{"title": "text"}``."""
    doubtful: Mapping[str, str] = field(default_factory=dict)
    """Those of `left_out` that were most likely meant to hold numbers -> place and value of what is not one."""
    numbering: tuple[str, ...] = ()
    """Those of `columns` that do nothing but number the rows, and have a name that says no more."""
    origins: Mapping[str, float] = field(default_factory=dict)
    """Column -> the number that was subtracted from its values, in double precision. Large integers and time stamps
    would lose their differences in 32 bits."""
    notes: tuple[str, ...] = ()
    """What a user should know of how the source was read."""
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Label column -> (N,) float32, where the labels were given apart from the features. Empty: they are among
    `columns`."""
    order: np.ndarray | None = None
    """(N,) int64: the row of the source that each row was, where the rows were sorted by group; None: in its order."""
    checked: CheckedValues | None = field(default=None, repr=False, compare=False)
    """Checks values from a file as :meth:`take` first reads them; None: they are as they are."""

    @property
    def num_rows(self) -> int:
        return int(self.values.shape[0])

    @property
    def num_groups(self) -> int:
        return len(self.offsets) - 1

    @property
    def group_sizes(self) -> np.ndarray:
        """(G,) int64."""
        return np.diff(self.offsets)

    def column_index(self, name: str) -> int:
        """Position of a column.

        Raises:
            InputError: there is no such column.
        """
        try:
            return self.columns.index(str(name))
        except ValueError:
            if name in self.doubtful:
                raise InputError(f"{self.source}:{self.doubtful[name]}") from None
            if name in self.left_out:
                raise InputError(
                    f"{self.source}: column {name!r} is {self.left_out[name]}, not numeric; "
                    f"the numeric columns are {abridged(self.columns)}"
                ) from None
            raise InputError(f"{self.source}: no column {name!r}; the columns are {abridged(self.columns)}") from None

    def column_indices(self, names: Sequence[str]) -> np.ndarray:
        """Positions (k,) of columns; -1 for a LETOR feature beyond the file's highest, which is 0 in every row.

        Raises:
            InputError: there is no such column.
        """
        last = self._last_letor_feature()
        beyond = {n for n in names if last is not None and n.isdecimal() and n == str(int(n)) and int(n) > last}
        return np.array([-1 if name in beyond else self.column_index(name) for name in names], dtype=np.int64)

    def features_beyond(self, names: Sequence[str]) -> list[str]:
        """Those of the names that are LETOR features beyond the file's highest, and so 0 in every row."""
        return [name for name, index in zip(names, self.column_indices(names), strict=True) if index < 0]

    def take(self, rows: np.ndarray, indices: np.ndarray, origins: np.ndarray | None = None) -> np.ndarray:
        """(len(rows), k) float32 copy of some rows and of the columns that :meth:`column_indices` found.

        Args:
            origins: (k,) float64 to subtract from each column, in double precision; None: zeros.

        Raises:
            InputError: the file of the values is damaged, and what it was made from is not there any more.
        """
        values = self.values if self.checked is None else self.checked.holding(rows, self.values)
        taken = np.ascontiguousarray(values[rows][:, indices])
        taken[:, indices < 0] = 0
        own = np.array([self.origins.get(self.columns[i], 0.0) if i >= 0 else 0.0 for i in indices])
        shift = own if origins is None else own - origins
        for k in np.flatnonzero(shift):
            taken[:, k] = taken[:, k].astype(np.float64) + shift[k]
        return taken

    def column(self, name: str) -> np.ndarray:
        """(N,) float32 copy of one column."""
        return self.take(np.arange(self.num_rows), self.column_indices([str(name)]))[:, 0]

    @property
    def label_columns(self) -> Collection[str]:
        """Where a label may be."""
        return self.labels or self.columns

    def source_order(self, values: np.ndarray) -> np.ndarray:
        """(N, ...) values of the rows, put into the order of the source."""
        if self.order is None:
            return values
        placed = np.empty_like(values)
        placed[self.order] = values
        return placed

    def own_order(self, values: np.ndarray) -> np.ndarray:
        """(N, ...) values in the order of the source, put into the order of the rows."""
        return values if self.order is None else values[self.order]

    def _last_letor_feature(self) -> int | None:
        """The highest feature number, if the columns are those of LETOR text, counted from 1 or from 0."""
        first = 0 if self.columns[1:2] == ("0",) else 1
        last = len(self.columns) - 2 + first
        return last if self.columns == (RELEVANCE, *map(str, range(first, last + 1))) else None


def abridged(names: Sequence[str], most: int = 12) -> str:
    """Some names in a message: all of them, or the first ones and the last."""
    names = [name if name == name.strip() and name else repr(name) for name in names]
    if len(names) <= most:
        return ", ".join(names)
    return ", ".join([*names[: most - 1], "...", names[-1]])
