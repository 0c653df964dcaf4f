"""Token ids of groups, and batches of them: every response is a row, and a group knows its rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.data import PreferenceGroup, Preferences
from hyperdpo.alignment.formats import Prompt
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Groups are sorted by length inside windows of this many batches: little padding, still a random order.
WINDOW_BATCHES = 32

_CHUNK_GROUPS = 1024  # handed to the tokenizer at a time
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
    targets: Sequence[tuple[np.ndarray, np.ndarray]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_prompt_length: int | None = None,
    max_length: int | None = None,
    truncate: bool = False,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[TokenGroup]:
    """Tokenises prompts and responses, exactly as TRL's DPOTrainer does pairs.

    A text's response ends with the end-of-sequence token, added unless it is there; a conversation is what the chat
    template makes of it. Prompt and response are tokenised together: where tokens merge over their border, the
    response begins at the first token in which any response of the group departs from the prompt alone, and the rest
    of the prompt is left out (a warning says of how many groups).

    Args:
        targets: per group (m, n) and (m,), of :func:`hyperdpo.alignment.data.to_targets`.
        max_prompt_length: the most tokens of a prompt.
        max_length: the most tokens of a prompt with a response; None: what the tokenizer says of
            its model, if anything.
        truncate: cut what is longer, instead of refusing it. A prompt keeps its end (and a first beginning-of-sequence
            token) and a response its start. Without ``max_prompt_length`` a prompt may fill half of ``max_length``, or
            what the group's longest response leaves free, if that is more.
        chat_template_kwargs: for the tokenizer's ``apply_chat_template``, such as ``{"enable_thinking": False}``.

    Raises:
        InputError: no pad or end-of-sequence token, no chat template, or (with the row) a text that is too long.
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
    for index, prompt, completions in _tokenized(preferences, tokenizer, dict(chat_template_kwargs or {})):
        common = min(_common_length(prompt, whole) for whole in completions)
        if common < len(prompt):
            merged.append(index)
        prompt, completions = prompt[:common], [whole[common:] for whole in completions]
        if not prompt:
            raise InputError(
                f"{preferences.place(index)}: no token of the prompt stands before the responses; expected a longer "
                "prompt, or a tokenizer that begins texts with a token of its own"
            )
        if truncate:
            prompt, completions = _cut(prompt, completions, max_prompt_length, max_length, tokenizer.bos_token_id)
        else:
            _reject_long(preferences.place(index), prompt, completions, max_prompt_length, max_length)
        found.append(TokenGroup(prompt, completions, *targets[index], index))
    if merged:
        warnings.warn(
            f"{preferences.source}: the prompt's last tokens merge with a response's first in {len(merged):,} of "
            f"{len(preferences):,} groups (first: {preferences.place(merged[0])}); there the response begins earlier. "
            "Prompts that end on a border of tokens, or another chat template, avoid it",
            stacklevel=2,
        )
    return found


