"""Pairs of a chosen and a rejected response, as in TRL: with or without a column for the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hyperdpo.alignment.data.cells import Prompt, Row, RowError, answer, column, turns
from hyperdpo.alignment.data.parts import PAIR_OBJECTIVE, PLAIN, Columns, Parts
from hyperdpo.alignment.data.questions import normal, question_of, until_sentence_end
from hyperdpo.alignment.data.transcripts import answer_begins
from hyperdpo.errors import counted

#: What is wrong with two equal responses, and with two that share no prompt.
_SAME = "chosen and rejected are the same; expected two different responses", "chosen equals rejected"
_APART = (
    "no column 'prompt', and chosen and rejected do not begin alike and go on differently; "
    "expected a prompt that both begin with, or --prompt-column NAME"
)
_Messages = list[dict[str, str]]

#: Columns beside the pair in common data sets.
ALSO = (
    *("prompt_id", "score_chosen", "score_rejected", "chosen_score", "rejected_score"),
    *(f"{side}{dash}{what}" for side in ("chosen", "rejected") for dash in "-_" for what in ("rating", "model")),
)


def from_pair(row: Row, columns: Columns | None = None) -> Parts:
    """TRL's preference form, ``prompt``, ``chosen``, ``rejected``: one objective with the labels 1 and 0.

    Texts or conversations. Without a column for the prompt, it stands at the beginning of both: the shared messages,
    the text up to the last shared turn of the assistant ("Assistant:"), or the longest common beginning, as in TRL.
    Conversations that begin with the messages of an explicit prompt lose them; beside an assistant's message alone, a
    prompt that is a text is the user's message.

    Args:
        columns: the columns of all rows; None: the prompt is in ``prompt`` if this row has it.

    Raises:
        InputError: without a place; a column is missing, empty or of another form, there is no prompt, or more than one
            message follows it.
    """
    if columns is None:
        columns = PLAIN if PLAIN.prompt in row else replace(PLAIN, prompt=None)
    chosen, rejected = (turns(column(row, name), name) for name in ("chosen", "rejected"))
    named = columns.prompt is not None and columns.cut_turns
    prompt = columns.required(row) if named else columns.read(row) or None
    if columns.cut_turns and chosen == rejected:
        raise RowError(*_SAME)
    question, guessed = None, False
    if isinstance(chosen, list) and isinstance(rejected, list):
        if isinstance(prompt, list):
            chosen, rejected = (_behind(side, prompt) for side in (chosen, rejected))
        elif prompt is not None and columns.cut_turns and _one_answer(chosen) and _one_answer(rejected):
            prompt = [{"role": "user", "content": prompt}]
        else:
            told = prompt
            prompt, chosen, rejected = _conversation(chosen, rejected)
            if isinstance(told, str) and columns.cut_turns:
                _check_held(told, prompt, columns)
    elif isinstance(prompt, list):
        k = len(prompt)
        chosen, rejected = (side[k:] if side[:k] == prompt else side for side in (chosen, rejected))
    elif isinstance(chosen, list) or isinstance(rejected, list):
        message = "column 'chosen' or 'rejected' is a conversation and the other a text; expected the same form"
        raise RowError(message, "a conversation beside a text")
    elif prompt is None:
        prompt, chosen, rejected, guessed = _cut(chosen, rejected, columns.cut_turns)
    elif columns.cut_turns and (whole := _transcript(prompt, chosen, rejected)) is not None:
        question = question_of(prompt)
        prompt, chosen, rejected = whole
    completions = (answer(chosen, "chosen"), answer(rejected, "rejected"))
    if columns.cut_turns and completions[0] == completions[1]:
        raise RowError(*_SAME)
    if question is None:
        question = question_of(until_sentence_end(prompt) if guessed and isinstance(prompt, str) else prompt)
    labels: dict[str, tuple[float, ...] | None] = {columns.objective or PAIR_OBJECTIVE: (1.0, 0.0)}
    return Parts(columns.with_system(row, prompt), completions, labels, question, guessed)


def _one_answer(side: _Messages) -> bool:
    return [message["role"] for message in side] == ["assistant"]


def _behind(side: _Messages, prompt: _Messages) -> _Messages:
    """A conversation without the prompt's messages, with or without their system message."""
    for beginning in (prompt, [message for message in prompt if message["role"] != "system"]):
        if beginning and side[: len(beginning)] == beginning:
            return side[len(beginning) :]
    return side


def _conversation(chosen: _Messages, rejected: _Messages) -> tuple[Prompt, _Messages, _Messages]:
    """(prompt, chosen, rejected) of two whole conversations."""
    cut = _common(chosen, rejected)
    if cut == 0:
        raise RowError(_APART, "no prompt that both conversations begin with")
    if cut in (len(chosen), len(rejected)):
        raise RowError(
            "no column 'prompt', and one of chosen and rejected continues the other, after "
            f"{counted(cut, 'message')}; expected conversations that end with different answers to the same",
            "conversations of which one continues the other",
        )
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _check_held(told: str, prompt: Prompt, columns: Columns) -> None:
    """Refuse a text that the conversation beside it does not contain: it would be lost."""
    said = normal(" ".join(message["content"] for message in prompt if isinstance(message, dict)))
    text, name = normal(told), f"column {columns.prompt!r}"
    if text not in said and question_of(prompt) not in text:
        raise RowError(
            f"{name} holds a text that is not part of the conversation in 'chosen'; expected it there, or "
            f"--ignore-columns {columns.prompt}",
            f"{name} is not part of the conversation",
        )


def _transcript(prompt: str, chosen: str, rejected: str) -> tuple[str, str, str] | None:
    """(prompt, chosen, rejected) of two transcripts ("Human: ... Assistant: ...") whose question is the prompt."""
    if chosen.startswith(prompt) and rejected.startswith(prompt):
        return None  # taken off by the reader, which counts it
    end = _last_turn(chosen, rejected)
    if end is None or question_of(chosen[:end]) != question_of(prompt):
        return None
    return chosen[:end], chosen[end:], rejected[end:]


def _common(chosen: Sequence[object], rejected: Sequence[object]) -> int:
    """The length of the beginning that both share."""
    pairs = zip(chosen, rejected, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))


def _last_turn(chosen: str, rejected: str) -> int | None:
    """Where the last shared turn of the assistant begins; None if there is none."""
    begins = answer_begins(chosen[: _common(chosen, rejected)])
    return begins[-1] if begins else None


def _cut(chosen: str, rejected: str, at_turns: bool) -> tuple[str, str, str, bool]:
    """(prompt, chosen, rejected, whether the prompt is a guess) of two texts that begin with their prompt."""
    end = _last_turn(chosen, rejected) if at_turns else None
    if end is not None:
        return chosen[:end], chosen[end:], rejected[end:], False
    cut = _common(chosen, rejected)
    if cut > 0 and chosen[cut - 1] == " ":
        cut -= 1  # the space belongs to the response, so that its first word is tokenised as a word
    if cut == 0:
        raise RowError(_APART, "no prompt that both texts begin with")
    if cut in (len(chosen), len(rejected)):
        raise RowError(
            "no column 'prompt', and one of chosen and rejected is the beginning of the other: where the prompt ends "
            "cannot be seen; expected a column with the prompt, or texts with 'Assistant:' before the response",
            "one text is the beginning of the other, without a column 'prompt'",
        )
    return chosen[:cut], chosen[cut:], rejected[cut:], True
