"""Conversations that are written as one text: where the first user turn is, and where answers begin.

Two kinds of marker separate turns: tokens of chat templates (``<|im_start|>user``) and names of speakers (``USER:``).
Markers count only in a text that is laid out as a conversation: one that begins with a marker, or ends with the marker
after which an answer is expected. A question that only mentions a marker keeps its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

USER, ANSWER, OTHER = "user", "answer", "other"

_ROLES = {
    **dict.fromkeys(("user", "human", "prompter", "user_token"), USER),
    **dict.fromkeys(("assistant", "model", "bot", "chatbot", "gpt", "chatbot_token"), ANSWER),
}
#: Tokens before a text, which are no part of it.
_BEGINNINGS = """
    <s> <bos> <BOS_TOKEN> <|begin_of_text|> <|startoftext|> <|endoftext|> <｜begin▁of▁sentence｜> <|bos|> [gMASK] <sop>
"""
#: Tokens after a turn.
_ENDS = """
    </s> <eos> <|eos|> <|endoftext|> <|end_of_text|> <|im_end|> <|eot_id|> <|eom_id|> <|eot|> <|end|> <|end_of_turn|>
    <end_of_turn> <|END_OF_TURN_TOKEN|> <end_of_utterance> <EOS_TOKEN> <｜end▁of▁sentence｜>
