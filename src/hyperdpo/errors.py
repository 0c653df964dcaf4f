"""The one exception that stands for a user's mistake."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """Bad input: a file, a setting or an argument that cannot be used.

    The message is ONE line that says where (file and line, argument or setting), what was found and
    what was expected. The command line prints it without a traceback and exits with code 2.
    """


def shown(value: Any) -> str:
    """A value in a message: on one line, numbers of numpy and tensors as plain numbers (2, not np.int64(2))."""
    return " ".join(repr(_plain(value)).split())


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: the nearest one that is, or nothing."""
    near = get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]}?" if near else ""


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
