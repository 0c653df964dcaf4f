"""A ranker with its base and its feature transform as one module: raw features in, scores out.

Shapes: B groups of a batch, n items (padded), F features, m objectives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hyperdpo.core.control import linear_transformation
from hyperdpo.data.transform import LINEAR, FeatureTransform
from hyperdpo.ranking.components import list_components, list_sources
from hyperdpo.ranking.examples import Batch
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.parametrizations import Temperatures
from hyperdpo.ranking.run import RankRun

#: Scores on padding: the lowest number of single precision, so that padding is ranked last.
PADDING_SCORE = float(torch.finfo(torch.float32).min)


class RawRanker(nn.Module):
    """Scores raw features as :meth:`RankRun.score` does; :meth:`batch` reads them.

    Args:
        run: on the CPU.

    Attributes:
        feature_type: of the features: double precision where an origin is subtracted from one of them.
    """

    mean: torch.Tensor
    deviation: torch.Tensor
    origins: torch.Tensor
    logs: torch.Tensor
    indicators: torch.Tensor

    def __init__(self, run: RankRun):
        super().__init__()
        self.ranker, self.base = run.ranker, run.base
        self.register_buffer("mean", torch.from_numpy(run.transform.mean.copy()))
        self.register_buffer("deviation", torch.from_numpy(run.transform.scale.copy()))
        self.register_buffer("origins", torch.from_numpy(run.transform.origins.copy()))
        self.register_buffer("logs", torch.from_numpy(run.transform.logs.copy()))
        self._has_indicators = len(run.transform.indicators) > 0
        if self._has_indicators:  # a graph cannot be saved with an empty one
            self.register_buffer("indicators", torch.from_numpy(run.transform.indicators.copy()))
        self.feature_type = feature_type(run.transform)
        self._some_linear = not run.transform.logs.all()
        self.eval()

    def batch(
        self,
        features: torch.Tensor,
        mask: torch.Tensor,
        base_scores: torch.Tensor | None = None,
        tree_columns: torch.Tensor | None = None,
    ) -> Batch:
        """What the ranker sees of B lists.

        Args:
            features: (B, n, F) raw, of :attr:`feature_type`; NaN where a value is missing; anything on padding.
            mask: (B, n) bool, True for items.
            base_scores: (B, n), where the run has no base of its own; anything on padding.
            tree_columns: (B, M, n), what the trees predict, where the run answers with some.
        """
        transformed = self._transformed(features.masked_fill(~mask.unsqueeze(-1), 0))
        batch = Batch(transformed, mask, torch.zeros_like(transformed[..., 0]))
        if self.base is not None:
            base = self.base(batch)
        else:
            assert base_scores is not None
            base = base_scores
        return Batch(transformed, mask, base.masked_fill(~mask, 0), tree_columns=tree_columns)

    def scores(
        self,
        batch: Batch,
        weights: torch.Tensor,
        scale: torch.Tensor,
        temperatures: Temperatures,
        main_share: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, n) scores; :data:`PADDING_SCORE` on padding.

        Args:
            batch: from :meth:`batch`.
            weights: (B, m), on the simplex.
            scale: (B,), c > 0, at these temperatures.
            temperatures: m numbers that the ranker answers at, or (B, m) where it takes them.
            main_share: (B,) λ, for a ranker that takes one; None: its own.
        """
        share = None if main_share is None else main_share.unsqueeze(0)
        found = self.ranker.scores(batch, weights.unsqueeze(0), temperatures, share)[0]
        scaled = linear_transformation(found, batch.base_scores, scale.unsqueeze(-1))
        return scaled.masked_fill(~batch.mask, PADDING_SCORE)

    def components(self, batch: Batch, scale: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
        """(B, n, k) of :func:`~hyperdpo.ranking.components.components`; 0 on padding.

        Args:
            batch: from :meth:`batch`.
            scale: (B,), c > 0.
            temperatures: m equal numbers.
        """
        return list_components(self.ranker, batch, scale, temperatures[0])

    def sources(self, batch: Batch, components: torch.Tensor) -> torch.Tensor:
        """(B, n, S, k) float32: what the S sources of a ranker with trees, :attr:`source_names`, give to components."""
        assert isinstance(self.ranker, GainRanker)
        found = list_sources(self.ranker, batch, components)
        return torch.stack([found[name] for name in self.source_names], 2).float()

    @property
    def source_names(self) -> tuple[str, ...]:
        """Of :meth:`sources`, in order."""
        neural = ("neural",) if isinstance(self.ranker, GainRanker) and self.ranker.has_network else ()
        return ("trees", "base", *neural)

    def _transformed(self, features: torch.Tensor) -> torch.Tensor:
        """(B, n, F) -> (B, n, F + I), as :class:`~hyperdpo.data.transform.FeatureTransform`."""
        if self.feature_type == torch.float64:
            features = (features - self.origins).float()
        missing = features.isnan()
        known = features.masked_fill(missing, 0)
        # In double precision: ONNX has no log1p, and log(1 + x) in single precision loses small x.
        logs = torch.log1p(known.abs().double()).to(known.dtype) * known.sign()
        values = (logs - self.mean) * self.deviation
        if self._some_linear:
            distance = (known.double() - self.mean.double()) * self.deviation.double()
            size = distance.abs()
            far = torch.log1p((size - LINEAR).clamp_min(0))
            linear = (distance.sign() * (size.clamp_max(LINEAR) + far)).to(known.dtype)
            values = torch.where(self.logs, values, linear)
        values = values.masked_fill(missing, 0)
        if not self._has_indicators:
            return values
        return torch.cat([values, missing.index_select(-1, self.indicators).to(values.dtype)], -1)


def feature_type(transform: FeatureTransform) -> torch.dtype:
    """What raw features have to be, so that nothing is lost before the origins are subtracted."""
    return torch.float64 if transform.origins.any() else torch.float32
