"""Columns of preference data that no layout uses: they are named, or refused if they could be part of the prompt."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from hyperdpo.alignment.data.cells import Row, is_list, is_missing
from hyperdpo.alignment.data.questions import normal
from hyperdpo.errors import InputError

_PROMPT = """
    prompt prompts question questions instruction instructions query queries input inputs context contexts system
    history conversation conversations message messages dialog dialogs dialogue dialogues turns text passage passages
    document documents article post background persona premise problem
"""
_ABOUT = """
    id ids source type kind category class len length tokens count num number lang language hash sha md5 sha256 score
    scores rating ratings model models name url index idx date time label labels style difficulty quality
"""
#: Words in the names of columns that hold a prompt or a part of it.
_PROMPT_WORDS = frozenset(_PROMPT.split())
#: Words in the names of columns that describe a text.
_ABOUT_WORDS = frozenset(_ABOUT.split())
#: Texts with more characters on average, most of them different, may be part of the prompt.
_LONG = 20
_IDENTIFIER = re.compile(r"[0-9A-Za-z_.:/+=\\-]+")


@dataclass
class _Column:
    texts: int = 0
    characters: int = 0
    identifiers: int = 0
    distinct: set[int] = field(default_factory=set)


class LeftOver:
    """Collects the columns of all rows that are not read.

    Args:
        known: columns of the layout.
        ignored: columns that the user wants ignored.
    """

    def __init__(self, known: Collection[str], ignored: Collection[str]):
        self._passed = frozenset((*known, *ignored))
        self._columns: dict[str, _Column] = {}

    def see(self, row: Row, used: Collection[str] = (), question: str = "") -> None:
        """Record the columns of a row.

        Args:
            used: columns of this row that were read.
            question: the question of its prompt; a column that only repeats it does not count.
        """
        sides = [row[name] for name in ("chosen", "rejected") if name in row]
        for name, value in row.items():
            again = name == "messages" and any(_equal(value, side) for side in sides)  # the chosen conversation
            same = isinstance(value, str) and question and normal(value) == question
            if name in self._passed or name in used or again or same:
                continue
            column = self._columns.setdefault(str(name), _Column())
            text = "" if is_missing(value) else _text(value)
            if text.strip():
                column.texts += 1
                column.characters += len(text)
                column.identifiers += bool(_IDENTIFIER.fullmatch(text))
                column.distinct.add(hash(text))

    def names(self, source: str) -> tuple[str, ...]:
        """The columns that are left over.

        Raises:
            InputError: one could be part of the prompt.
        """
        for name, column in self._columns.items():
            if not column.texts:
                continue
            why = ""
            words = set(re.findall(r"[a-z]+\d*", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()))
            mean = column.characters / column.texts
            if words & _PROMPT_WORDS and not words & _ABOUT_WORDS:
                why = "by its name"
            elif mean > _LONG and len(column.distinct) > column.texts / 2 and column.identifiers < column.texts / 2:
                why = f"it has texts of {mean:.0f} characters on average, most of them different"
            if why:
                raise InputError(
                    f"{source}: column {name!r} is not used and could be part of the prompt ({why}); expected "
                    f"--prompt-column {name} if it is the prompt, or --ignore-columns {name} to go on without it"
                )
        return tuple(self._columns)


def _text(value: Any) -> str:
    """All texts in a cell."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return " ".join(filter(None, map(_text, value.values())))
    if is_list(value):
        return " ".join(filter(None, map(_text, value)))
    return ""


def _equal(first: Any, second: Any) -> bool:
    if is_list(first) and is_list(second):
        return len(first) == len(second) and all(a == b for a, b in zip(first, second, strict=True))
    return bool(type(first) is type(second) and first == second)
