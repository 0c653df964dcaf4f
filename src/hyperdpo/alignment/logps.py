"""Log-probabilities of responses, without keeping the logits of a whole batch.

Shapes: B rows, T tokens, V vocabulary, d width, N tokens of responses in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hyperdpo.errors import InputError

#: Logits that exist at a time, as numbers: 64 MB in float32, as many again for their gradient.
CHUNK_LOGITS = 1 << 24


def logps_and_tails(
    states: Tensor,
    input_ids: Tensor,
    completion_mask: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    shared_tokens: Tensor | None = None,
    chunk_tokens: int | None = None,
) -> dict[str, Tensor]:
    """log p(response | prompt), the sum over the response's tokens, for each row.

    Logits are computed for response tokens only, a few at a time. The gradient with respect to the hidden states is
    computed in the same pass, since a token's log-probability does not depend on the loss. So the backward pass neither
    keeps logits nor computes them again. The head gets no gradient: it is frozen, as in a
    :class:`~hyperdpo.alignment.model.ConditionedLM`.

    Args:
        states: last hidden states (B, T, d). What stands at t predicts the token t + 1.
        input_ids: (B, T).
        completion_mask: (B, T), 1 on the response's tokens, its end included.
        head: hidden states (N, d) -> logits (N, V), such as an :class:`OutputHead`.
        shared_tokens: (B,), the length of the shortest response of a row's group; the rest of a response is its tail.
        chunk_tokens: tokens at a time; by default as many as make 16 million logits.

    Returns:
        ``logps``, (B,) float32, and if ``shared_tokens`` are given ``tail_logps``, (B,), the sums over the tails.

    Raises:
        InputError: a row's first token is part of a response: nothing predicts it.
    """
    mask = completion_mask.bool()
    if mask[:, 0].any():
        row = int(mask[:, 0].nonzero()[0])
        raise InputError(f"row {row}: the first token is part of the response; expected a prompt of at least one token")
    rows, places = mask[:, 1:].nonzero(as_tuple=True)
    targets = input_ids[rows, places + 1]
    chosen = states[rows, places]  # (N, d)
    size = chunk_tokens or max(1, CHUNK_LOGITS // _head_size(head))
    if torch.is_grad_enabled() and chosen.requires_grad:
        values = _FrozenHead.apply(chosen, targets, head, size)
    else:
        parts = zip(chosen.split(size), targets.split(size), strict=True)
        nothing = chosen.new_zeros(0, dtype=torch.float32)
        values = torch.cat([nothing, *(_token_logps(some, ids, head) for some, ids in parts)])
    none = values.new_zeros(len(input_ids))
    found = {"logps": none.index_add(0, rows, values)}
    if shared_tokens is not None:
        beyond = mask.cumsum(1)[rows, places + 1] > shared_tokens[rows]
        found["tail_logps"] = none.index_add(0, rows, values * beyond)
    return found


def sequence_logps(*inputs: Any, chunk_tokens: int | None = None) -> Tensor:
    """(B,): what :func:`logps_and_tails` gives as ``logps``, for the same arguments."""
    return logps_and_tails(*inputs, chunk_tokens=chunk_tokens)["logps"]


class OutputHead:
    """Hidden states -> logits as the model itself computes them, scaled and capped where its configuration says so.

    Args:
        base: a transformers causal language model.
    """

    def __init__(self, base: Any):
        self.module: nn.Module = base.get_output_embeddings()
        config = base.config.get_text_config()
        scale = getattr(config, "logit_scale", None)  # Cohere
        if scale is None and getattr(config, "logits_scaling", None) is not None:  # Granite
            scale = 1 / config.logits_scaling
        self.scale = 1.0 if scale is None else float(scale)
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)  # Gemma

    def __call__(self, hidden: Tensor) -> Tensor:
        """(..., d) -> (..., V)."""
        logits: Tensor = self.module(hidden)
        if self.scale != 1:
            logits = logits * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits


def _token_logps(states: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """(N, d) -> (N,) float32."""
    logits = head(states).float()
    return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)


def _head_size(head: Callable[[Tensor], Tensor]) -> int:
    """V where it is known without computing anything, a large vocabulary otherwise."""
    weight = getattr(getattr(head, "module", head), "weight", None)
    return len(weight) if isinstance(weight, Tensor) and weight.dim() == 2 else 1 << 18


class _FrozenHead(torch.autograd.Function):
    """(N, d) -> (N,) through a head without trainable parameters; keeps (N, d) numbers for the backward pass."""

    @staticmethod
    def forward(ctx: Any, chosen: Tensor, targets: Tensor, head: Callable[[Tensor], Tensor], size: int) -> Tensor:
        values, slopes = [chosen.new_zeros(0, dtype=torch.float32)], [chosen.new_zeros(0, chosen.shape[1])]
        for some, ids in zip(chosen.split(size), targets.split(size), strict=True):
            with torch.enable_grad():
                leaf = some.detach().requires_grad_()
                part = _token_logps(leaf, ids, head)
                # A token's log-probability depends on its own hidden state only: the sum's gradient is every token's.
                slopes += torch.autograd.grad(part.sum(), leaf)
            values.append(part.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grads[0][:, None].to(slopes.dtype)), None, None, None
