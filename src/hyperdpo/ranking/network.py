"""Networks that score the items of a group, with or without conditions such as the weights w.

Shapes: G groups, n items (padded), F features, c conditions, d width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from hyperdpo.ranking.config import ScorerConfig

#: The coefficients of w start uniform within ± this. Drawn like those of the features, a few numbers below 1 beside 131
#: standardised ones are a tenth of the first layer's output, and small data is fitted before w is noticed. Chosen
#: by validation hypervolume (from 0.1, 1, 3, 6, 12; means of 3 seeds) on generated data and on 49 real queries.
WEIGHTS_BOUND = 3.0

#: Lists from here on use the fused attention on a CPU too, which does not hold n x n numbers.
LONG_LIST = 1024


class Scorer(nn.Module):
    """Numbers (G, n) for features (G, n, F); conditioned on c numbers per group, such as w, where there are any.

    ``conditioning`` says where the c numbers enter:

    - ``input``, as in the paper: concatenated to the input of the first layer. That layer is linear, so the
      concatenation is carried out as the sum of two linear maps: nothing of size (G, n, c) is made.
    - ``modulation``: there, and as a scale and a shift of every feature before each block (FiLM).
    - ``head``: only after the blocks, as a scale and a shift before one more layer. K conditions of a group then share
      the blocks, which is nearly all of the work.

    Args:
        num_features: F.
        num_conditions: c, or 0 for a scorer that knows none.
        num_outputs: numbers per item.
        zero_start: the last layer starts at 0, hence all numbers.
    """

    def __init__(
        self,
        config: ScorerConfig,
        num_features: int,
        num_conditions: int = 0,
        num_outputs: int = 1,
        *,
        zero_start: bool = False,
    ):
        super().__init__()
        self.config, self.num_features, self.num_conditions = config, num_features, num_conditions
        self.num_outputs = num_outputs
        width, conditioning = config.width, config.conditioning if num_conditions else None
        self.features_in = nn.Linear(num_features, width)
        self.weights_in = None
        if conditioning in ("input", "modulation"):
            self.weights_in = nn.Linear(num_conditions, width, bias=False)
            nn.init.uniform_(self.weights_in.weight, -WEIGHTS_BOUND, WEIGHTS_BOUND)
        block = TransformerBlock if config.kind == "transformer" else DenseBlock
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))
        self.modulations = None
        if conditioning == "modulation":
            self.modulations = nn.ModuleList(Modulation(num_conditions, width) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.head = ConditionedHead(num_conditions, width) if conditioning == "head" else None
        # No bias: every loss and metric is blind to a shift of a group's scores.
        self.out = nn.Linear(width, num_outputs, bias=False)
        if zero_start:
            nn.init.zeros_(self.out.weight)

    @property
    def shares_blocks(self) -> bool:
        """Whether the blocks see no conditions, so that :meth:`before_conditions` is the same for all of them."""
        return self.head is not None

    def before_conditions(self, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(G, n, d): what :meth:`forward` takes as ``hidden``, for a scorer that :attr:`shares_blocks`."""
        return self._blocks(self.features_in(features), mask, None)

    def forward(
        self,
        features: torch.Tensor,
        mask: torch.Tensor,
        conditions: torch.Tensor | None = None,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the scorer says about each item.

        Args:
            features: (G, n, F).
            mask: (G, n) bool, True for items; what stands on padding is arbitrary but finite.
            conditions: (G, c), or (K, G, c) for K of them per group; None for a scorer that knows none.
            hidden: of :meth:`before_conditions`, where it is known; features are not looked at then.

        Returns:
            (G, n) or (K, G, n); with several outputs o, (G, n, o) or (K, G, n, o).
        """
        many = 1 if conditions is None or conditions.dim() == 2 else len(conditions)
        lead = mask.shape if conditions is None or conditions.dim() == 2 else (many, *mask.shape)
        flat = None if conditions is None else conditions.reshape(-1, conditions.shape[-1])
        if hidden is None:
            hidden = self.features_in(features)
            if self.weights_in is not None and flat is not None:
                if many > 1:
                    hidden, mask = hidden.repeat(many, 1, 1), mask.repeat(many, 1)
                hidden = hidden + self.weights_in(flat).unsqueeze(-2)
            hidden = self._blocks(hidden, mask, flat)
        if self.head is not None and flat is not None:
            if many > 1:
                hidden = hidden.repeat(many, 1, 1)
            hidden = self.head(hidden, flat)
        elif many > 1 and self.weights_in is None:  # conditions for a scorer that knows none
            hidden = hidden.repeat(many, 1, 1)
        out = self.out(hidden)
        out = out.squeeze(-1) if self.num_outputs == 1 else out
        return out.view(*lead, *out.shape[2:])

    def _blocks(self, hidden: torch.Tensor, mask: torch.Tensor, conditions: torch.Tensor | None) -> torch.Tensor:
        """(G, n, d) -> (G, n, d), normalised."""
        bias = None
        # Asking whether there is padding at all would make a GPU wait, and cannot be traced.
        on_cpu = mask.device.type == "cpu" and not torch.compiler.is_compiling()
        if self.config.kind == "transformer" and not (on_cpu and bool(mask.all())):
            bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device)
            bias = bias.masked_fill(~mask, torch.finfo(hidden.dtype).min)[:, None, None, :]
        for number, block in enumerate(self.blocks):
            if self.modulations is not None:
                hidden = self.modulations[number](hidden, conditions)
            hidden = block(hidden, bias)
        return self.norm(hidden)


class Modulation(nn.Module):
    """Feature-wise modulation (FiLM): x * (1 + A c) + B c; starts as x + B c."""

    def __init__(self, num_conditions: int, width: int):
        super().__init__()
        self.scale = nn.Linear(num_conditions, width, bias=False)
        self.shift = nn.Linear(num_conditions, width, bias=False)
        nn.init.zeros_(self.scale.weight)

    def forward(self, hidden: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """(G, n, d) and (G, c) -> (G, n, d)."""
        return hidden * (1 + self.scale(conditions).unsqueeze(-2)) + self.shift(conditions).unsqueeze(-2)


class ConditionedHead(nn.Module):
    """One layer on each item, modulated by the conditions before its rectifier."""

    def __init__(self, num_conditions: int, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.modulation = Modulation(num_conditions, width)
        nn.init.uniform_(self.modulation.scale.weight, -1.0, 1.0)
        nn.init.uniform_(self.modulation.shift.weight, -1.0, 1.0)

    def forward(self, hidden: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """(G, n, d) and (G, c) -> (G, n, d)."""
        return functional.relu(self.modulation(self.dense(hidden), conditions))


class TransformerBlock(nn.Module):
    """Self-attention over the list, then a feed-forward part; normalised first, no positions.

    Without positions the block is permutation-equivariant. The linear maps have no bias; the norms before them do. With
    d = 64, 2 layers and F = 131 that gives 50,112 parameters, and 50,432 with m = 5 weights: the numbers that the paper
    reports.
    """

    def __init__(self, config: ScorerConfig):
        super().__init__()
        width, inner = config.width, config.feedforward or config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention_in = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.dense_norm = nn.LayerNorm(width)
        self.dense_in = nn.Linear(width, inner, bias=False)
        self.dense_out = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(G, n, d) and the attention bias (G, 1, 1, n), 0 for items and very negative for padding -> (G, n, d)."""
        groups, items, width = hidden.shape
        projected = self.attention_in(self.attention_norm(hidden))
        query, key, value = projected.view(groups, items, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attended = attention(query, key, value, bias)
        hidden = hidden + self.attention_out(attended.transpose(1, 2).reshape(groups, items, width))
        return hidden + self.dense_out(functional.relu(self.dense_in(self.dense_norm(hidden))))


def attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """softmax(q k^T / sqrt(d) + bias) v for (G, h, n, d) and a bias of (G, 1, 1, n) or None -> (G, h, n, d).

    On a CPU and for usual lists the products are written out: the fused kernel takes up to a third longer for lists of
    60 to 200 items. It saves the memory of long lists, and is right for GPUs and exports.
    """
    groups, heads, items, width = query.shape
    if query.device.type != "cpu" or torch.compiler.is_compiling() or items > LONG_LIST:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    query, key, value = (t.reshape(groups * heads, items, width) for t in (query, key, value))
    if bias is None:
        logits = torch.bmm(query * width**-0.5, key.transpose(1, 2))
    else:
        wide = bias.expand(groups, heads, items, items).reshape(-1, items, items) if heads > 1 else bias[:, 0]
        logits = torch.baddbmm(wide, query, key.transpose(1, 2), alpha=width**-0.5)
    return torch.bmm(torch.softmax(logits, -1), value).view(groups, heads, items, width)


class DenseBlock(nn.Module):
    """A residual layer on each item alone, for systems that score documents one at a time."""

    def __init__(self, config: ScorerConfig):
        super().__init__()
        width, inner = config.width, config.feedforward or config.width
        self.norm = nn.LayerNorm(width)
        self.dense_in = nn.Linear(width, inner, bias=False)
        self.dense_out = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """(G, n, d) -> (G, n, d); ``bias`` is not used: items do not see each other."""
        return hidden + self.dense_out(functional.relu(self.dense_in(self.norm(hidden))))
