"""Rated responses: UltraFeedback (all responses of a prompt in a row) and HelpSteer (one response in a row)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hyperdpo.alignment.data.cells import Row, column, is_list, is_missing, number_of, text_of, wrong
from hyperdpo.alignment.data.parts import PLAIN, Columns, Parts, parts_of

#: What raters write where there is no rating.
_NO_RATING = ("n/a", "na", "", "none", "null", "nan", "-")
#: Names of columns that only number or name rows.
_NUMBERING = ("id", "index", "idx", "row", "rowid", "unnamed: 0", "__index_level_0__", "level_0")


def from_ultrafeedback(row: Row, columns: Columns = PLAIN) -> Parts:
    """UltraFeedback: ``instruction``, ``completions``, each with ``response`` and ``annotations`` {aspect: {Rating}}.

    Every aspect is an objective. A rating is a number, also one that is written as a text; "N/A", null or an aspect
    that is absent is a missing label of that response. Overall scores and rationales are not used.

    Raises:
        InputError: a column or a rating of another form.
    """
    rated = column(row, "completions")
    if not is_list(rated) or not all(isinstance(one, Mapping) for one in rated):
        expected = "a list of objects with response and annotations"
        raise wrong("column 'completions'", rated, expected, "column 'completions' is no list of rated responses")
    texts, ratings = [], []
    for k, one in enumerate(rated):
        text, annotations = one.get("response"), one.get("annotations")
        if not isinstance(text, str):
            raise wrong(f"completions[{k}].response", text, "a text", "a response that is no text")
        if is_missing(annotations):
            annotations = {}
        if not isinstance(annotations, Mapping):
            reason = "annotations that are no object of aspects"
            raise wrong(f"completions[{k}].annotations", annotations, "an object of aspects", reason)
        texts.append(text)
        ratings.append({str(name): _rating(value, f"completions[{k}], {name}") for name, value in annotations.items()})
    aspects = dict.fromkeys(name for one in ratings for name in one)
    labels = {name: tuple(one.get(name, math.nan) for one in ratings) for name in aspects}
    return parts_of(row, columns, tuple(texts), dict(labels))


def _rating(value: Any, name: str) -> float:
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("Rating", "rating") if key in value), None)
    if is_unrated(value):
        return math.nan
    number = number_in(value) if isinstance(value, str) else value
    if number is None:
        raise wrong(f"{name}: the rating", value, "a number or N/A", "a rating that is no number")
    return number_of(number, name)


def from_helpsteer(row: Row, columns: Columns = PLAIN) -> Parts:
    """HelpSteer and HelpSteer2: ``prompt``, ``response`` and columns of numbers, each an objective.

    Rows with the same prompt are a group. A number may be written as a text; "N/A" and the like are no label. Columns
    that only number the rows are no objectives.

    Raises:
        InputError: a column is missing or of another form.
    """
    names = [n for n in row if n not in (*columns.taken(), "response") and n not in columns.ignored]
    labels = {
        str(name): (number_of(value, f"column {name!r}"),)
        for name in names
        if (value := number_in(row[name])) is not None and (name in columns.objectives or not _is_numbering(str(name)))
    }
    return parts_of(row, columns, (text_of(row, "response"),), dict(labels))


def number_in(value: Any) -> Any:
    """The number that a cell holds, also as a text; None if it holds none. True and false are not numbers."""
    if isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            return None
        return found if math.isfinite(found) and "_" not in value else None
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)
    return value if number and not is_missing(value) else None


def is_unrated(value: Any) -> bool:
    """Whether a cell is empty, or holds what raters write where there is no rating."""
    return is_missing(value) or (isinstance(value, str) and value.strip().lower() in _NO_RATING)


def _is_numbering(name: str) -> bool:
    """Whether a column's name says that it numbers the rows."""
    low = name.strip().lower()
    return low in _NUMBERING or low.endswith(("_id", "_idx", "_index", "-id"))
