"""Token ids of groups: prompts and responses as a model sees them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hyperdpo.alignment.data.cells import RowError, reason_of
from hyperdpo.alignment.data.groups import PreferenceGroup, Preferences
from hyperdpo.alignment.data.targets import Targets
from hyperdpo.alignment.special_tokens import answered_ids, prompt_ids
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Groups handed to the tokenizer at a time.
CHUNK_GROUPS = 1024
_NO_LIMIT = 10**9  # what transformers writes for "no limit" is above it


@dataclass(frozen=True, slots=True)
class TokenGroup:
    """A group as the model sees it."""

    prompt_ids: list[int]
    completion_ids: list[list[int]]
    """n lists, each with the end-of-sequence token unless it was cut."""
    targets: np.ndarray
    """(m, n) float32."""
    signal: np.ndarray
    """(m,) bool."""
    index: int
    """Position in the preferences."""
    reference_logps: np.ndarray | None = None
    """(n,) float32 log-probabilities of the responses under the base, if they were computed ahead."""
    labelled: np.ndarray | None = None
    """(m, n) bool, the responses that have a label; None: all have one of every objective that the group has."""

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return len(self.prompt_ids) + max(len(ids) for ids in self.completion_ids)


def padding_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills rows up: the tokenizer's pad token, else its end-of-sequence token, as TRL has it.

    Either serves, since masks say what is padding.

    Raises:
        InputError: it has neither.
    """
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise InputError(
        "the tokenizer has neither a pad token nor an end-of-sequence token; "
        "expected one, such as tokenizer.pad_token = tokenizer.unk_token or '<|endoftext|>'"
    )


