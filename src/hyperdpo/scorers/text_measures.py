"""Measures of a text: functions str -> number, for objectives without a reward model.

Every measure is deterministic, finite and >= 0, and 0 for a text without words. Shares are in per cent ("per 100
words"), so that a longer text is not better for its length alone. They know English only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hyperdpo.errors import InputError
from hyperdpo.files import read_yaml

Measure = Callable[[str], float]

_WORDS = read_yaml(Path(__file__).with_name("words.yaml"))
#: Feelings, praise and kindness in children's stories; lower case.
POSITIVE_WORDS = frozenset(_WORDS["positive"].split())
#: Fear, sorrow, anger and harm.
NEGATIVE_WORDS = frozenset(_WORDS["negative"].split())

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?…]+|\n+")
_QUOTATION_MARK = re.compile('["“”«»]')
_OPENING, _CLOSING = "“«", "”»"


def words(text: str) -> list[str]:
    """Runs of letters; an apostrophe inside a word belongs to it."""
    return _WORD.findall(text)


def positive_words(text: str) -> float:
    """Words of :data:`POSITIVE_WORDS` per 100 words. Negation is not seen: "not happy" counts as positive."""
    return _share_of(text, lambda word: word.lower() in POSITIVE_WORDS)


def negative_words(text: str) -> float:
    """Words of :data:`NEGATIVE_WORDS` per 100 words."""
    return _share_of(text, lambda word: word.lower() in NEGATIVE_WORDS)


def short_words(text: str) -> float:
    """Words of at most three letters per 100 words."""
    return _share_of(text, lambda word: len(word) <= 3)


def dialogue(text: str) -> float:
    """Letters inside double quotation marks, per cent of all letters.

    A mark opens after white space or at the start, and closes elsewhere. So a response that starts inside a quotation
    of its prompt, or is cut off inside one, is measured correctly.
    """
    quoted = letters = start = 0
    inside: bool | None = None
    for mark in _QUOTATION_MARK.finditer(text):
        opens = _opens(text, mark.start())
        count = _letters(text[start : mark.start()])
        letters += count
        # Text before the first mark is inside a quotation exactly if that mark closes.
        quoted += count if inside or (inside is None and not opens) else 0
        inside, start = opens, mark.end()
    count = _letters(text[start:])
    return _percent(quoted + (count if inside else 0), letters + count)


def sentence_length(text: str) -> float:
    """Mean words per sentence. A sentence ends at . ! ? or a line's end; the cut-off last one counts as one too."""
    lengths = [len(words(part)) for part in _SENTENCE_END.split(text)]
    lengths = [length for length in lengths if length]
    return sum(lengths) / len(lengths) if lengths else 0.0


def word_length(text: str) -> float:
    """Mean letters per word."""
    found = words(text)
    return sum(map(_letters, found)) / len(found) if found else 0.0


def distinct_words(text: str) -> float:
    """Different words per 100 words, capitals ignored."""
    found = [word.lower() for word in words(text)]
    return _percent(len(set(found)), len(found))


def word_count(text: str) -> float:
    """Number of words: the paper's "verboseness"."""
    return float(len(words(text)))


#: Every measure by its name, which is also the objective's name.
MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            *(positive_words, negative_words, dialogue, sentence_length),
            *(short_words, word_length, distinct_words, word_count),
        )
    }
)


def measure(name: str) -> Measure:
    """The measure of that name.

    Raises:
        InputError: there is none.
    """
    if name not in MEASURES:
        raise InputError(f"objective {name!r}: no text measure has this name; expected one of {', '.join(MEASURES)}")
    return MEASURES[name]


def measure_texts(texts: Iterable[str], names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Objective -> its value for each of the n texts.

    Raises:
        InputError: a name that no measure has, a name that is given twice, no name at all.
    """
    if not names or len(set(names)) != len(names):
        raise InputError(f"objectives {list(names)}: expected one or more different names of text measures")
    functions = {name: measure(name) for name in names}
    texts = list(texts)
    return {name: tuple(function(text) for text in texts) for name, function in functions.items()}


def _share_of(text: str, counts: Callable[[str], bool]) -> float:
    found = words(text)
    return _percent(sum(map(counts, found)), len(found))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))


def _opens(text: str, position: int) -> bool:
    """Whether the quotation mark at ``position`` opens a quotation."""
    mark = text[position]
    if mark in _OPENING or mark in _CLOSING:
        return mark in _OPENING
    return position == 0 or text[position - 1].isspace() or text[position - 1] in "([—-"
