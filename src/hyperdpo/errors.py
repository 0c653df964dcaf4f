"""The one exception that stands for a user's mistake."""

from __future__ import annotations

from typing import Any


class InputError(ValueError):
    """Bad input: a file, a setting or an argument that cannot be used.

    The message is ONE line that says where (file and line, argument or setting), what was found and
    what was expected. The command line prints it without a traceback and exits with code 2.
    """


def shown(value: Any) -> str:
    """A value in a message: on one line, numbers of numpy and tensors as plain numbers (2, not np.int64(2))."""
    return " ".join(repr(_plain(value)).split())


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value
