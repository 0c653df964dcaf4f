"""Networks that score the items of a group, with or without the weights w as an input.

Shapes: G groups, n items (padded), F features, m objectives, P weightings, d width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from hyperdpo.ranking.config import Parametrization, ScorerConfig
from hyperdpo.ranking.examples import Batch

#: The coefficients of w start uniform within ± this. Drawn like those of the features, a few numbers below 1 beside 131
#: standardised ones are a tenth of the first layer's output, and small data is fitted before w is noticed. Chosen
#: by validation hypervolume (from 0.1, 1, 3, 6, 12; means of 3 seeds) on generated data and on 49 real queries.
WEIGHTS_BOUND = 3.0

#: Lists from here on use the fused attention on a CPU too, which does not hold n x n numbers.
LONG_LIST = 1024


class Ranker(nn.Module):
    """A scorer and how its output becomes the score s(y, w | x): the parametrisation.

    ``scratch``: the scorer's output. ``augmentation``: the base score plus the scorer's output, which starts at 0, so
    that training starts exactly at the base.

    Args:
        num_weights: m, or 0 for a ranker that knows no weights (a base, or a model for one w).
    """

    def __init__(
        self,
        config: ScorerConfig,
        num_features: int,
        num_weights: int = 0,
        parametrization: Parametrization = "scratch",
    ):
        super().__init__()
        self.parametrization = parametrization
        self.scorer = Scorer(config, num_features, num_weights, zero_start=parametrization == "augmentation")

    def forward(self, batch: Batch, weights: torch.Tensor | None = None) -> torch.Tensor:
        """(G, n) scores; weights (G, m), or None for a ranker that knows none."""
        scores = self.scorer(batch.features, batch.mask, weights)
        return scores + batch.base_scores if self.parametrization == "augmentation" else scores

    def forward_many(self, batch: Batch, weights: torch.Tensor) -> torch.Tensor:
        """(P, G, n) scores of P weightings (P, m) of the same groups."""
        scores = self.scorer.forward_many(batch.features, batch.mask, weights)
        return scores + batch.base_scores if self.parametrization == "augmentation" else scores

    def num_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.parameters())


class Scorer(nn.Module):
    """Scores (G, n) of features (G, n, F); conditioned on w where ``num_weights`` is above 0.

    The weights are concatenated to the input of the first layer. That layer is linear, so the concatenation is
    carried out as the sum of two linear maps: nothing of size (G, n, m) is made, and many weightings share
    the product with the features.

    Args:
        num_features: F.
        num_weights: m, or 0 for a scorer that knows no weights.
        zero_start: the last layer starts at 0, hence all scores.
    """

    def __init__(self, config: ScorerConfig, num_features: int, num_weights: int = 0, *, zero_start: bool = False):
        super().__init__()
        self.config, self.num_features, self.num_weights = config, num_features, num_weights
        width = config.width
        self.features_in = nn.Linear(num_features, width)
        self.weights_in = nn.Linear(num_weights, width, bias=False) if num_weights else None
        if self.weights_in is not None:
            nn.init.uniform_(self.weights_in.weight, -WEIGHTS_BOUND, WEIGHTS_BOUND)
        block = TransformerBlock if config.kind == "transformer" else DenseBlock
        self.blocks = nn.ModuleList(block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        # No bias: every loss and metric is blind to a shift of a group's scores.
        self.out = nn.Linear(width, 1, bias=False)
        if zero_start:
            nn.init.zeros_(self.out.weight)

    def forward(self, features: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Scores of one weighting per group.

        Args:
            features: (G, n, F).
            mask: (G, n) bool, True for items; scores of padding are arbitrary but finite.
            weights: (G, m), or None for a scorer that knows no weights.

        Returns:
            (G, n).
        """
        hidden = self.features_in(features)
        if self.weights_in is not None:
            hidden = hidden + self.weights_in(weights).unsqueeze(-2)
        return self._head(hidden, mask)

    def forward_many(self, features: torch.Tensor, mask: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Scores of P weightings of the same groups: (G, n, F), (G, n), (P, m) -> (P, G, n)."""
        hidden = self.features_in(features).expand(len(weights), -1, -1, -1)
        if self.weights_in is not None:
            hidden = hidden + self.weights_in(weights)[:, None, None, :]
        scores = self._head(hidden.reshape(-1, *hidden.shape[-2:]), mask.repeat(len(weights), 1))
        return scores.view(len(weights), *mask.shape)

    def _head(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        bias = None
        # Asking whether there is padding at all would make a GPU wait, and cannot be traced.
        on_cpu = mask.device.type == "cpu" and not torch.compiler.is_compiling()
        if self.config.kind == "transformer" and not (on_cpu and bool(mask.all())):
            bias = torch.zeros(mask.shape, dtype=hidden.dtype, device=hidden.device)
            bias = bias.masked_fill(~mask, torch.finfo(hidden.dtype).min)[:, None, None, :]
        for block in self.blocks:
            hidden = block(hidden, bias)
        return self.out(self.norm(hidden)).squeeze(-1)


class TransformerBlock(nn.Module):
    """Self-attention over the list, then a feed-forward part; normalised first, no positions.

    Without positions the block is permutation-equivariant. The linear maps have no bias (the norms before them do),
    which at d = 64, 2 layers, F = 131 gives 50,112 parameters, and 50,432 with m = 5 weights: the
    numbers the paper reports.
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
