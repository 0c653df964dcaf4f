"""Responses that people or models rated: UltraFeedback (all responses of a prompt in a row) and HelpSteer (one)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperdpo.alignment.data.cells import SHOWN, Row, RowError, column, is_list, is_missing, number_of, text_of
from hyperdpo.alignment.data.parts import PLAIN, Columns, Parts, parts_of
from hyperdpo.errors import shown

#: What raters write where there is no rating.
_NO_RATING = ("n/a", "na", "", "none", "null", "nan", "-")
#: Names of columns that only number or name rows.
_NUMBERING = ("id", "index", "idx", "row", "rowid", "unnamed: 0", "__index_level_0__", "level_0")


def from_ultrafeedback(row: Row, columns: Columns = PLAIN) -> Parts:
    """UltraFeedback: ``instruction``, ``completions``, each with ``response`` and ``annotations`` {aspect: {Rating}}.

    Every aspect is an objective. A rating is a number, also one that is written as a text; "N/A", null or an aspect
    that is absent is a missing label of that response. Overall scores and rationales are not used.

    Raises:
        InputError: without a place; a column or a rating of another form.
    """
    rated = column(row, "completions")
    if not is_list(rated) or not all(isinstance(one, Mapping) for one in rated):
        raise RowError(
            f"column 'completions' is {shown(rated, SHOWN)}; expected a list of objects with response and annotations",
            "column 'completions' is no list of rated responses",
        )
    texts, ratings = [], []
    for k, one in enumerate(rated):
        text = one.get("response")
        if not isinstance(text, str):
            raise RowError(
                f"completions[{k}].response is {shown(text, SHOWN)}; expected a text", "a response that is no text"
            )
        texts.append(text)
        annotations = one.get("annotations")
        if is_missing(annotations):
            annotations = {}
        if not isinstance(annotations, Mapping):
            raise RowError(
                f"completions[{k}].annotations is {shown(annotations, SHOWN)}; expected an object of aspects",
                "annotations that are no object of aspects",
            )
        ratings.append({str(name): _rating(value, f"completions[{k}], {name}") for name, value in annotations.items()})
    aspects = dict.fromkeys(name for one in ratings for name in one)
    return parts_of(
        row,
        columns,
        tuple(texts),
        {name: tuple(one.get(name, math.nan) for one in ratings) for name in aspects},
    )


def _rating(value: Any, name: str) -> float:
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("Rating", "rating") if key in value), None)
    if is_unrated(value):
        return math.nan
    if isinstance(value, str):
        found = number_in(value)
        if found is None:
            raise RowError(
                f"{name}: the rating is {shown(value, SHOWN)}; expected a number or N/A", "a rating that is no number"
            )
        value = found
    return number_of(value, name)


def from_helpsteer(row: Row, columns: Columns = PLAIN) -> Parts:
    """HelpSteer and HelpSteer2: ``prompt``, ``response`` and columns of numbers, each an objective.

    Rows with the same prompt are a group. A number may be written as a text; "N/A" and the like are no label. Columns
    that only number the rows are no objectives.

    Raises:
        InputError: without a place; a column is missing or of another form.
    """
    names = [n for n in row if n not in (*columns.taken(), "response") and n not in columns.ignored]
    labels = {
        str(name): (number_of(value, f"column {name!r}"),)
        for name in names
        if (value := number_in(row[name])) is not None and (name in columns.objectives or not is_numbering(str(name)))
    }
    return parts_of(row, columns, (text_of(row, "response"),), dict(labels))


def number_in(value: Any) -> Any:
    """The number that a cell holds, also as a text; None if it holds none. True and false are none."""
    if isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            return None
        return found if math.isfinite(found) and "_" not in value else None
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    return value if number and not is_missing(value) else None


def is_unrated(value: Any) -> bool:
    """Whether a cell has nothing in it, or what raters write where there is no rating."""
    return is_missing(value) or (isinstance(value, str) and value.strip().lower() in _NO_RATING)


def is_numbering(name: str) -> bool:
    """Whether a column is named as one that numbers rows."""
    low = name.strip().lower()
    return low in _NUMBERING or low.endswith(("_id", "_idx", "_index", "-id"))
