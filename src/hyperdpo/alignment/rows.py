"""The rows that a model computes while it decodes: those at w, and those of the base model where a scale asks for it.

Shapes: N rows at w, E of them with a scale other than 1, V vocabulary, k virtual tokens, L layers with LoRA, r rank,
d width. What is computed has N + E rows: those at w come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hyperdpo.alignment.conditioned_lora import use_gates
from hyperdpo.core.control import linear_transformation

if TYPE_CHECKING:
    from hyperdpo.alignment.model import Condition, ConditionedLM


@dataclass(frozen=True)
class ConditionedRows:
    """Conditions, row by row.

    Attributes:
        count: N.
        extra: (E,) indices of the rows that need the base model; scales: (E,), their c.
        prefix: (N + E, k, d) or None; the base model's are 0 and to be masked out.
        gates: (L, N + E, r), (L, 1, r) for all alike, or None for gates of 1; the base model's are 0.
    """

    count: int
    extra: Tensor
    scales: Tensor
    prefix: Tensor | None
    gates: Tensor | None

    @classmethod
    def spread(cls, model: ConditionedLM, condition: Condition, scales: Tensor, count: int) -> ConditionedRows:
        """A condition of B prompts, spread over ``count`` rows: each prompt's rows follow each other.

        Args:
            scales: (B,).
            count: N, a multiple of B.
        """
        scales = scales.to(model.device).repeat_interleave(count // len(scales))
        extra = (scales != 1).nonzero().squeeze(-1)
        e, prefix = len(extra), condition.prefix
        if prefix is not None:
            prefix = (
                prefix.expand(count, -1, -1) if len(prefix) == 1 else prefix.repeat_interleave(count // len(prefix), 0)
            )
            prefix = torch.cat((prefix, prefix.new_zeros(e, *prefix.shape[1:])))
        gates, lora = condition.gates, len(model.lora_names)
        if gates is not None and gates.shape[1] > 1:
            gates = gates.repeat_interleave(count // gates.shape[1], 1)
        if e and lora:
            shape = (lora, count, model.conditioning.rank)
            gates = torch.ones(shape, device=model.device) if gates is None else gates.expand(shape)
            gates = torch.cat((gates, gates.new_zeros(lora, e, shape[2])), 1)
        return cls(count, extra, scales[extra], prefix, gates)

    @property
    def k(self) -> int:
        """Virtual tokens."""
        return 0 if self.prefix is None else self.prefix.shape[1]

    @cached_property
    def gating(self) -> use_gates:
        """Inside, the layers multiply by these rows' gates."""
        return use_gates(self.gates)

    @cached_property
    def sources(self) -> Tensor:
        """(N + E,) the row at w that each computed row belongs to."""
        return torch.cat((torch.arange(self.count, device=self.extra.device), self.extra))

    def mixed(self, logits: Tensor) -> Tensor:
        """(N + E, T, V) logits -> (N, T, V), the scales applied to the log-probabilities of their rows."""
        if not len(self.extra):
            return logits
        logits, base = logits[: self.count], logits[self.count :]
        both = (logits[self.extra].float().log_softmax(-1), base.float().log_softmax(-1))
        scaled = linear_transformation(*both, self.scales[:, None, None])
        return logits.float().index_copy(0, self.extra, scaled)

    def joined(self, other: ConditionedRows) -> tuple[ConditionedRows, Tensor]:
        """Both batches' rows, and the places (N + E,) that they have among all computed rows of one, then the other.

        The virtual tokens are left out: rows that are joined have read them.
        """
        n, mine = self.count, self.count + len(self.extra)
        index = torch.arange(mine + other.count + len(other.extra), device=self.extra.device)
        first, second = index[:mine], index[mine:]
        order = torch.cat((first[:n], second[: other.count], first[n:], second[other.count :]))
        gates = None
        if self.gates is not None or other.gates is not None:
            known = self.gates if self.gates is not None else other.gates
            assert known is not None
            gates = torch.cat((self._full_gates(known), other._full_gates(known)), 1)[:, order]
        extra, scales = torch.cat((self.extra, other.extra + n)), torch.cat((self.scales, other.scales))
        return ConditionedRows(n + other.count, extra, scales, None, gates), order

    def selected(self, kept: Sequence[int]) -> tuple[ConditionedRows, Tensor]:
        """Some of the N rows at w with what belongs to them, and their places (N' + E',) among the computed rows."""
        place = {row: i for i, row in enumerate(kept)}
        extras = [(e, place[row]) for e, row in enumerate(self.extra.tolist()) if row in place]
        device = self.extra.device
        found = torch.tensor([e for e, _ in extras], dtype=torch.long, device=device)
        order = torch.cat((torch.tensor(list(kept), dtype=torch.long, device=device), self.count + found))
        gates = self.gates if self.gates is None or self.gates.shape[1] == 1 else self.gates[:, order]
        extra = torch.tensor([i for _, i in extras], dtype=torch.long, device=device)
        return ConditionedRows(len(kept), extra, self.scales[found], None, gates), order

    def _full_gates(self, like: Tensor) -> Tensor:
        """(L, N + E, r)."""
        shape = (like.shape[0], self.count + len(self.extra), like.shape[2])
        if self.gates is not None:
            return self.gates.expand(shape)
        return torch.ones(shape, device=like.device, dtype=like.dtype)
