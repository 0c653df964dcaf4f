"""Decoding-time mixing: the next token's log-probabilities of several models, averaged and normalised again.

    log p(y_t | ...) = sum_j w_j log p_j(y_t | ...) - log Z_t

It needs no training of its own, m models in memory, and m passes per token. Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from hyperdpo.alignment.generation import ConditionedForward, prompt_rows
from hyperdpo.alignment.logps import CHUNK_LOGITS
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.core.point import check_weights
from hyperdpo.errors import InputError


class Caches:
    """The caches of several models, whose rows are chosen together.

    Args:
        parts: one for each model.
    """

    def __init__(self, parts: list[Any]):
        self.parts = parts

    def batch_select_indices(self, rows: Tensor) -> None:
        """Keep these rows, as a cache of transformers does."""
        for part in self.parts:
            part.batch_select_indices(rows)


class LogitMixture:
    """Several models as one, at fixed shares. Models with a share of 0 are not asked.

    Args:
        models: not conditioned on w, of one tokenizer.
        shares: (number of models,), a point of the simplex.
        chunk_logits: the most logits that are held at once.

    Raises:
        InputError: a conditioned model, or wrong shares.
    """

    def __init__(self, models: Sequence[ConditionedLM], shares: Sequence[float], *, chunk_logits: int = CHUNK_LOGITS):
        found = check_weights(shares, len(models))
        for number, model in enumerate(models):
            if model.conditioning.is_conditioned:
                raise InputError(f"model {number} is conditioned on w; mix models that are trained for one w each")
        self.models = [model for model, share in zip(models, found, strict=True) if share > 0]
        self.shares = [float(share) for share in found if share > 0]
        self.chunk_logits = chunk_logits

    def row_logps(self, batch: dict[str, Tensor]) -> Tensor:
        """(B,) summed log-probabilities of the responses of a batch, as the collator makes it.

        Raises:
            InputError: a row's first token is part of a response: nothing predicts it.
        """
        ids, counted = batch["input_ids"], batch["completion_mask"].bool()
        if counted[:, 0].any():
            row = int(counted[:, 0].nonzero()[0])
            raise InputError(f"row {row}: the first token is part of the response; expected a prompt before it")
        rows, places = counted[:, 1:].nonzero(as_tuple=True)  # of the N tokens before those that are scored
        targets = ids[rows, places + 1]
        states = [model.hidden_states(ids, batch["attention_mask"])[rows, places] for model in self.models]  # (N, d)
        vocabulary = int(self.models[0].config.get_text_config().vocab_size)
        size = max(1, self.chunk_logits // (vocabulary * len(states)))
        values = [torch.zeros(0, device=ids.device)]
        # The logits of a few tokens at a time: those of a whole batch would be many GB for a real vocabulary.
        for some, *parts in zip(targets.split(size), *(one.split(size) for one in states), strict=True):
            mixed = self._average([m.head(part) for m, part in zip(self.models, parts, strict=True)]).float()
            values.append(mixed.gather(-1, some[:, None]).squeeze(-1) - mixed.logsumexp(-1))
        return torch.zeros(len(ids), device=ids.device).index_add(0, rows, torch.cat(values))

    @torch.no_grad()
    def generate(self, input_ids: Any, attention_mask: Tensor | None = None, **settings: Any) -> Any:
        """As transformers' ``generate``, without beams; padding on the left."""
        first = self.models[0]
        ids, mask = prompt_rows(first, input_ids, attention_mask)
        for model in self.models:
            model.eval()
        caches: list[Any] = [None] * len(self.models)
        mixed = self.forward()

        def forward(input_ids: Tensor, past_key_values: Any = None, **inputs: Any) -> Any:
            if past_key_values is None or past_key_values.get_seq_length() == 0:
                caches[1:] = [DynamicCache(config=model.base.config) for model in self.models[1:]]
            caches[0] = past_key_values
            outputs = mixed(input_ids, past_key_values=Caches(caches), **inputs)
            outputs.past_key_values = caches[0]  # generate has its own
            return outputs

        decoder = copy.copy(first.base)  # a view of the same modules, with a forward of its own
        decoder.forward = forward
        # generate reads a forward's arguments
        functools.update_wrapper(forward, type(first.base).forward, updated=())
        return decoder.generate(input_ids=ids, attention_mask=mask, **settings)

    def forward(self) -> Callable[..., Any]:
        """What computes the mixture's next logits, as a model's own forward method does; its cache holds those of all
        models."""
        forwards = [ConditionedForward(model, model.condition(None, 1), torch.ones(1)) for model in self.models]

        def forward(input_ids: Tensor, past_key_values: Caches | None = None, **inputs: Any) -> Any:
            caches = [None] * len(forwards) if past_key_values is None else past_key_values.parts
            outputs = [
                one(input_ids, past_key_values=cache, **inputs) for one, cache in zip(forwards, caches, strict=True)
            ]
            outputs[0].logits = self._average([output.logits for output in outputs])
            outputs[0].past_key_values = Caches([output.past_key_values for output in outputs])
            return outputs[0]

        return forward

    def _average(self, logits: Sequence[Tensor]) -> Tensor:
        """Unnormalised log-probabilities (..., V) of the mixture."""
        if len(logits) == 1:
            return logits[0]
        parts = [share * one.float().log_softmax(-1) for share, one in zip(self.shares, logits, strict=True)]
        return torch.stack(parts).sum(0)
