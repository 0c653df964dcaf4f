"""Single cells of preference data: texts, conversations, numbers, and the errors for cells that hold something else.

Errors of this module have no place; :func:`hyperdpo.alignment.data.file_rows.refuse` adds it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hyperdpo.data.groups import abridged
from hyperdpo.errors import InputError, shown

Row = Mapping[str, Any]
#: A text, or the messages of a conversation (``role``, ``content``) that the response answers.
Prompt = str | list[dict[str, str]]

#: The largest label: labels are kept in single precision.
LARGEST = float(np.finfo(np.float32).max)
#: Characters of a cell that a message shows.
SHOWN = 40
#: The roles that ShareGPT gives other names.
_ROLES = {"human": "user", "gpt": "assistant"}
#: What raters write where there is no rating.
_NO_RATING = ("n/a", "na", "", "none", "null", "nan", "-")


class RowError(InputError):
    """A row that cannot be used; ``reason`` is the same for rows of one kind, so that they can be counted."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def wrong(name: str, value: Any, expected: str, reason: str) -> RowError:
    """The error for a cell ``name`` with a value that cannot be used."""
    return RowError(f"{name} is {shown(value, SHOWN)}; expected {expected}", reason)


def reason_of(error: InputError) -> str:
    """Why a row cannot be used, without the values of this one row."""
    if isinstance(error, RowError):
        return error.reason
    text = str(error).split(";")[0]
    return re.sub(r"\d+", "N", re.sub(r" is (['\"{\[].*)$", " is of another form", text))


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, or NaN, NA or NaT as pandas writes it."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def is_list(value: Any) -> bool:
    """Whether a cell holds several values; a text is one value."""
    return isinstance(value, np.ndarray) or (isinstance(value, Sequence) and not isinstance(value, str | bytes))


def column(row: Row, name: str) -> Any:
    """A cell.

    Raises:
        InputError: no such column.
    """
    if name not in row:
        raise RowError(f"no column {name!r}; the columns are {abridged([str(c) for c in row])}", f"no column {name!r}")
    return row[name]


def text_of(row: Row, name: str) -> str:
    """A cell that holds a text.

    Raises:
        InputError: it is missing or something else.
    """
    value = column(row, name)
    if not isinstance(value, str):
        raise wrong(f"column {name!r}", value, "a text", f"column {name!r} is no text")
    return value


def turns(value: Any, name: str = "prompt") -> Prompt:
    """A text, or messages without the keys that Arrow fills with null.

    A message has ``role`` and ``content``, or ShareGPT's ``from`` and ``value``; its content is a text or a list of
    text parts.

    Raises:
        InputError: something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        value = [value]
    if not is_list(value):
        reason = f"column {name!r} is neither a text nor a list of messages"
        raise wrong(f"column {name!r}", value, "a text or a list of messages", reason)
    return [_message(message, f"column {name!r}, message {number}") for number, message in enumerate(value, 1)]


def is_blank(prompt: Prompt) -> bool:
    """Whether a prompt asks nothing: its text, or all messages of the user, are empty or white space."""
    if isinstance(prompt, str):
        return not prompt.strip()
    asked = [message for message in prompt if message["role"] == "user"] or prompt
    return not any(message["content"].strip() for message in asked)


def _message(message: Any, place: str) -> dict[str, str]:
    kept = {k: v for k, v in message.items() if not is_missing(v)} if isinstance(message, Mapping) else {}
    if "role" not in kept and isinstance(kept.get("from"), str) and "value" in kept:
        kept = {"role": _ROLES.get(kept["from"], kept["from"]), "content": kept["value"]}
    if is_list(kept.get("content")):
        kept["content"] = "".join(_part(part, f"{place}, part {k}") for k, part in enumerate(kept["content"], 1))
    if not all(isinstance(kept.get(key), str) for key in ("role", "content")):
        reason = "a message without the texts role and content"
        raise wrong(place, message, "an object with the texts role and content", reason)
    return kept


def _part(part: Any, place: str) -> str:
    text, kind = (part.get("text"), part.get("type")) if isinstance(part, Mapping) else (part, None)
    if kind not in ("text", None):
        raise RowError(f"{place} is of type {kind!r}; expected parts of text only", "a part that is no text")
    if not isinstance(text, str):
        raise wrong(place, part, "parts of text only", "a part that is no text")
    return text


def answer(value: Prompt, name: str) -> str:
    """A text, or the content of the one assistant message.

    Raises:
        InputError: other messages.
    """
    if isinstance(value, str):
        return value
    roles = [message["role"] for message in value]
    if roles != ["assistant"]:
        raise RowError(
            f"column {name!r} has the messages {', '.join(roles) or '(none)'} behind the prompt; "
            "expected one, of the assistant",
            "other messages behind the prompt than one of the assistant",
        )
    if extra := ", ".join(sorted(set(value[0]) - {"role", "content"})):
        reason = f"a message with {extra}"
        raise RowError(f"column {name!r}: {reason}; expected role and content only", reason)
    return value[0]["content"]


def number_of(value: Any, name: str) -> float:
    """A label; NaN for one that is missing.

    Raises:
        InputError: no number, or one that is too large.
    """
    if is_missing(value):
        return math.nan
    if not isinstance(value, int | float | np.number | np.bool_):
        raise wrong(name, value, "a number or null", "a label that is no number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not abs(found) <= LARGEST:
        expected = f"a finite number of at most {LARGEST:.1e}"
        raise wrong(name, value, expected, "a label that is too large or not finite")
    return found


def numbers_of(values: Any, name: str) -> tuple[float, ...] | None:
    """Labels of the n responses, NaN where one is missing; None where all are.

    Raises:
        InputError: no list of numbers.
    """
    if is_missing(values):
        return None
    if not is_list(values):
        expected = "a list of numbers, one per response, or null"
        raise wrong(f"column {name!r}", values, expected, "labels that are no list of numbers")
    return tuple(number_of(value, f"column {name!r}, value {k}") for k, value in enumerate(values, 1))


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
