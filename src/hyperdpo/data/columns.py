"""Which columns of an Arrow table are numbers, and what they are as float64: one rule for files and data frames.

Numbers, booleans and lists of one length of numbers become columns; a missing value is NaN. Everything else is left out
with the reason. A text column of which nearly all values are numbers is doubtful: whoever needs features refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.data.origins import EXACT_FLOAT32, LEAST_GAIN, may_need_origin, origin_of
from hyperdpo.errors import shown

if TYPE_CHECKING:
    import pyarrow as pa

#: A text column of which this part are numbers was meant to be one of numbers.
NEARLY_ALL = 0.9

#: Numbers from here on stand for "missing" in some data sets (Istella writes the largest double).
MISSING_FROM = 1e308

_NUMBER = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
_WITH_COMMA = r"^\s*[-+]?\d+(,\d+)+(\.\d+)?\s*$"


#: Names that data-frame tools give to an index: pandas, polars, R, databases.
INDEX_NAME = re.compile(
    r"|index|level_\d+|unnamed: ?\d+(\.\d+)*|__index_level_\d+__|row[ _.]?(nr|num|number|id|index|names?)?|\.\.\.\d+",
    re.IGNORECASE,
)
#: Names that they give to a column without one. It may be an index, if it numbers the rows.
UNNAMED = re.compile(r"X\d*(\.\d+)?|V\d+|_c\d+|_\d+|[Cc]olumn_?\d+|[Ff]ield_?\d+")


class UnusableColumnError(Exception):
    """A column that cannot become numbers, after all: its name, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason


@dataclass
class TextColumn:
    """What was seen of a text column: whether it was meant to hold numbers."""

    values: int = 0
    """Values that are there."""
    numbers: int = 0
    commas: int = 0
    """Numbers with commas: decimal ones, or between thousands."""
    first: tuple[int, str] | None = None
    """Row and value of the first."""
    odd: tuple[int, str] | None = None
    """Row and value of the first that is no number."""

    def see(self, column: pa.Array, first: int) -> None:
        """Count a batch that begins at row `first`."""
        import pyarrow as pa
        import pyarrow.compute as pc

        text = column.cast(pa.large_string())
        number = pc.match_substring_regex(text, _NUMBER)
        comma = pc.match_substring_regex(text, _WITH_COMMA)
        there = pc.and_kleene(text.is_valid(), pc.not_equal(pc.utf8_trim_whitespace(text), ""))
        counted = [int(pc.sum(mask.fill_null(False)).as_py() or 0) for mask in (there, number, comma)]
        self.values += counted[0]
        self.numbers += counted[1]
        self.commas += counted[2]
        if self.first is None:
            position = pc.index(there.fill_null(False), True).as_py()
            if position >= 0:
                self.first = first + position, text[position].as_py()
        if self.odd is None:
            position = pc.index(pc.and_kleene(there, pc.invert(number)).fill_null(False), True).as_py()
            if position >= 0:
                self.odd = first + position, text[position].as_py()

    @property
    def doubtful(self) -> bool:
        """Whether it was most likely meant to hold numbers."""
        return self.values > 0 and self.numbers + self.commas >= NEARLY_ALL * self.values

    @property
    def row(self) -> int:
        """Where to look in a doubtful column."""
        place = self.odd or self.first
        assert place is not None
        return place[0]

    def problem(self, name: str, way_out: str) -> str:
        """What to say of a doubtful column, to be put behind the place of :attr:`row`.

        Args:
            way_out: how to do without the column.
        """
        if self.odd is None:
            assert self.first is not None
            return (
                f"column {name!r} holds numbers as text, such as {shown(self.first[1])}; expected a type of numbers, "
                f"{way_out}"
            )
        if self.commas > self.numbers:
            return (
                f"column {name!r} is {shown(self.odd[1])}, a number with a comma; expected a decimal point and nothing "
                f"between thousands (decimal commas in a whole file are read where ; separates the columns), {way_out}"
            )
        return (
            f"column {name!r} is {shown(self.odd[1])}, and {self.numbers:,} of its {self.values:,} values are numbers; "
            f"expected a number or an empty cell, {way_out}"
        )