"""
_SYSTEM_TURN = re.compile(r"\s*<<SYS>>.*?<</SYS>>|\s*\[SYSTEM_PROMPT\].*?\[/SYSTEM_PROMPT\]", re.DOTALL)
#: Sentences that come before the first turn in the data and models that made them common.
_PREAMBLE = re.compile(r"BEGINNING OF CONVERSATION:|A chat between ")


class Mark(NamedTuple):
    """A marker in a text."""

    start: int
    end: int
    role: str
    form: tuple[bool, ...] = ()
    """How it is written; markers of one conversation are written alike."""


# Tokens of chat templates ---------------------------------------------------------------------------------------------


#: What every text with such a token contains -> the token.
_TOKENS = {
    "<|im_start|>": r"<\|im_start\|>\s*(\w+)[^\S\n]*\n?",
    "_header_id|>": r"<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*",
    "<|header_start|>": r"<\|header_start\|>\s*(\w+)\s*<\|header_end\|>\s*",
    "<|start_of_role|>": r"<\|start_of_role\|>\s*(\w+)\s*<\|end_of_role\|>\s*",
    "<start_of_turn>": r"<start_of_turn>\s*(\w+)[^\S\n]*\n?",
    "<|start|>": r"<\|start\|>(\w+)(?:<\|channel\|>\w+)?(?:<\|message\|>)?",
    "_TOKEN|>": r"(?:<\|START_OF_TURN_TOKEN\|>)?<\|(USER_TOKEN|CHATBOT_TOKEN|SYSTEM_TOKEN)\|>",
    "<extra_id_": r"<extra_id_\d>(User|Assistant|System)\b[^\S\n]*\n?",
    "INST]": r"\[(/?)INST\]",
    "|>": r"<\|((?i:user|assistant|system|prompter|human|bot|model))\|>[^\S\n]*\n?",
    "｜>": r"<｜(User|Assistant|System)｜>",
    ">:": r"<(human|bot|user|assistant|system)>:",
}


def _token_marks(text: str) -> Iterator[list[Mark]]:
    """The markers in a text, by family."""
    if "<" not in text and "[" not in text:
        return
    for hint, pattern in _TOKENS.items():
        if hint in text:
            marks = [
                Mark(m.start(), m.end(), _role(m[1]), (text[: m.start()].rstrip(" \t")[-1:] in ("", "\n", ">"),))
                for m in re.finditer(pattern, text)
            ]
            if marks:
                yield marks


def _role(name: str) -> str:
    if name in ("", "/"):
        return ANSWER if name else USER
    return _ROLES.get(name.lower(), OTHER)


def _turn_of_tokens(text: str) -> str | None:
    for marks in _token_marks(text):
        opens = marks[-1].role == ANSWER and not bare(text[marks[-1].end :])
        if marks[0].start and not opens and not text.startswith("<extra_id_", marks[0].start):
            continue
        if marks[-1].form[0]:  # those in the middle of a line are only mentioned
            marks = [mark for mark in marks if mark.form[0] or not mark.start]
        user = next((mark for mark in marks if mark.role == USER), None)
        answers = [mark for mark in marks if mark.role == ANSWER]
        if answers and answers[0] is marks[0] and bare(text[: marks[0].start]):
            return text[: marks[0].start]  # the first turn has no marker of its own
        if user is None or (answers and answers[0] < user):
            continue
        behind = [mark for mark in marks if mark > user]
        if answers and text.startswith("[INST]", user.start):  # nothing but these two marks a border
            following = next((m.start for m in behind if m.role == USER and m > answers[0]), len(text))
            behind = [mark for mark in answers if mark.start < following][-1:]
        return text[user.end : behind[0].start if behind else len(text)]
    return None


# Names of speakers ----------------------------------------------------------------------------------------------------


class _Names(NamedTuple):
    users: tuple[str, ...]
    answers: tuple[str, ...]
    anywhere: bool = True
    """Text may stand before the first turn."""
    inline: bool = True
    """Names need not begin a line."""
    alone: bool = True
    """A text that begins with a user's name and names nobody else is that user's turn."""
    examples: bool = False
    """Several turns are examples, of which the last one is the question."""


_NAMES = (
    _Names(("Human", "User", "Prompter"), ("Assistant", "Bot", "Chatbot", "AI", "Model", "GPT")),
    _Names(("HUMAN", "USER", "PROMPTER"), ("ASSISTANT", "BOT", "CHATBOT", "AI", "MODEL", "GPT")),
    _Names(
        ("human", "user", "prompter"), ("assistant", "bot", "chatbot", "ai", "model", "gpt"), inline=False, alone=False
    ),
    _Names(("Instruction", "INSTRUCTION"), ("Response", "RESPONSE", "Output", "Answer", "Assistant"), inline=False),
    _Names(("Question", "QUESTION"), ("Answer", "ANSWER", "Response"), anywhere=False, examples=True),
    _Names(("Q",), ("A",), anywhere=False, examples=True),
)
_HASH, _LINE, _BLANK = range(3)  # places in Mark.form
_SYSTEM = re.compile(r"(?:#+\s*)?(?:System|SYSTEM|system)(?: [Pp]rompt| [Mm]essage)?\s*:")
_INPUT = re.compile(r"(?:^|(?<=\n))[^\S\n]*(#*)[^\S\n]*(?:Input|INPUT)[^\S\n]*:")


def _named(text: str, names: tuple[str, ...], role: str) -> Iterator[Mark]:
    there = [name for name in names if f"{name}:" in text or f"{name} :" in text or f"{name}\t:" in text]
    if not there:
        return
    pattern = (
        rf"(?:(?<![^\s>\]])|(?=##))(#+[^\S\n]*)?(?:(?:GPT4|Code|Math) (?:Correct )?)?(?:{'|'.join(there)})[^\S\n]?:"
    )
    for m in re.finditer(pattern, text):
        before = text[: m.start()].rstrip(" \t")
        line = not before or before[-1] in "\n>]"
        blank = line and before.endswith("\n") and before[:-1].rstrip(" \t")[-1:] in ("\n", "")
        yield Mark(m.start(), m.end(), role, (bool(m[1]), line, blank))


def _turn_of_names(text: str) -> str | None:
    for family in _NAMES:
        marks = sorted([*_named(text, family.users, USER), *_named(text, family.answers, ANSWER)])
        if marks and (found := _first_named(text, family, marks)) is not None:
            return found
    return None


def _first_named(text: str, family: _Names, marks: list[Mark]) -> str | None:
    last = marks[-1]
    if last.role == ANSWER and not bare(text[last.end :]):
        return _opened(text, family, marks[:-1], last)
    first = marks[0]
    led = _SYSTEM.match(text) or _PREAMBLE.match(text)
    users = [mark for mark in marks if mark.role == USER]
    if not users or (first.start and not led) or (first.start and not family.anywhere):
        return None
    first = users[0]
    inline = family.inline and _PREAMBLE.match(text)
    ends = [m for m in marks if m.role == ANSWER and m.start > first.start and m.form[_HASH] == first.form[_HASH]]
    ends = [m for m in ends if (m.form[_LINE] or inline) and bare(text[first.end : m.start])]
    end = ends[0].start if ends else None
    if end is None and (first.start or not (family.alone or first.form[_HASH])):
        return None
    return _with_input(text[first.end : end], family, first)


def _opened(text: str, family: _Names, marks: list[Mark], last: Mark) -> str | None:
    """The first turn of a text that ends with the marker of an answer.

    The other markers are written as that one: with ``#``, at the beginning of a line, after an empty line.
    """
    if not (family.inline or last.form[_LINE]):
        return None
    line = last.form[_LINE]
    users = [m for m in marks if m.role == USER and m.form[_HASH] == last.form[_HASH]]
    users = ([m for m in users if m.form[_LINE]] if line else []) or (users if family.inline else [])
    answers = [m for m in marks if m.role == ANSWER and (not line or m.form == last.form)]
    if not users:
        whole = line and family.anywhere and not family.examples and (last.form[_BLANK] or last.form[_HASH])
        begins = (answers[0] if answers else last).start
        return text[:begins] if whole and bare(text[:begins]) else None
    first = users[0]
    if first.start and not family.anywhere and not first.form[_HASH]:
        return None
    before = [m for m in answers if m.start < first.start]
    if line and before and bare(text[: before[0].start]):
        return text[: before[0].start]
    behind = [m for m in answers if m.start >= first.end]
    if family.examples and behind:
        first = next((m for m in users if m.start > behind[-1].start), first)
        behind = []
    end = last
    if behind and line:
        end = behind[0]
    elif behind:
        following = next((m.start for m in users if m.start > behind[0].start), last.end)
        end = [m for m in (*behind, last) if m.start < following][-1]
    return _with_input(text[first.end : end.start], family, first)


def _with_input(turn: str, family: _Names, mark: Mark) -> str:
    """Alpaca's turn with its second part, the input."""
    if family.users[0] != "Instruction":
        return turn
    found = _INPUT.search(turn)
    if found is None or bool(found[1]) != mark.form[_HASH]:
        return turn
    return f"{turn[: found.start()]}\n{turn[found.end() :]}"


