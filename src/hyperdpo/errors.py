"""The exception for users' mistakes, and the words of its messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """Bad input: a file, a setting or an argument that cannot be used.

    The message is ONE line that says where (file and line, argument or setting), what was found and
    what was expected. The command line prints it without a traceback and exits with code 2.
    """


def shown(value: Any, most: int | None = None) -> str:
    """A value in a message: on one line, numbers of numpy and tensors as plain numbers (2, not np.int64(2)).

    Args:
        most: characters to cut it to; None: all of it. What cannot be printed is escaped.
    """
    try:
        text = repr(_plain(value))
    except ValueError:  # an integer of more digits than Python writes
        text = (
            f"a number of about {int(value.bit_length() * math.log10(2))} digits" if type(value) is int else "a value"
        )
    text = " ".join(text.split()).encode("utf-8", "backslashreplace").decode()
    return text if most is None or len(text) <= most else f"{text[:most]}..."


def brief(value: Any, most: int = 80) -> str:
    """A value of JSON in a message: short, on one line, however large or deep it is.

    Args:
        most: characters of a text that are shown.
    """
    if value is None:
        return "null"
    if isinstance(value, Sequence) and not isinstance(value, str):
        plain = len(value) <= 8 and all(isinstance(one, int | float) for one in value)
        return shown(list(value)) if plain else f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    return shown(value[:most] if isinstance(value, str) else value, most)


def one_line(error: BaseException | str, most: int = 200) -> str:
    """The message of another library's error, on one line and cut."""
    return " ".join(str(error).split())[:most]


def counted(number: int, noun: str) -> str:
    """``1 objective``, ``2 objectives``, ``1,000 queries``."""
    if number != 1:
        noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one of its section, or one that contains it.

    Parts of names are separated by dots. Without such a name the text is empty.
    """
    section, _, last = name.rpartition(".")
    names = [one for one in known if one.rpartition(".")[0] == section]
    near = get_close_matches(last, [one.rpartition(".")[2] for one in names], 1)
    longer = [one.rpartition(".")[2] for one in names if last in one.rpartition(".")[2]] if len(last) > 2 else []
    found = (near + longer)[:1]
    return f"; did you mean {section}{'.' if section else ''}{found[0]}?" if found else ""


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