@dataclass
class ColumnPlan:
    """Turns batches of one schema into (n, C) float64. Made by :meth:`of`.

    Attributes:
        columns: the C names of the result.
        left_out: name -> reason, for columns that are nothing of the result.
        texts: what was seen of the text columns.
        oversized: name -> how many values were so large that they count as missing.
    """

    numbers: list[str]
    lists: dict[str, int | None]
    """List column -> its length, once a list was seen."""
    left_out: dict[str, str]
    texts: dict[str, TextColumn]
    oversized: dict[str, int] = field(default_factory=dict)
    _row_numbers: dict[str, list[np.ndarray]] = field(default_factory=dict)
    _extremes: np.ndarray | None = None
    _inexact: np.ndarray | None = None

    @staticmethod
    def of(schema: pa.Schema, skip: str | None = None, left_out: dict[str, str] | None = None) -> ColumnPlan:
        """A plan for all columns but `skip` (the query id), and those that are left out for reasons known already."""
        import pyarrow as pa

        plan = ColumnPlan([], {}, dict(left_out or {}), {})
        for one in schema:
            kind, name = one.type, one.name
            if name == skip or name in plan.left_out:
                continue
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if _is_number(kind) or pa.types.is_null(kind):
                plan.numbers.append(name)
            elif (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)) and (
                _is_number(kind.value_type)
            ):
                plan.lists[name] = kind.list_size if pa.types.is_fixed_size_list(kind) else None
            elif any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)):
                plan.texts[name] = TextColumn()
            else:
                plan.left_out[name] = "a date or time" if pa.types.is_temporal(kind) else f"of type {kind}"
        return plan

    @property
    def columns(self) -> list[str]:
        """The names of the result: lists as ``name[0]``, ``name[1]``, ..."""
        expanded = [f"{name}[{i}]" for name, length in self.lists.items() for i in range(length or 0)]
        return [*self.numbers, *expanded]

    @property
    def sources(self) -> list[str]:
        """The columns that have to be read."""
        return [*self.numbers, *self.lists, *self.texts]

    def take(self, batch: Any, first: int) -> np.ndarray:
        """(n, C) float64 of a batch (record batch or table) that begins at row `first`: NaN where a value is missing.

        Infinite values stay in it.

        Raises:
            UnusableColumnError: a list is of another length than those before, or the first rows have none.
        """
        import pyarrow as pa

        def array(name: str) -> pa.Array:
            column = batch.column(name)
            column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column

        for name, text in self.texts.items():
            text.see(array(name), first)
        parts = [_as_float64(array(name), name)[:, None] for name in self.numbers]
        for name, part in zip(self.numbers, parts, strict=True):
            if says_nothing(name):
                self._row_numbers.setdefault(name, []).append(part[:, 0].copy())
        for name in self.lists:
            parts.append(self._list(name, array(name)))
        values = np.concatenate(parts, axis=1) if parts else np.empty((batch.num_rows, 0))
        large = (np.abs(values) >= MISSING_FROM) & np.isfinite(values)
        if large.any():
            for j in np.flatnonzero(large.any(axis=0)):
                name = self.columns[int(j)]
                self.oversized[name] = self.oversized.get(name, 0) + int(large[:, j].sum())
            values[large] = np.nan
        self._look(values)
        return values

    def origin_candidates(self) -> list[int]:
        """Positions of the columns for which :func:`~hyperdpo.data.origins.origin_of` may find an origin."""
        if self._extremes is None or self._inexact is None:
            return []
        return [
            j
            for j in range(len(self.columns))
            if self._inexact[j] and may_need_origin(float(self._extremes[0, j]), float(self._extremes[1, j]))
        ]

    def numbering(self) -> tuple[str, ...]:
        """Columns that do nothing but number the rows, once all batches were taken."""
        return numbering({name: np.concatenate(parts) for name, parts in self._row_numbers.items()})

    def notes(self) -> list[str]:
        """What a user should know."""
        if not self.oversized:
            return []
        found = ", ".join(f"{count:,} in {name}" for name, count in self.oversized.items())
        return [f"values of {MISSING_FROM:g} and more count as missing: {found}"]

    def reasons(self) -> dict[str, str]:
        """Column -> why it is left out."""
        return self.left_out | dict.fromkeys(self.texts, "text")

    def _list(self, name: str, column: pa.Array) -> np.ndarray:
        import pyarrow.compute as pc

        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        known = np.unique(lengths[~np.isnan(lengths.astype(float))]).astype(int)
        if len(known) > 1 or (len(known) and self.lists[name] not in (None, int(known[0]))):
            raise UnusableColumnError(name, "lists of different lengths")
        length = self.lists[name] = int(known[0]) if len(known) else self.lists[name]
        if not length:
            raise UnusableColumnError(name, "lists without a number in the first rows")
        values = np.full((len(column), length), np.nan)
        there = column.is_valid().to_numpy(zero_copy_only=False)
        values[there] = _as_float64(column.drop_null().flatten(), name).reshape(-1, length)
        return values

    def _look(self, values: np.ndarray) -> None:
        """Remember what says whether a column needs an origin."""
        if not values.size:
            return
        with np.errstate(invalid="ignore"):
            extremes = np.stack([np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)])
        if self._extremes is None:
            self._extremes = np.stack([np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)])
            self._inexact = np.zeros(values.shape[1], dtype=bool)
        assert self._inexact is not None
        self._extremes[0] = np.fmin(self._extremes[0], extremes[0])
        self._extremes[1] = np.fmax(self._extremes[1], extremes[1])
        size = np.abs(extremes).max(axis=0)
        with np.errstate(invalid="ignore"):
            far = (size >= LEAST_GAIN * (extremes[1] - extremes[0])) | (size >= EXACT_FLOAT32)
        for j in np.flatnonzero(far & ~self._inexact):
            column = values[:, j]
            with np.errstate(over="ignore"):
                self._inexact[j] = bool(((column.astype(np.float32) != column) & ~np.isnan(column)).any())


