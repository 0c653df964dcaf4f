"""Decoding in a batch that rows join and leave between any two tokens, each at weights and a scale of its own.

Shapes: N rows, P computed rows (N and those of the base model, see :mod:`hyperdpo.alignment.rows`), S places of the
cache, T tokens of a prompt, V vocabulary, m objectives, k virtual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.rows import ConditionedRows
from hyperdpo.errors import InputError


class ContinuousBatch:
    """The rows that are being decoded, with their cache, which is padded on the left.

    :meth:`admit` reads new prompts and appends them; :meth:`step` reads one more token of every row; :meth:`keep` drops
    rows. Padding is masked, so a row's logits are those that it has alone, up to rounding. Not for two threads.

    Args:
        model: in evaluation mode. Its layers keep keys and values of all tokens.
        prefill_tokens: places, padding included, of prompts that are read in one pass.
    """

    def __init__(self, model: ConditionedLM, *, prefill_tokens: int = 4096):
        self.model, self.prefill_tokens = model, prefill_tokens
        self.rows: ConditionedRows | None = None
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)  # (P, S)
        self._positions = torch.zeros(0, dtype=torch.long, device=model.device)  # (P,) of the next token

    def __len__(self) -> int:
        return 0 if self.rows is None else self.rows.count

    @torch.inference_mode()
    def admit(
        self, prompts: Sequence[Sequence[int]], weights: np.ndarray | Tensor | None, scales: Sequence[float]
    ) -> Tensor:
        """Append rows.

        Args:
            prompts: B lists of token ids, none of them empty.
            weights: (B, m); None if nothing is conditioned.
            scales: (B,).

        Returns:
            (B, V) logits of the first token after each prompt.

        Raises:
            InputError: weights that the model does not take, or a model whose cache cannot be joined.
        """
        found, start = [], 0
        while start < len(prompts):
            stop, longest = start, 0
            while stop < len(prompts):
                longest = max(longest, len(prompts[stop]))
                if stop > start and longest * (stop + 1 - start) > self.prefill_tokens:
                    break
                stop += 1
            part = None if weights is None else weights[start:stop]
            found.append(self._prefill(prompts[start:stop], part, scales[start:stop]))
            start = stop
        return torch.cat(found)

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """(N, V) logits of the tokens after these, one for each row."""
        rows = self.rows
        assert rows is not None
        ids = torch.tensor(tokens, device=self.model.device)[rows.sources, None]
        self._mask = pad(self._mask, (0, 1), value=1)
        with rows.gating:
            outputs = self.model.base(
                input_ids=ids,
                attention_mask=self._mask,
                position_ids=self._positions[:, None],
                past_key_values=self._cache,
                use_cache=True,
            )
        self._positions = self._positions + 1
        return rows.mixed(outputs.logits)[:, -1]

    @torch.inference_mode()
    def keep(self, kept: Sequence[int]) -> None:
        """Drop all other rows, and the places of the cache that are padding in all that stay."""
        assert self.rows is not None
        if not kept:
            self.clear()
            return
        if len(kept) == self.rows.count:
            return
        self.rows, order = self.rows.selected(kept)
        mask = self._mask[order]
        unused = int(mask.any(0).int().argmax())
        self._mask, self._positions = mask[:, unused:], self._positions[order]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[order, :, unused:], layer.values[order, :, unused:]

    def clear(self) -> None:
        """Drop all rows."""
        self.rows = self._cache = None
        self._mask, self._positions = self._mask[:0, :0], self._positions[:0]

    def _prefill(
        self, prompts: Sequence[Sequence[int]], weights: np.ndarray | Tensor | None, scales: Sequence[float]
    ) -> Tensor:
        """(B, V): read prompts in one pass, and append them."""
        model, device = self.model, self.model.device
        condition = model.condition(weights, len(prompts))
        rows = ConditionedRows.spread(model, condition, torch.tensor(scales, dtype=torch.float32), len(prompts))
        longest, k = max(map(len, prompts)), rows.k
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in prompts], device=device)[rows.sources]
        padding = torch.tensor([longest - len(row) for row in prompts], device=device)[rows.sources]
        # Padding comes first, then the virtual tokens, so that all that is masked lies on the left: the base model's
        # rows have none of these.
        masked = padding + k * (torch.arange(len(ids), device=device) >= rows.count)
        mask = (torch.arange(longest + k, device=device) >= masked[:, None]).long()
        positions = (mask.cumsum(-1) - 1).clamp_min(0)
        inputs = {"input_ids": ids}
        if rows.prefix is not None:
            embedded = pad(model.get_input_embeddings()(ids), (0, 0, k, 0))
            places = padding[:, None] + torch.arange(k, device=device)
            embedded[torch.arange(len(ids), device=device)[:, None], places] = rows.prefix.to(embedded.dtype)
            inputs = {"inputs_embeds": embedded}
        cache = DynamicCache()
        with rows.gating:
            outputs = model.base(
                **inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
        self._append(rows, cache, mask, positions[:, -1] + 1)
        return rows.mixed(outputs.logits[:, -1:])[:, -1]

    def _append(self, rows: ConditionedRows, cache: Any, mask: Tensor, positions: Tensor) -> None:
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            raise InputError("the model's cache is not one of keys and values of all tokens; expected such a model")
        if self.rows is None:
            self.rows, self._cache, self._mask, self._positions = rows, cache, mask, positions
            return
        self.rows, order = self.rows.joined(rows)
        width = max(self._mask.shape[1], mask.shape[1])

        def joined(first: Tensor, second: Tensor) -> Tensor:
            """(P, heads, S, d) each."""
            both = [pad(one, (0, 0, width - one.shape[2], 0)) for one in (first, second)]
            return torch.cat(both)[order]

        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys, old.values = joined(old.keys, new.keys), joined(old.values, new.values)
        both = [pad(one, (width - one.shape[1], 0)) for one in (self._mask, mask)]
        self._mask = torch.cat(both)[order]
        self._positions = torch.cat((self._positions, positions))[order]
