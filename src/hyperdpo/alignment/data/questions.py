"""The question of a prompt, its first user turn: groups with the same question stay on one side of a split.

A text may hold a whole conversation (:mod:`hyperdpo.alignment.data.transcripts`); its question is the same as that of
the messages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.alignment.data.transcripts import first_user_turn

_SENTENCE_END = re.compile(r"[.?!:。?!](?=\s|$)|\n")
#: A question of fewer words is never taken for the beginning of another one.
_LEAST_WORDS = 3


def question_of(prompt: Prompt) -> str:
    """The first user turn, with single spaces; all of a text that names no speakers."""
    if isinstance(prompt, str):
        return normal(first_user_turn(prompt))
    texts = [message["content"] for message in prompt if message.get("role") == "user"]
    if not texts:
        return normal(" ".join(str(message.get("content", "")) for message in prompt))
    return normal(first_user_turn(texts[0]))


def normal(text: str) -> str:
    """A text with single spaces between its words and none around it."""
    return " ".join(text.split())


def until_sentence_end(text: str) -> str:
    """The text up to its last end of a sentence, if it has one.

    A prompt that was found as the common beginning of two texts may hold the first words of both responses.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends and text[: ends[-1]].strip() else text


def same_questions(questions: Sequence[str], guessed: Sequence[bool]) -> list[int]:
    """A number for each group, equal where groups share a question; numbers follow the order of first appearance.

    Args:
        questions: the questions of the groups.
        guessed: whether a group's prompt is only the common beginning of its texts. Such a question counts as the same
            as one of at least three words that it begins with.
    """
    root: dict[str, str] = {question: question for question in questions}
    if any(guessed):
        open_ended = {question for question, one in zip(questions, guessed, strict=True) if one}
        before: list[str] = []
        for question in sorted(root):
            while before and not _goes_on(question, before[-1]):
                before.pop()
            if before and (question in open_ended or before[-1] in open_ended):
                root[question] = root[before[-1]]
            else:
                before.append(question)
    numbers: dict[str, int] = {}
    return [numbers.setdefault(root[question], len(numbers)) for question in questions]


def _goes_on(text: str, beginning: str) -> bool:
    if len(beginning.split()) < _LEAST_WORDS or not text.startswith(beginning):
        return False
    return len(text) == len(beginning) or not (text[len(beginning)].isalnum() and beginning[-1].isalnum())
