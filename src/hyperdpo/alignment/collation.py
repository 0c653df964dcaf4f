"""Batches of groups of token ids: every response is a row, and a group knows its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.tokenization import TokenGroup, padding_token, tokenize_groups
from hyperdpo.errors import InputError

__all__ = ["Collator", "TokenGroup", "grouped_batches", "padding_token", "tokenize_groups", "worth_sharing"]

#: Groups are sorted by length inside windows of this many batches: little padding, still a random order.
WINDOW_BATCHES = 32


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
    ``labelled``              (G, m, n)   bool, True for a response with a label; only if some have none
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
        if any(group.labelled is not None for group in groups):
            batch["labelled"] = labelled_of(groups, mask)
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


def labelled_of(groups: Sequence[TokenGroup], mask: Tensor) -> Tensor:
    """(G, m, n): the responses that each objective has a label for.

    Args:
        mask: (G, n), the responses.
    """
    labelled = mask.unsqueeze(1).repeat(1, len(groups[0].signal), 1)
    for g, group in enumerate(groups):
        if group.labelled is not None:
            labelled[g, :, : len(group.completion_ids)] = torch.as_tensor(group.labelled)
    return labelled


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