def says_nothing(name: str) -> bool:
    """Whether a name is one that data-frame tools give to an index, or to a column without a name."""
    return bool(INDEX_NAME.fullmatch(name) or UNNAMED.fullmatch(name))


def numbering(columns: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """Columns that do nothing but number the rows: different whole numbers under the name of an index, or all whole
    numbers from 0 or 1 on, in any order, under a generic name.

    Args:
        columns: name -> (N,) float64.
    """
    found = []
    for name, unsorted in columns.items():
        values = np.sort(unsorted)
        steps = np.diff(values)
        if says_nothing(name) and (values == np.round(values)).all() and (steps > 0).all():  # not with NaN
            whole = bool((steps == 1).all()) and len(values) > 1 and values[0] in (0, 1)
            if INDEX_NAME.fullmatch(name) or whole:
                found.append(name)
    return tuple(found)


def origins_of(columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Column -> origin, for those that need one.

    Args:
        columns: name -> (N,) float64.
    """
    found = {name: origin_of(values) for name, values in columns.items()}
    return {name: origin for name, origin in found.items() if origin is not None}


def rounded(values: np.ndarray, names: list[str], origins: dict[str, float]) -> np.ndarray:
    """(n, C) float64 -> float32, origins subtracted first. What does not fit into 32 bits becomes infinite."""
    for j, name in enumerate(names):
        if name in origins:
            values[:, j] -= origins[name]
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


#: Why a column of integers is left out.
TOO_LARGE = "of integers so large that 64-bit floats make different ones equal"


def merges_integers(values: np.ndarray) -> bool:
    """Whether 64-bit floats make different ones of these (k,) integers equal."""
    if not len(values) or (int(values.max()) <= 2**53 and int(values.min()) >= -(2**53)):
        return False
    different = np.unique(values)
    return len(np.unique(different.astype(np.float64))) < len(different)


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def _as_float64(column: pa.Array, name: str) -> np.ndarray:
    """(n,) float64, NaN for null.

    Raises:
        UnusableColumnError: integers that 64-bit floats make equal.
    """
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_integer(column.type) and column.type.bit_width == 64:
        different = column.drop_null().unique().to_numpy()
        if merges_integers(different):
            raise UnusableColumnError(name, TOO_LARGE)
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
