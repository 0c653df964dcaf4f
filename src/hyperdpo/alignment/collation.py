"""Batches of groups of token ids: every response is a row, and a group knows its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.tokenization import TokenGroup, padding_token, tokenize_groups

__all__ = ["Collator", "TokenGroup", "padding_token", "token_batches", "tokenize_groups", "worth_sharing"]


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
    share_prompts: bool = False
    """Also give prompts and responses apart, for a model that computes a prompt once for its responses."""

    def __call__(self, groups: Sequence[TokenGroup]) -> dict[str, Tensor]:
        sizes = [len(group.completion_ids) for group in groups]
        length = max(group.length for group in groups)
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


def token_batches(lengths: Sequence[int], sizes: Sequence[int], tokens: int) -> list[np.ndarray]:
    """All groups once, in batches of similar lengths, the longest first.

    Args:
        lengths: (N,) tokens of each group's longest row.
        sizes: (N,) rows of each group.
        tokens: the most tokens of a batch, padding included; a larger group is a batch of its own.

    Returns:
        Positions (g,) int64 of the groups of each batch.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches, start, rows = [], 0, 0
    for end, group in enumerate(order):
        if end > start and (rows + sizes[group]) * lengths[order[start]] > tokens:
            batches.append(order[start:end])
            start, rows = end, 0
        rows += sizes[group]
    return [*batches, order[start:]] if len(order) else []