def tokenize_groups(
    preferences: Preferences,
    targets: Sequence[Targets],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_length: int | None = None,
    max_length: int | None = None,
    truncate: bool = False,
    skip_invalid: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[TokenGroup]:
    """Tokenises prompts and responses, as TRL's DPOTrainer does pairs.

    Special tokens are those of :mod:`hyperdpo.alignment.special_tokens`: one at the beginning where the tokenizer puts
    one, one end-of-sequence token after a response; a conversation is what the chat template makes of it. Prompt and
    response are tokenised together: where tokens merge over their border, the response begins at the first token in
    which any response of the group departs from the prompt alone, and the rest of the prompt is left out (a warning
    says of how many groups). Groups whose responses have the same tokens are left out, with a warning.

    Args:
        targets: of the groups, from :func:`hyperdpo.alignment.data.targets.to_targets`.
        max_prompt_length: the most tokens of a prompt.
        max_length: the most tokens of a prompt with a response; None: what the tokenizer says of
            its model, if anything.
        truncate: cut what is longer, instead of refusing it. A prompt keeps its end (and a first beginning-of-sequence
            token) and a response its start. Without ``max_prompt_length`` a prompt may fill half of ``max_length``, or
            what the group's longest response leaves free, if that is more.
        skip_invalid: leave out groups that the chat template refuses or that are too long, and count them by reason in
            a warning, instead of refusing the first.
        chat_template_kwargs: for the tokenizer's ``apply_chat_template``, such as ``{"enable_thinking": False}``.

    Raises:
        InputError: no pad or end-of-sequence token, no chat template, no group that remains, or (with the row) a text
            that is too long or a conversation that the chat template refuses.
    """
    padding_token(tokenizer)
    if len(targets) != len(preferences):
        raise InputError(f"{len(targets)} targets for {len(preferences)} groups; expected one for each")
    if max_length is None and tokenizer.model_max_length < _NO_LIMIT:
        max_length = int(tokenizer.model_max_length)
    for name, value, least in (("max_prompt_length", max_prompt_length, 1), ("max_length", max_length, 2)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}; expected at least {least}")
    found: list[TokenGroup] = []
    merged: list[int] = []
    alike: list[int] = []
    invalid: dict[str, list[int]] = {}
    for index, one in _tokenized(preferences, tokenizer, dict(chat_template_kwargs or {})):
        try:
            if isinstance(one, RowError):
                raise one
            prompt, completions = one
            common = min(_common_length(prompt, whole) for whole in completions)
            if common < len(prompt):
                merged.append(index)
            prompt, completions = prompt[:common], [whole[common:] for whole in completions]
            if not prompt:
                raise RowError(
                    "no token of the prompt stands before the responses; expected a longer prompt, or a tokenizer that "
                    "begins texts with a token of its own",
                    "no token of the prompt stands before the responses",
                )
            if truncate:
                prompt, completions = _cut(prompt, completions, max_prompt_length, max_length, tokenizer.bos_token_id)
            else:
                _reject_long(prompt, completions, max_prompt_length, max_length)
        except RowError as error:
            if not skip_invalid:
                raise InputError(f"{preferences.place(index)}: {error}") from None
            invalid.setdefault(reason_of(error), []).append(index)
            continue
        if all(ids == completions[0] for ids in completions):
            alike.append(index)
            continue
        t = targets[index]
        found.append(TokenGroup(prompt, completions, t.targets, t.signal, index, labelled=t.labelled))
    told = _left_out(preferences, invalid, alike, truncate, max_length)
    if not found and len(preferences):
        raise InputError(f"{preferences.source}: no group remains ({'; '.join(told)}); expected at least one")
    for line in told:
        warnings.warn(f"{preferences.source}: left out {line}", stacklevel=2)
    if merged:
        warnings.warn(
            f"{preferences.source}: the prompt's last tokens merge with a response's first in {len(merged):,} of "
            f"{len(preferences):,} groups (first: {preferences.place(merged[0])}); there the response begins earlier. "
            "Prompts that end on a border of tokens, or another chat template, avoid it",
            stacklevel=2,
        )
    return found


def _left_out(
    preferences: Preferences, invalid: Mapping[str, list[int]], alike: list[int], truncate: bool, limit: int | None
) -> list[str]:
    """What was left out, a line for each reason."""
    count = f"of {len(preferences):,} groups"
    lines = [
        f"{len(which):,} {count}: {reason} (first: {preferences.place(which[0])})" for reason, which in invalid.items()
    ]
    if alike:
        cut = f" once they are cut to {limit} tokens" if truncate and limit is not None else ""
        lines.append(
            f"{len(alike):,} {count}: the responses have the same tokens{cut} (first: {preferences.place(alike[0])})"
        )
    return lines


def _tokenized(
    preferences: Preferences, tokenizer: PreTrainedTokenizerBase, template: dict[str, Any]
) -> Iterator[tuple[int, tuple[list[int], list[list[int]]] | RowError]]:
    """Position, and the ids of the prompt and of the prompt with each response, or what is wrong with the group.

    A call of the tokenizer takes many groups.
    """
    for start in range(0, len(preferences), CHUNK_GROUPS):
        groups = preferences.groups[start : start + CHUNK_GROUPS]
        chats = [not isinstance(group.prompt, str) for group in groups]
        if any(chats) and not tokenizer.chat_template:
            place = preferences.place(start + chats.index(True))
            raise InputError(f"{place}: a conversation, and the tokenizer has no chat template; expected one with it")
        try:
            rows: list[tuple[list[int], list[list[int]]] | RowError] = list(_chunk(groups, tokenizer, template))
        except RowError:  # one of them: find it
            rows = [_alone(group, tokenizer, template) for group in groups]
        yield from enumerate(rows, start)


def _chunk(
    groups: Sequence[PreferenceGroup], tokenizer: PreTrainedTokenizerBase, template: dict[str, Any]
) -> Iterator[tuple[list[int], list[list[int]]]]:
    prompts = prompt_ids(tokenizer, [group.prompt for group in groups], template)
    each = [(group.prompt, text) for group in groups for text in group.completions]
    whole = iter(answered_ids(tokenizer, [prompt for prompt, _ in each], [text for _, text in each], template))
    for group, prompt in zip(groups, prompts, strict=True):
        yield prompt, [next(whole) for _ in group.completions]


def _alone(
    group: PreferenceGroup, tokenizer: PreTrainedTokenizerBase, template: dict[str, Any]
) -> tuple[list[int], list[list[int]]] | RowError:
    try:
        return next(_chunk([group], tokenizer, template))
    except RowError as error:
        return error


def _common_length(first: list[int], second: list[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((k for k, (a, b) in pairs if a != b), min(len(first), len(second)))


def _reject_long(
    prompt: list[int], completions: list[list[int]], max_prompt_length: int | None, max_length: int | None
) -> None:
    if max_prompt_length is not None and len(prompt) > max_prompt_length:
        raise RowError(
            f"the prompt has {len(prompt)} tokens; expected at most {max_prompt_length}, or training.truncate=true",
            f"the prompt has more than {max_prompt_length} tokens",
        )
    for number, ids in enumerate(completions, 1):
        if max_length is not None and len(prompt) + len(ids) > max_length:
            raise RowError(
                f"prompt and response {number} have {len(prompt)} + {len(ids)} tokens; "
                f"expected at most {max_length} together, or training.truncate=true",
                f"prompt and a response have more than {max_length} tokens",
            )


def _cut(
    prompt: list[int],
    completions: list[list[int]],
    max_prompt_length: int | None,
    max_length: int | None,
    bos: int | None,
) -> tuple[list[int], list[list[int]]]:
    """The prompt's end and the responses' starts."""
    room = len(prompt) if max_prompt_length is None else max_prompt_length
    if max_length is not None:
        longest = max(len(ids) for ids in completions)
        half = max_length // 2 if max_prompt_length is None else min(max_prompt_length, max_length - 1)
        room = min(room, max(half, max_length - longest))
    if len(prompt) > room:
        keeps_bos = bos is not None and prompt[0] == bos and room > 1
        prompt = [prompt[0], *prompt[len(prompt) - room + 1 :]] if keeps_bos else prompt[len(prompt) - room :]
    if max_length is not None:
        completions = [ids[: max_length - len(prompt)] for ids in completions]
    return prompt, completions
