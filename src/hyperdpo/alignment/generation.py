"""Text at any weights w and any scale c, row by row of a batch, with transformers' own ``generate``.

Shapes: B prompts, T tokens, V vocabulary, m objectives, k virtual tokens, N rows that ``generate`` decodes (B times the
beams or the texts wanted per prompt), E of them with a scale other than 1.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hyperdpo.alignment.conditioning import Weights
from hyperdpo.alignment.rows import ConditionedRows
from hyperdpo.alignment.sampling import evaluation_mode
from hyperdpo.core.point import check_scales
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from hyperdpo.alignment.model import Condition, ConditionedLM

#: Settings of transformers' generate that would not know of the virtual tokens, or that bring a cache of their own.
_REFUSED = ("inputs_embeds", "past_key_values", "assistant_model", "prompt_lookup_num_tokens", "cache_implementation")


@torch.no_grad()
def generate(
    model: ConditionedLM,
    input_ids: Tensor | Sequence[Sequence[int]],
    attention_mask: Tensor | None = None,
    *,
    weights: Weights | None = None,
    scale: float | Sequence[float] | np.ndarray | Tensor = 1.0,
    seed: int | None = None,
    **settings: Any,
) -> Any:
    """Continue prompts, each at weights and a scale of its own.

    Where c = 1 for all rows, a token takes one forward pass. Otherwise the base model (without prompt and LoRA) decodes
    the rows with another c too, in the same batch. The next token is drawn from (1 - 1/c) log p_base + (1/c) log p,
    normalised: :func:`~hyperdpo.core.control.linear_transformation`. That holds for whole responses; token by token it
    is an approximation, as in decoding-time realignment.

    Args:
        model: the model.
        input_ids: (B, T), padded on the left; or lists of token ids, which are padded here.
        attention_mask: (B, T), 0 on padding.
        weights: (m,) or (B, m).
        scale: c, a number > 0 or one for each prompt; below 1 moves away from the base model, above 1 towards it.
        seed: for sampling; the caller's random state is then left alone. None draws from it.
        settings: of transformers' ``generate``: max_new_tokens, do_sample, temperature, top_p, num_beams,
            num_return_sequences, streamer, ...

    Returns:
        As ``generate``: token ids (N, T + new), prompts included, or an output object.

    Raises:
        InputError: weights or scale of another shape or out of range, padding on the right, prompts with padding but
            without mask, beams together with a scale, or a setting that cannot be had with virtual tokens.
    """
    for name in _REFUSED:
        if settings.get(name) is not None:
            raise InputError(f"generate: {name} is not supported by a model with virtual tokens")
    ids, mask = prompt_rows(model, input_ids, attention_mask)
    scales = torch.from_numpy(check_scales(scale, len(ids))).float().expand(len(ids))
    if bool((scales != 1).any()) and _setting(model, settings, "num_beams", 1) != 1:
        raise InputError("a scale other than 1 with num_beams above 1, expected sampling or greedy decoding")
    condition = model.condition(weights, len(ids))
    new = _setting(model, settings, "max_new_tokens", None) or 0
    model.check_length(int(mask.sum(-1).max()) + new, condition.prompt_tokens)
    with contextlib.ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        if seed is not None:
            devices = [model.device] if model.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=devices))
            torch.manual_seed(seed)
        decoder = copy.copy(model.base)  # a view of the same modules, with a forward of its own
        decoder.forward = ConditionedForward(model, condition, scales)
        functools.update_wrapper(decoder.forward, type(model.base).forward, updated=())  # generate reads its arguments
        return decoder.generate(input_ids=ids, attention_mask=mask, **settings)


class ConditionedForward:
    """The forward method that ``generate`` sees: N rows in, logits of N rows out, whatever is computed in between.

    The computed batch has the N rows at w first, then the E rows of the base model. Those have the virtual tokens
    masked out, positions that do not count them, and gates of 0. The cache has N + E rows, and k places more than
    ``generate`` knows of.
    """

    def __init__(self, model: ConditionedLM, condition: Condition, scales: Tensor):
        self.model, self.condition, self.scales = model, condition, scales
        self._rows: ConditionedRows | None = None

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        **settings: Any,
    ) -> Any:
        rows = self._rows
        if rows is None or rows.count != len(input_ids):
            rows = self._rows = ConditionedRows.spread(self.model, self.condition, self.scales, len(input_ids))
        k, extra = rows.k, rows.extra
        before = 0 if past_key_values is None else past_key_values.get_seq_length()
        first, length = before == 0, input_ids.shape[1]
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -length:]
        elif position_ids is None:
            position_ids = torch.arange(max(0, before - k), max(0, before - k) + length, device=input_ids.device)[None]
        positions, mask = position_ids.expand(rows.count, length) + k, None
        # Without padding generate gives no mask, and where none is needed here either, attention is faster without.
        if attention_mask is not None or len(extra):
            if attention_mask is None:
                attention_mask = input_ids.new_ones(rows.count, length + max(0, before - k))
            mask = torch.cat((attention_mask.new_ones(rows.count, k), attention_mask), 1)
        if len(extra) and mask is not None:
            base_mask = mask[extra]
            base_mask[:, :k] = 0
            mask = torch.cat((mask, base_mask))
            positions = torch.cat((positions, positions[extra] - k))
            input_ids = torch.cat((input_ids, input_ids[extra]))
        inputs: dict[str, Tensor] = {"input_ids": input_ids}
        if first and rows.prefix is not None:
            embedded = self.model.get_input_embeddings()(input_ids)
            inputs = {"inputs_embeds": torch.cat((rows.prefix.to(embedded.dtype), embedded), 1)}
            positions = torch.cat((torch.arange(k, device=positions.device).expand(len(positions), k), positions), 1)
        with rows.gating:
            outputs = self.model.base(
                **inputs, attention_mask=mask, position_ids=positions, past_key_values=past_key_values, **settings
            )
        outputs.logits = rows.mixed(outputs.logits[:, -length:])
        return outputs


def prompt_rows(model: ConditionedLM, input_ids: Any, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B, T) ids and mask, padded on the left; InputError if that is not what was given."""
    pad = _setting(model, {}, "pad_token_id", None)
    if not isinstance(input_ids, Tensor):
        rows = [list(row) for row in input_ids]
        for number, row in enumerate(rows):
            if not row:
                raise InputError(f"prompt {number} is empty, expected at least one token")
        longest = max(map(len, rows), default=0)
        if not longest:
            raise InputError("no prompts, expected at least one")
        ids = torch.tensor([[pad or 0] * (longest - len(row)) + row for row in rows], device=model.device)
        return ids, torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=model.device)
    ids = input_ids.to(model.device)
    if ids.dim() != 2 or ids.numel() == 0:
        raise InputError(f"input_ids of shape {tuple(ids.shape)}, expected (prompts, tokens), at least one of each")
    if mask is None:
        # The end of a text may serve as padding, so that ids alone do not tell what is padding.
        if len(ids) > 1 and pad is not None and bool((ids == pad).any()):
            raise InputError(
                "attention_mask is missing; the prompts contain padding: pass the tokenizer's attention_mask"
            )
        return ids, torch.ones_like(ids)
    mask = mask.to(model.device)
    if mask.shape != ids.shape:
        raise InputError(f"attention_mask of shape {tuple(mask.shape)}, expected {tuple(ids.shape)}")
    empty = ~mask.any(-1)
    if bool(empty.any()):
        raise InputError(f"prompt {int(empty.nonzero()[0])} is empty, expected at least one token")
    wrong = (mask[:, -1] == 0) | (mask[:, 1:] < mask[:, :-1]).any(-1)
    if bool(wrong.any()):
        raise InputError(f"prompt {int(wrong.nonzero()[0])} is padded on the right; expected padding on the left")
    return ids, mask


def _setting(model: ConditionedLM, settings: dict[str, Any], name: str, default: Any) -> Any:
    """A setting of generate: given by itself, in a configuration that was given, or in the model's."""
    if settings.get(name) is not None:
        return settings[name]
    for config in (settings.get("generation_config"), model.generation_config):
        value = getattr(config, name, None)
        if value is not None:
            return value
    return default
