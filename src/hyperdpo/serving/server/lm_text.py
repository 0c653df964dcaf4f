"""Text from tokens, one by one: no half characters, no lost spaces, and nothing from a stop string on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hyperdpo.alignment.sampling import BROKEN

#: Tokens of the prompt that new tokens are decoded together with.
CONTEXT = 6


class GrowingText:
    """The text of a growing list of tokens.

    Args:
        tokenizer: not in use by another thread.
        context: ids before the first token. Where there are some, the text is what follows theirs, with the space that
            some tokenizers drop before a text's first word; without, it is the tokens decoded alone.
        stops: strings that end the text; they are not part of it.
    """

    def __init__(self, tokenizer: Any, context: Sequence[int] = (), stops: Sequence[str] = ()):
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids = _tail(tokenizer, context)
        self._start, self._read = 0, len(self._ids)  # ids that are decoded again, ids whose text is known
        self._kept = ""  # may be the beginning of a stop string
        #: Whether a stop string was found.
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now and was not before."""
        self._ids.append(token)
        known, now = self._decoded(self._read), self._decoded(len(self._ids))
        if len(now) <= len(known) or now.endswith(BROKEN):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return self._until_stop(now[len(known) :])

    def finish(self) -> str:
        """What was held back and belongs to the text after all."""
        known, now = self._decoded(self._read), self._decoded(len(self._ids))
        self._read = len(self._ids)
        text = self._until_stop(now[len(known) :]) + ("" if self.stopped else self._kept)
        self._kept = ""
        return text

    def _decoded(self, stop: int) -> str:
        ids = self._ids[self._start : stop]
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""

    def _until_stop(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._kept + text
        found = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self.stopped, self._kept = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._kept = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that a stop string begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def whole_text(tokenizer: Any, context: Sequence[int], tokens: Sequence[int]) -> str:
    """As :class:`GrowingText` of all tokens, decoded at once."""
    if not context:
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    tail = _tail(tokenizer, context)
    before = str(tokenizer.decode(tail, skip_special_tokens=True))
    return str(tokenizer.decode(tail + list(tokens), skip_special_tokens=True))[len(before) :]


def _tail(tokenizer: Any, context: Sequence[int]) -> list[int]:
    """The last tokens of a prompt, or all of them where these begin amid a character."""
    tail = list(context[-CONTEXT:])
    broken = bool(tail) and BROKEN in tokenizer.decode(tail, skip_special_tokens=True)
    return list(context) if broken else tail