# What is asked for ----------------------------------------------------------------------------------------------------


def bare(text: str) -> str:
    """A text without the white space and the tokens that a template puts around it."""
    before, text = None, text.strip()
    while text != before:
        before = text
        for beginning in _BEGINNINGS.split():
            text = text.removeprefix(beginning).lstrip()
        for end in _ENDS.split():
            text = text.removesuffix(end).rstrip()
    return text


def first_user_turn(text: str) -> str:
    """What the user says first in a text: all of it, unless it is laid out as a conversation.

    Turns within the turn, as of a template within another one, are followed.
    """
    text = bare(text)
    while True:
        system = _SYSTEM_TURN.match(text)
        if system is not None and bare(text[system.end() :]):
            text = bare(text[system.end() :])
        turn = _turn_of_tokens(text)
        turn = bare(_turn_of_names(text) or "" if turn is None else turn)
        if not turn or len(turn) >= len(text):
            return text
        text = turn


_ANSWER_NAMES = re.compile(
    r"(?:^|(?<=\n))(?:Assistant|ASSISTANT|assistant|Bot|BOT|bot|AI|Model|model|GPT|gpt|Answer):"
    r"|(?:(?<![^\s>\]])|(?=##))(?:#+[^\S\n]*)?(?:(?:GPT4|Code|Math) (?:Correct )?)?(?:Assistant|ASSISTANT):"
    r"|(?:^|(?<=\n))#+[^\S\n]*Response:(?:[^\S\n]*\n+)?"
)


def answer_begins(text: str) -> list[int]:
    """Where answers begin in a text: behind each marker of an assistant, except one at its very beginning."""
    ends = {m.end() for m in _ANSWER_NAMES.finditer(text) if m.start()}
    ends.update(mark.end for marks in _token_marks(text) for mark in marks if mark.role == ANSWER and mark.start)
    return sorted(ends)
