"""What preference data looks like from outside: the layouts of rows, and what their columns mean.

A converter turns one row (a mapping of column names to values) into :class:`Parts`, and knows nothing of the other
rows. :data:`FORMATS` names them all; :func:`detect_format` chooses by the columns of the first row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hyperdpo.alignment.data.cells import (
    SHOWN,
    Row,
    RowError,
    answer,
    column,
    is_list,
    is_missing,
    number_of,
    numbers_of,
    text_of,
    turns,
)
from hyperdpo.alignment.data.pairs import ALSO, from_pair
from hyperdpo.alignment.data.parts import PLAIN, PROMPTS, Columns, Parts, parts_of
from hyperdpo.alignment.data.rated import from_helpsteer, from_ultrafeedback, number_in
from hyperdpo.data.groups import abridged
from hyperdpo.errors import InputError, shown

# Converters -----------------------------------------------------------------------------------------------------------


def from_groups(row: Row, columns: Columns = PLAIN) -> Parts:
    """This package's own form: ``prompt``, ``completions`` (n texts), ``labels`` {objective: n numbers, or null}.

    A completion of a conversation may also be a list of one assistant message. A number may be null: that response has
    no label.

    Raises:
        InputError: without a place; a column is missing or of another form.
    """
    return _listwise(row, columns, "completions", "labels")


def from_scores(row: Row, columns: Columns = PLAIN) -> Parts:
    """Listwise scores: ``prompt``, ``responses`` (n texts), ``scores`` {objective: n numbers, or null}.

    Raises:
        InputError: without a place; a column is missing or of another form.
    """
    return _listwise(row, columns, "responses", "scores")


def from_pku(row: Row, columns: Columns = PLAIN) -> Parts:
    """PKU-SafeRLHF: ``prompt``, ``response_0``, ``response_1``, ``better_response_id``, ``safer_response_id``.

    The objectives are ``helpful`` (the better response's label is 1, the other's 0) and ``harmless`` (likewise the
    safer one's). A data set may lack one of the two columns.

    Raises:
        InputError: without a place; a column is missing, or an id is neither 0 nor 1.
    """
    completions = (text_of(row, "response_0"), text_of(row, "response_1"))
    found = {name: own for name, own in PKU_COLUMNS.items() if own in row}
    if not found:
        column(row, PKU_COLUMNS["helpful"])
    labels: dict[str, tuple[float, ...] | None] = {}
    for name, own in found.items():
        chosen = row[own]
        if is_missing(chosen):
            labels[name] = None
        elif isinstance(chosen, bool | np.bool_) or chosen not in (0, 1):
            raise RowError(
                f"column {own!r} is {shown(chosen, SHOWN)}; expected 0 or 1, the response that is preferred",
                f"column {own!r} is neither 0 nor 1",
            )
        else:
            labels[name] = (float(chosen == 0), float(chosen == 1))
    return parts_of(row, columns, completions, labels)


#: Objective -> its column in PKU-SafeRLHF.
PKU_COLUMNS = {"helpful": "better_response_id", "harmless": "safer_response_id"}


def from_helpsteer3(row: Row, columns: Columns = PLAIN) -> Parts:
    """HelpSteer3: ``context`` (messages), ``response1``, ``response2``, ``overall_preference`` from -3 to 3.

    Below 0 the first response is preferred, above 0 the second; 0 says that neither is, which is no label. How much
    it is preferred is not used.

    Raises:
        InputError: without a place; a column is missing, or the preference is no number from -3 to 3.
    """
    return _preferred(row, columns, ("response1", "response2"), HELPSTEER3)


def from_helpsteer2(row: Row, columns: Columns = PLAIN) -> Parts:
    """HelpSteer2's preferences: ``prompt``, ``response_1``, ``response_2``, ``preference_strength`` from -3 to 3.

    Signs mean what they mean in HelpSteer3. Ratings beside them are not used.

    Raises:
        InputError: without a place; a column is missing, or the preference is no number from -3 to 3.
    """
    return _preferred(row, columns, ("response_1", "response_2"), HELPSTEER2)


#: The columns that hold the preference, and the names of its objective.
HELPSTEER2, HELPSTEER3 = "preference_strength", "overall_preference"
#: Layouts in which a pair may have no preferred response.
UNDECIDED = ("helpsteer2", "helpsteer3")


def _preferred(row: Row, columns: Columns, responses: tuple[str, str], name: str) -> Parts:
    """A pair with a preference: below 0 for the first response, above 0 for the second."""
    completions = (text_of(row, responses[0]), text_of(row, responses[1]))
    cell = column(row, name)
    value = number_of(cell if number_in(cell) is None else number_in(cell), f"column {name!r}")
    if abs(value) > 3:
        raise RowError(f"column {name!r} is {value:g}; expected a number from -3 to 3", f"{name} is not from -3 to 3")
    decided = value < 0 or value > 0  # neither holds of NaN
    label = (float(value < 0), float(value > 0)) if decided else None
    return parts_of(row, columns, completions, {columns.objective or name: label})


def _listwise(row: Row, columns: Columns, completions: str, labels: str) -> Parts:
    texts = column(row, completions)
    if not is_list(texts):
        raise RowError(
            f"column {completions!r} is {shown(texts, SHOWN)}; expected a list of texts",
            f"column {completions!r} is no list of texts",
        )
    named = [turns(text, f"{completions}[{k}]") for k, text in enumerate(texts)]
    values = column(row, labels)
    if not isinstance(values, Mapping):
        raise RowError(
            f"column {labels!r} is {shown(values, SHOWN)}; expected an object of objectives with one list each",
            f"column {labels!r} is no object of objectives",
        )
    return parts_of(
        row,
        columns,
        tuple(answer(text, f"{completions}[{k}]") for k, text in enumerate(named)),
        {str(name): numbers_of(value, f"{labels}.{name}") for name, value in values.items()},
    )


# Layouts --------------------------------------------------------------------------------------------------------------


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
        if not all(c in row and c not in ignored for c in self.columns):
            return False
        if self.one_of and not any(c in row for c in self.one_of):
            return False
        return self.optional_prompt or self.prompt_column(row, wanted, ignored) is not None

    def resolved(self, row: Row, columns: Columns, wanted: str | None) -> Columns:
        """The columns of all rows, by the first one.

        Raises:
            InputError: without a place; no column ``wanted``, or a column of this layout.
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


def _formats() -> dict[str, Format]:
    sides = ("response_0", "response_1")
    pku = ("prompt_source", *(f"{one}_{what}" for one in sides for what in ("source", "sha256")))
    pku += tuple(f"{one}_{what}" for one in sides for what in ("harm_category", "severity_level"))
    pku += tuple(f"is_{one}_safe" for one in sides)
    return {
        "groups": Format(from_groups, ("completions", "labels")),
        "scores": Format(from_scores, ("responses", "scores")),
        "pku": Format(from_pku, sides, tuple(PKU_COLUMNS.values()), also=pku),
        "helpsteer3": Format(
            from_helpsteer3,
            ("response1", "response2", HELPSTEER3),
            prompts=("context", *PROMPTS),
            also=("domain", "language", "individual_preference"),
        ),
        "helpsteer2": Format(
            from_helpsteer2,
            ("response_1", "response_2", HELPSTEER2),
            also=(
                *("split", "preference_statement", "preference_elaboration"),
                *("three_most_similar_preferences", "all_preferences_unprocessed"),
            ),
        ),
        "pairs": Format(from_pair, ("chosen", "rejected"), optional_prompt=True, also=ALSO),
        "ultrafeedback": Format(
            from_ultrafeedback,
            ("completions",),
            prompts=("instruction", *PROMPTS),
            also=("source", "models", "correct_answers", "incorrect_answers"),
        ),
        "helpsteer": Format(from_helpsteer, ("response",), by_prompt=True),
    }


#: In the order in which they are tried.
FORMATS: dict[str, Format] = _formats()


def detect_format(row: Row, prompt_column: str | None = None, ignored: frozenset[str] = frozenset()) -> str:
    """The name of the first format that the columns of a row fit.

    Args:
        prompt_column: the column that holds the prompt; None: one of :data:`PROMPTS`.
        ignored: columns that are not looked at.

    Raises:
        InputError: without a place; none fits.
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
