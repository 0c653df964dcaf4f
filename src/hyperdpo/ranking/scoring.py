"""What ``rank score`` computes for the rows of a table: their scores at one point, or columns for all weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hyperdpo.core.point import check_scales
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.ranking.components import component_names, components
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.sources import given_base, note_other_columns


@dataclass(frozen=True)
class ScoreRequest:
    """What is asked of a run, whatever the rows are."""

    weights: tuple[float, ...] | None
    """m numbers; None: components instead of scores."""
    scale: float = 1.0
    temperatures: tuple[float, ...] | None = None
    main_share: float | None = None
    base_scores: str | None = None
    """A column, or a file with one number per row."""

    def names(self, run: RankRun) -> tuple[str, ...]:
        """What the columns of :meth:`values` are called; it checks the request, too.

        Raises:
            InputError: a point that the run cannot answer, or a run without components.
        """
        check_scales(self.scale, 1)
        betas, _ = run.answering(self.temperatures)
        if self.weights is None:
            return component_names(run, betas)
        run.share(self.main_share, 1)
        return ("score",)

    def values(self, run: RankRun, table: GroupedTable, device: str) -> np.ndarray:
        """(N, k) float32, by the table's rows. What a user should know of the table is given as warnings.

        Raises:
            InputError: features or base scores are missing, or the run cannot answer.
        """
        note_other_columns(table, run, self.base_scores)
        base, part = given_base(self.base_scores, run, table), Part.whole(table)
        if self.weights is None:
            at = self.temperatures
            return components(run, part, self.scale, temperatures=at, base_scores=base, device=device)
        point = {"temperatures": self.temperatures, "main_share": self.main_share}
        return run.score(part, self.weights, self.scale, **point, base_scores=base, device=device)[:, None]
