"""Pairs of a chosen and a rejected response, as TRL has them: with or without a column for the prompt."""

from __future__ import annotations

from dataclasses import replace

from hyperdpo.alignment.data.cells import Prompt, Row, RowError, answer, column, turns
from hyperdpo.alignment.data.parts import PAIR_OBJECTIVE, PLAIN, Columns, Parts
from hyperdpo.alignment.data.questions import normal, question_of, until_sentence_end
from hyperdpo.alignment.data.transcripts import answer_begins

#: Columns beside the pair in common data sets.
ALSO = (
    *("prompt_id", "score_chosen", "score_rejected", "chosen_score", "rejected_score"),
    *(f"{side}{dash}{what}" for side in ("chosen", "rejected") for dash in "-_" for what in ("rating", "model")),
)


def from_pair(row: Row, columns: Columns | None = None) -> Parts:
    """TRL's preference form, ``prompt``, ``chosen``, ``rejected``: one objective with the labels 1 and 0.

    Texts or conversations. Without a column for the prompt, it stands at the beginning of both: it is the messages that
    both have, the text up to the last shared turn of the assistant ("Assistant:"), or the longest common beginning, as
    TRL has it. Conversations that begin with the messages of an explicit prompt lose them; beside an assistant's
    message alone, a prompt that is a text is the user's message.

    Args:
        columns: of all rows; None: the prompt is in ``prompt`` if this row has it.

    Raises:
        InputError: without a place; a column is missing, empty or of another form, no prompt, or more than one message
            behind the prompt.
    """
    if columns is None:
        columns = PLAIN if PLAIN.prompt in row else replace(PLAIN, prompt=None)
    chosen, rejected = (turns(column(row, name), name) for name in ("chosen", "rejected"))
    named = columns.prompt is not None and columns.cut_turns
    prompt = columns.required(row) if named else columns.read(row) or None
    if columns.cut_turns and chosen == rejected:
        raise RowError("chosen and rejected are the same; expected two different responses", "chosen equals rejected")
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
        raise RowError(
            "column 'chosen' or 'rejected' is a conversation and the other a text; expected the same form",
            "a conversation beside a text",
        )
    elif prompt is None:
        prompt, chosen, rejected, guessed = _cut(chosen, rejected, columns.cut_turns)
    elif columns.cut_turns and (whole := _transcript(prompt, chosen, rejected)) is not None:
        question = question_of(prompt)
        prompt, chosen, rejected = whole
    completions = (answer(chosen, "chosen"), answer(rejected, "rejected"))
    if columns.cut_turns and completions[0] == completions[1]:
        raise RowError("chosen and rejected are the same; expected two different responses", "chosen equals rejected")
    if question is None:
        question = question_of(until_sentence_end(prompt) if guessed and isinstance(prompt, str) else prompt)
    labels: dict[str, tuple[float, ...] | None] = {columns.objective or PAIR_OBJECTIVE: (1.0, 0.0)}
    return Parts(columns.with_system(row, prompt), completions, labels, question, guessed)


def _one_answer(side: list[dict[str, str]]) -> bool:
    return [message["role"] for message in side] == ["assistant"]


def _behind(side: list[dict[str, str]], prompt: list[dict[str, str]]) -> list[dict[str, str]]:
    """A conversation without the prompt's messages, with or without their system message."""
    for beginning in (prompt, [message for message in prompt if message["role"] != "system"]):
        if beginning and side[: len(beginning)] == beginning:
            return side[len(beginning) :]
    return side


def _conversation(
    chosen: list[dict[str, str]], rejected: list[dict[str, str]]
) -> tuple[Prompt, list[dict[str, str]], list[dict[str, str]]]:
    """(prompt, chosen, rejected) of two whole conversations."""
    pairs = zip(chosen, rejected, strict=False)
    cut = next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    if cut == 0:
        raise RowError(
            "no column 'prompt', and chosen and rejected do not begin alike and go on differently; "
            "expected a prompt that both begin with, or --prompt-column NAME",
            "no prompt that both conversations begin with",
        )
    if cut in (len(chosen), len(rejected)):
        raise RowError(
            "no column 'prompt', and one of chosen and rejected goes on where the other ends, after "
            f"{cut} message{'s' * (cut != 1)}; expected conversations that end with different answers to the same",
            "conversations of which one goes on where the other ends",
        )
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _check_held(told: str, prompt: Prompt, columns: Columns) -> None:
    """Refuse a text that the conversation beside it does not hold: it would be left out without a word."""
    said = normal(" ".join(message["content"] for message in prompt if isinstance(message, dict)))
    text, first = normal(told), question_of(prompt)
    if text in said or first in text:
        return
    raise RowError(
        f"column {columns.prompt!r} holds a text that is not part of the conversation in 'chosen'; expected it there, "
        f"or --ignore-columns {columns.prompt}",
        f"column {columns.prompt!r} is not part of the conversation",
    )


def _transcript(prompt: str, chosen: str, rejected: str) -> tuple[str, str, str] | None:
    """(prompt, chosen, rejected) of two transcripts ("Human: ... Assistant: ...") whose question is the prompt."""
    if chosen.startswith(prompt) and rejected.startswith(prompt):
        return None  # taken off by the reader, which counts it
    end = _last_turn(chosen, rejected)
    if end is None or question_of(chosen[:end]) != question_of(prompt):
        return None
    return chosen[:end], chosen[end:], rejected[end:]


def _common(chosen: str, rejected: str) -> int:
    pairs = zip(chosen, rejected, strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))


def _last_turn(chosen: str, rejected: str) -> int | None:
    """Where the last turn of the assistant that both have in common begins."""
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
        raise RowError(
            "no column 'prompt', and chosen and rejected do not begin alike and go on differently; "
            "expected a prompt that both begin with, or --prompt-column NAME",
            "no prompt that both texts begin with",
        )
    if cut in (len(chosen), len(rejected)):
        raise RowError(
            "no column 'prompt', and one of chosen and rejected is the beginning of the other: where the prompt ends "
            "cannot be seen; expected a column with the prompt, or texts with 'Assistant:' before the response",
            "one text is the beginning of the other, without a column 'prompt'",
        )
    return chosen[:cut], chosen[cut:], rejected[cut:], True
