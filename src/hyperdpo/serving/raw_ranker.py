"""A ranker with its base and its feature transform as one module: raw features in, scores out.

Shapes: B groups of a batch, n items (padded), F features, m objectives.
"""

from __future__ import annotations

import torch
from torch import nn

from hyperdpo.core.control import linear_transformation
from hyperdpo.ranking.examples import Batch
from hyperdpo.ranking.rankers import Temperatures
from hyperdpo.ranking.run import RankRun

#: Scores on padding: the lowest number of single precision, so that padding is ranked last.
PADDING_SCORE = float(torch.finfo(torch.float32).min)


class RawRanker(nn.Module):
    """Scores raw features as :meth:`RankRun.score` does.

    Args:
        run: on the CPU.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, run: RankRun):
        super().__init__()
        self.ranker, self.base = run.ranker, run.base
        self.register_buffer("mean", torch.from_numpy(run.transform.mean.copy()))
        self.register_buffer("deviation", torch.from_numpy(run.transform.scale.copy()))
        self.eval()

    def scores(
        self,
        features: torch.Tensor,
        mask: torch.Tensor,
        weights: torch.Tensor,
        scale: torch.Tensor,
        base_scores: torch.Tensor | None,
        temperatures: Temperatures,
    ) -> torch.Tensor:
        """(B, n) scores; :data:`PADDING_SCORE` on padding.

        Args:
            features: (B, n, F) raw; anything on padding.
            mask: (B, n) bool, True for items.
            weights: (B, m), on the simplex.
            scale: (B,), c > 0, at these temperatures.
            base_scores: (B, n), where the run has no base of its own; anything on padding.
            temperatures: m numbers that the ranker answers at, or (B, m) where it takes them.
        """
        known = features.masked_fill(~mask.unsqueeze(-1), 0)
        # In double precision: ONNX has no log1p, and log(1 + x) in single precision loses small x.
        logs = torch.log1p(known.abs().double()).to(known.dtype) * known.sign()
        batch = Batch((logs - self.mean) * self.deviation, mask, torch.zeros_like(known[..., 0]))
        if self.base is not None:
            base = self.base(batch)
        else:
            assert base_scores is not None
            base = base_scores
        batch = Batch(batch.features, mask, base.masked_fill(~mask, 0))
        found = self.ranker.scores(batch, weights.unsqueeze(0), temperatures)[0]
        scaled = linear_transformation(found, batch.base_scores, scale.unsqueeze(-1))
        return scaled.masked_fill(~mask, PADDING_SCORE)