@dataclass(frozen=True)
class Collator:
    """Groups -> one batch of padded tensors.

    G groups with up to n responses each make B rows of T tokens, group after group:

    ========================  ==========  =========================================================================
    ``input_ids``             (B, T)      long, padded on the right
    ``attention_mask``        (B, T)      long, 1 on tokens
    ``completion_mask``       (B, T)      long, 1 on tokens of the response, its end-of-sequence token included
    ``rows``                  (G, n)      long, the row of each response; 0 on padding
    ``mask``                  (G, n)      bool, True for a response
    ``targets``               (G, m, n)   float32, 0 on padding
    ``signal``                (G, m)      bool
    ``index``                 (G,)        long, positions in the preferences
    ``reference_logps``       (G, n)      float32, 0 on padding; only if all groups carry them
    ``prompt_ids``            (G, Tp)     long, padded on the right; these five only if prompts are shared
    ``prompt_mask``           (G, Tp)     long, 1 on tokens
    ``response_ids``          (B, Tr)     long, padded on the right
    ``response_mask``         (B, Tr)     long, 1 on tokens
    ``owner``                 (B,)        long, the group of each row
    ========================  ==========  =========================================================================
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None
    share_prompts: bool = False
    """Also give prompts and responses apart, for a model that computes a prompt once for its responses."""

    def __call__(self, groups: Sequence[TokenGroup]) -> dict[str, Tensor]:
        sizes = [len(group.completion_ids) for group in groups]
        length = max(group.length for group in groups)
        if self.pad_to_multiple_of:
            length = -(-length // self.pad_to_multiple_of) * self.pad_to_multiple_of
        input_ids = torch.full((sum(sizes), length), self.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids)
        completion_mask = torch.zeros_like(input_ids)
        shape = (len(groups), max(sizes))
        rows = torch.zeros(shape, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.bool)
        targets = torch.zeros((len(groups), len(groups[0].signal), max(sizes)), dtype=torch.float32)
        row = 0
        for g, group in enumerate(groups):
            n, start = sizes[g], len(group.prompt_ids)
            rows[g, :n] = torch.arange(row, row + n)
            mask[g, :n] = True
            targets[g, :, :n] = torch.as_tensor(group.targets)
            for ids in group.completion_ids:
                end = start + len(ids)
                input_ids[row, :end] = torch.tensor(group.prompt_ids + ids)
                attention_mask[row, :end] = 1
                completion_mask[row, start:end] = 1
                row += 1
        batch = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "completion_mask": completion_mask,
            "rows": rows,
            "mask": mask,
            "targets": targets,
            "signal": torch.stack([torch.as_tensor(group.signal) for group in groups]),
            "index": torch.tensor([group.index for group in groups]),
        }
        known = [torch.as_tensor(g.reference_logps) for g in groups if g.reference_logps is not None]
        if len(known) == len(groups):
            batch["reference_logps"] = torch.zeros(shape, dtype=torch.float32)
            batch["reference_logps"][mask] = torch.cat(known).to(torch.float32)
        if self.share_prompts:
            batch["prompt_ids"], batch["prompt_mask"] = self._padded([group.prompt_ids for group in groups])
            responses = [ids for group in groups for ids in group.completion_ids]
            batch["response_ids"], batch["response_mask"] = self._padded(responses)
            batch["owner"] = torch.repeat_interleave(torch.tensor(sizes))
        return batch

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """(rows, T) ids, padded on the right, and their mask."""
        ids = torch.full((len(rows), max(map(len, rows))), self.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(list(row))
            mask[number, : len(row)] = 1
        return ids, mask


def worth_sharing(groups: Sequence[TokenGroup]) -> bool:
    """Whether computing prompts once for all their responses leaves out at least a fifth of the tokens: a step is two
    passes then, one after the other."""
    apart = sum(len(group.prompt_ids) + sum(map(len, group.completion_ids)) for group in groups)
    whole = apart + sum((len(group.completion_ids) - 1) * len(group.prompt_ids) for group in groups)
    return apart <= 0.8 * whole


def grouped_batches(
    lengths: Sequence[int] | np.ndarray,
    sizes: Sequence[int] | np.ndarray | None = None,
    *,
    groups: int | None = None,
    tokens: int | None = None,
    rng: np.random.Generator | None = None,
) -> list[np.ndarray]:
    """All groups once, in batches of similar lengths.

    Args:
        lengths: (N,) tokens of each group's longest row.
        sizes: (N,) rows of each group; None: one each. Only a budget of tokens looks at them.
        groups: the number of groups of a batch (the last may have fewer).
        tokens: or the most tokens of a batch, padding included; a larger group is a batch of its own.
        rng: draws the order anew at each call; None: longest first, for evaluation.

    Returns:
        Positions (g,) int64 of the groups of each batch.

    Raises:
        InputError: not exactly one of ``groups`` and ``tokens``, or it is below 1.
    """
    if (groups is None) == (tokens is None) or (groups or tokens or 0) < 1:
        raise InputError(f"batches: groups={groups}, tokens={tokens}; expected one of them, at least 1")
    lengths = np.asarray(lengths, dtype=np.int64)
    sizes = np.ones_like(lengths) if sizes is None else np.asarray(sizes, dtype=np.int64)
    if not len(lengths):
        return []
    if rng is None:
        return _cut_batches(np.arange(len(lengths)), lengths, sizes, groups, tokens)
    order = rng.permutation(len(lengths))
    per_batch = groups or max(int(tokens / max((lengths * sizes).mean(), 1)), 1)
    window = WINDOW_BATCHES * per_batch
    batches = [
        batch
        for start in range(0, len(order), window)
        for batch in _cut_batches(order[start : start + window], lengths, sizes, groups, tokens)
    ]
    return [batches[i] for i in rng.permutation(len(batches))]


def _cut_batches(
    which: np.ndarray, lengths: np.ndarray, sizes: np.ndarray, groups: int | None, tokens: int | None
) -> list[np.ndarray]:
    """The groups ``which`` by falling length, cut where a batch is full."""
    ordered = which[np.argsort(-lengths[which], kind="stable")]
    if groups is not None:
        return [ordered[start : start + groups] for start in range(0, len(ordered), groups)]
    assert tokens is not None
    batches, start, rows = [], 0, 0
    for end, group in enumerate(ordered):
        if end > start and (rows + sizes[group]) * lengths[ordered[start]] > tokens:
            batches.append(ordered[start:end])
            start, rows = end, 0
        rows += sizes[group]
    return [*batches, ordered[start:]]


def _tokenized(
    preferences: Preferences, tokenizer: PreTrainedTokenizerBase, template: dict[str, Any]
) -> Iterator[tuple[int, list[int], list[list[int]]]]:
    """Position, ids of the prompt, ids of the prompt with each response; a call of the tokenizer takes many groups."""
    eos = tokenizer.eos_token
    for start in range(0, len(preferences), _CHUNK_GROUPS):
        groups = preferences.groups[start : start + _CHUNK_GROUPS]
        chats = [not isinstance(group.prompt, str) for group in groups]
        if any(chats) and not tokenizer.chat_template:
            place = preferences.place(start + chats.index(True))
            raise InputError(f"{place}: a conversation, and the tokenizer has no chat template; expected one with it")
        if not all(chats) and eos is None:
            raise InputError(
                "the tokenizer has no end-of-sequence token, with which responses end; "
                "expected one, such as tokenizer.eos_token = '<|endoftext|>'"
            )
        prompts = _ids(tokenizer, [g.prompt for g in groups], {**template, "add_generation_prompt": True})
        whole = iter(_ids(tokenizer, [text for g in groups for text in _whole(g, eos or "")], template))
        for offset, (group, prompt) in enumerate(zip(groups, prompts, strict=True)):
            yield start + offset, prompt, [next(whole) for _ in group.completions]


def _whole(group: PreferenceGroup, eos: str) -> list[Prompt]:
    """The prompt with each response."""
    if not isinstance(group.prompt, str):
        return [[*group.prompt, {"role": "assistant", "content": text}] for text in group.completions]
    return [group.prompt + (text if text.endswith(eos) else text + eos) for text in group.completions]


def _ids(tokenizer: PreTrainedTokenizerBase, inputs: list[Prompt], template: dict[str, Any]) -> list[list[int]]:
    """Token ids of texts and conversations, in their order."""
    found: list[list[int]] = [[] for _ in inputs]
    texts = [i for i, one in enumerate(inputs) if isinstance(one, str)]
    chats = [i for i, one in enumerate(inputs) if not isinstance(one, str)]
    if texts:
        # verbose: no warning about lengths, which are checked here
        ids = tokenizer([inputs[i] for i in texts], verbose=False)["input_ids"]
        for i, one in zip(texts, ids, strict=True):
            found[i] = one
    if chats:
        conversations: Any = [inputs[i] for i in chats]
        encoded: Any = tokenizer.apply_chat_template(conversations, tokenize=True, return_dict=True, **template)
        for i, one in zip(chats, encoded["input_ids"], strict=True):
            found[i] = one
    return found


def _common_length(first: list[int], second: list[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((k for k, (a, b) in pairs if a != b), min(len(first), len(second)))


def _reject_long(
    place: str, prompt: list[int], completions: list[list[int]], max_prompt_length: int | None, max_length: int | None
) -> None:
    if max_prompt_length is not None and len(prompt) > max_prompt_length:
        raise InputError(
            f"{place}: the prompt has {len(prompt)} tokens; "
            f"expected at most {max_prompt_length}, or training.truncate=true"
        )
    for number, ids in enumerate(completions, 1):
        if max_length is not None and len(prompt) + len(ids) > max_length:
            raise InputError(
                f"{place}: prompt and response {number} have {len(prompt)} + {len(ids)} tokens; "
                f"expected at most {max_length} together, or training.truncate=true"
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
