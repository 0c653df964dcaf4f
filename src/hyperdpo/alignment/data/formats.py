"""Layouts of preference data: the columns by which each is known, and how a row becomes the parts of a group.

A converter turns one row (a mapping of column names to values) into :class:`Parts`; it sees no other row.
:data:`FORMATS` names all layouts; :func:`detect_format` chooses one by the columns of the first row. Errors have no
place; the reader adds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from hyperdpo.alignment.data.cells import (
    Row,
    RowError,
    answer,
    column,
    is_list,
    is_missing,
    is_unrated,
    number_in,
    number_of,
    numbers_of,
    text_of,
    turns,
    wrong,
)
from hyperdpo.alignment.data.pairs import ALSO, from_pair
from hyperdpo.alignment.data.parts import PLAIN, PROMPTS, Columns, Parts, parts_of
from hyperdpo.data.groups import abridged
from hyperdpo.errors import InputError

#: Objective -> its column in PKU-SafeRLHF.
PKU_COLUMNS = {"helpful": "better_response_id", "harmless": "safer_response_id"}
#: The columns that hold the preference, which also name its objective.
HELPSTEER2, HELPSTEER3 = "preference_strength", "overall_preference"
#: Layouts in which a pair may have no preferred response.
UNDECIDED = ("helpsteer2", "helpsteer3")
#: Names of columns that only number or name rows.
_NUMBERING = ("id", "index", "idx", "row", "rowid", "unnamed: 0", "__index_level_0__", "level_0")


def from_lists(row: Row, columns: Columns = PLAIN, *, responses: str, labels: str) -> Parts:
    """``responses`` (n texts) and ``labels`` {objective: n numbers, or null}.

    A response of a conversation may also be a list of one assistant message. A number may be null: that response has
    no label.

    Raises:
        InputError: a column is missing or of another form.
    """
    texts = column(row, responses)
    if not is_list(texts):
        raise wrong(f"column {responses!r}", texts, "a list of texts", f"column {responses!r} is no list of texts")
    named = [(turns(text, f"{responses}[{k}]"), f"{responses}[{k}]") for k, text in enumerate(texts)]
    values = column(row, labels)
    if not isinstance(values, Mapping):
        reason = f"column {labels!r} is no object of objectives"
        raise wrong(f"column {labels!r}", values, "an object of objectives with one list each", reason)
    found = {str(name): numbers_of(value, f"{labels}.{name}") for name, value in values.items()}
    return parts_of(row, columns, tuple(answer(text, name) for text, name in named), found)


def from_pku(row: Row, columns: Columns = PLAIN) -> Parts:
    """PKU-SafeRLHF: ``prompt``, ``response_0``, ``response_1``, ``better_response_id``, ``safer_response_id``.

    The objectives are ``helpful`` (the better response's label is 1, the other's 0) and ``harmless`` (likewise the
    safer one's). A data set may lack one of the two columns.

    Raises:
        InputError: a column is missing, or an id is neither 0 nor 1.
    """
    completions = (text_of(row, "response_0"), text_of(row, "response_1"))
    found = {name: own for name, own in PKU_COLUMNS.items() if own in row}
    if not found:
        column(row, PKU_COLUMNS["helpful"])
    labels: dict[str, tuple[float, ...] | None] = {}
    for name, own in found.items():
        chosen = row[own]
        if not is_missing(chosen) and (isinstance(chosen, bool | np.bool_) or chosen not in (0, 1)):
            reason = f"column {own!r} is neither 0 nor 1"
            raise wrong(f"column {own!r}", chosen, "0 or 1, the response that is preferred", reason)
        labels[name] = None if is_missing(chosen) else (float(chosen == 0), float(chosen == 1))
    return parts_of(row, columns, completions, labels)


def from_strength(row: Row, columns: Columns = PLAIN, *, responses: tuple[str, str], strength: str) -> Parts:
    """Two responses and a preference from -3 to 3, as in HelpSteer2 and HelpSteer3.

    Below 0 the first response is preferred, above 0 the second; 0 prefers neither and is no label. How much a response
    is preferred is not used, nor are ratings beside it.

    Raises:
        InputError: a column is missing, or the preference is no number from -3 to 3.
    """
    completions = (text_of(row, responses[0]), text_of(row, responses[1]))
    cell = column(row, strength)
    number = number_in(cell)
    value = number_of(cell if number is None else number, f"column {strength!r}")
    if abs(value) > 3:
        reason = f"{strength} is not from -3 to 3"
        raise RowError(f"column {strength!r} is {value:g}; expected a number from -3 to 3", reason)
    decided = value < 0 or value > 0  # neither holds of NaN
    label = (float(value < 0), float(value > 0)) if decided else None
    return parts_of(row, columns, completions, {columns.objective or strength: label})


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


def _is_numbering(name: str) -> bool:
    """Whether a column's name says that it numbers the rows."""
    low = name.strip().lower()
    return low in _NUMBERING or low.endswith(("_id", "_idx", "_index", "-id"))


#: This package's own layout, and listwise scores.
from_groups = partial(from_lists, responses="completions", labels="labels")
from_scores = partial(from_lists, responses="responses", labels="scores")


class Format(NamedTuple):
    """A converter, and the columns by which its rows are known."""

    convert: Callable[[Row, Columns], Parts]
    columns: tuple[str, ...]
    """All of these."""
    one_of: tuple[str, ...] = ()
    """At least one of these, too."""
    prompts: tuple[str, ...] = PROMPTS
    """The columns that may hold the prompt, one of which has to be there."""
    optional_prompt: bool = False
    also: tuple[str, ...] = ()
    """Columns that data sets of this layout have and that are not used: they never count as left over."""
    by_prompt: bool = False
    """A row has one response, and rows with the same prompt are a group."""

    def prompt_column(self, row: Row, wanted: str | None, ignored: frozenset[str]) -> str | None:
        """The column of a row that holds the prompt; None if there is none."""
        if wanted is not None:
            return wanted if wanted in row else None
        return next((name for name in self.prompts if name in row and name not in ignored), None)

    def fits(self, row: Row, wanted: str | None = None, ignored: frozenset[str] = frozenset()) -> bool:
        """Whether a row has the columns of this layout."""
        return (
            all(c in row and c not in ignored for c in self.columns)
            and (not self.one_of or any(c in row for c in self.one_of))
            and (self.optional_prompt or self.prompt_column(row, wanted, ignored) is not None)
        )

    def resolved(self, row: Row, columns: Columns, wanted: str | None) -> Columns:
        """The columns of all rows, by the first one.

        Raises:
            InputError: no column ``wanted``, or a column of this layout.
        """
        if wanted is not None:
            column(row, wanted)
            if wanted in (*self.columns, *self.one_of):
                raise InputError(f"--prompt-column {wanted}: holds responses or labels here; expected another column")
        found = self.prompt_column(row, wanted, columns.ignored)
        return replace(columns, prompt=found if found is not None or self.optional_prompt else self.prompts[0])

    def described(self) -> str:
        """The columns, for a message."""
        names = (() if self.optional_prompt else (self.prompts[0],)) + self.columns
        return ", ".join(names) + (f" and {' or '.join(self.one_of)}" if self.one_of else "")


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_PKU_ALSO = """
    prompt_source is_response_0_safe is_response_1_safe
    response_0_source response_0_sha256 response_0_harm_category response_0_severity_level
    response_1_source response_1_sha256 response_1_harm_category response_1_severity_level
"""
_HELPSTEER2_ALSO = """
    split preference_statement preference_elaboration three_most_similar_preferences all_preferences_unprocessed
"""
_PREFERRED_2 = partial(from_strength, responses=("response_1", "response_2"), strength=HELPSTEER2)
_PREFERRED_3 = partial(from_strength, responses=("response1", "response2"), strength=HELPSTEER3)

#: In the order in which they are tried.
FORMATS: dict[str, Format] = {
    "groups": Format(from_groups, ("completions", "labels"), also=("truncated",)),
    "scores": Format(from_scores, ("responses", "scores")),
    "pku": Format(from_pku, ("response_0", "response_1"), tuple(PKU_COLUMNS.values()), also=_names(_PKU_ALSO)),
    "helpsteer3": Format(
        _PREFERRED_3,
        ("response1", "response2", HELPSTEER3),
        prompts=("context", *PROMPTS),
        also=_names("domain language individual_preference"),
    ),
    "helpsteer2": Format(_PREFERRED_2, ("response_1", "response_2", HELPSTEER2), also=_names(_HELPSTEER2_ALSO)),
    "pairs": Format(from_pair, ("chosen", "rejected"), optional_prompt=True, also=ALSO),
    "ultrafeedback": Format(
        from_ultrafeedback,
        ("completions",),
        prompts=("instruction", *PROMPTS),
        also=_names("source models correct_answers incorrect_answers"),
    ),
    "helpsteer": Format(from_helpsteer, ("response",), by_prompt=True),
}


def detect_format(row: Row, prompt_column: str | None = None, ignored: frozenset[str] = frozenset()) -> str:
    """The name of the first format that the columns of a row fit.

    Args:
        prompt_column: the column that holds the prompt; None: one of :data:`PROMPTS`.
        ignored: columns that are not looked at.

    Raises:
        InputError: none fits.
    """
    for name, form in FORMATS.items():
        if form.fits(row, prompt_column, ignored):
            return name
    expected = "; ".join(f"{name}: {form.described()}" for name, form in FORMATS.items())
    found = abridged([str(c) for c in row])
    if prompt_column is not None and prompt_column not in row:
        raise InputError(f"no column {prompt_column!r}, which --prompt-column names; the columns are {found}")
    raise InputError(
        f"found the columns {found}; expected those of a format ({expected}; the prompt may also be in "
        f"{', '.join(PROMPTS[1:])} or in a column that --prompt-column names)"
    )
