"""An explanation of one ranked list: which objective put a document where it is, and where it swaps with its neighbour.

A list is ranked by sum_j v_j C_j, with the columns C of :mod:`hyperdpo.ranking.components`. So the sum, and its
difference between two documents, are shared out among the objectives; and a pair swaps where the difference is 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hyperdpo.fronts import named

if TYPE_CHECKING:
    from hyperdpo.ranking.gbdt_model import GbdtModel


@dataclass(frozen=True)
class Trees:
    """What trees say about the k columns of n documents."""

    features: tuple[str, ...]
    """F names."""
    contributions: Mapping[str, np.ndarray]
    """Column -> (n, F + 1) TreeSHAP. A row sums to the raw prediction; its last entry is the same for all documents.
    Columns that the trees have no part in are left out."""
    spaces: Mapping[str, str]
    """Column -> what its contributions are measured in: ``log-odds`` of the gain, or ``gain``."""
    sources: Mapping[str, np.ndarray]
    """``trees``, ``neural``, ``base`` -> (n, k): their parts of the columns, which they sum to."""

    @staticmethod
    def of(models: Mapping[str, GbdtModel], rows: np.ndarray, sources: Mapping[str, np.ndarray]) -> Trees:
        """What models say about the rows of a list.

        Args:
            models: by column, of the same F features; those of columns in which they have a part.
            rows: (n, F) float32, origins subtracted.
            sources: see :attr:`sources`.
        """
        features = next((model.columns for model in models.values()), ())
        contributions = {name: model.contributions(rows) for name, model in models.items()}
        return Trees(features, contributions, {name: model.raw_space for name, model in models.items()}, sources)

    def ranked(self, order: np.ndarray) -> Trees:
        """The documents in another order (n,)."""
        return replace(
            self,
            contributions={name: values[order] for name, values in self.contributions.items()},
            sources={name: values[order] for name, values in self.sources.items()},
        )

    def leading(self, column: str, above: int, most: int) -> dict[str, float]:
        """The features with the largest part in the difference between a document and the next, by name."""
        rows = self.contributions[column][above : above + 2, :-1]
        difference = rows[0] - rows[1]
        largest = np.argsort(-np.abs(difference), kind="stable")[:most]
        return {self.features[i]: float(difference[i]) for i in largest if difference[i] != 0}


@dataclass(frozen=True)
class Explanation:
    """One ranked list at one point: n documents, best first, m objectives, k columns."""

    query: str
    objectives: tuple[str, ...]
    names: tuple[str, ...]
    """Names of the k columns: the objectives, and ``main`` for expected gains."""
    weights: np.ndarray
    """(m,) w."""
    scale: float
    main_share: float | None
    """λ; None for a run that takes none."""
    rows: np.ndarray
    """(n,) rows of the data, from 0."""
    columns: np.ndarray
    """(n, k) C >= 0; the largest entry of the list is 1."""
    trees: Trees | None = field(default=None, kw_only=True)

    @staticmethod
    def of(
        columns: np.ndarray,
        weights: np.ndarray,
        main_share: float | None,
        scale: float,
        *,
        query: str,
        objectives: Sequence[str],
        names: Sequence[str],
        rows: np.ndarray,
        trees: Trees | None = None,
    ) -> Explanation:
        """The explanation of a list whose documents are in any order.

        Args:
            columns: (n, k).
            weights: (m,) w.
            main_share: λ; None for a run that takes none.
            rows: (n,).
            trees: of the documents in this order.
        """
        order = np.argsort(-(columns @ _column_weights(weights, main_share)), kind="stable")
        point = (np.asarray(weights, dtype=np.float64), float(scale), main_share)
        ranked = None if trees is None else trees.ranked(order)
        return Explanation(query, tuple(objectives), tuple(names), *point, rows[order], columns[order], trees=ranked)

    @property
    def column_weights(self) -> np.ndarray:
        """(k,) v: w, or ((1 - λ) w, λ) for expected gains."""
        return _column_weights(self.weights, self.main_share)

    @property
    def totals(self) -> np.ndarray:
        """(n,) sum_j v_j C_ij, falling."""
        return np.asarray(self.columns @ self.column_weights)

    @property
    def parts(self) -> np.ndarray:
        """(n, k) v_j C_ij / sum_l v_l C_il, which sum to 1; NaN where the sum is 0."""
        return _over(self.column_weights * self.columns, self.totals)

    @property
    def lead_parts(self) -> np.ndarray:
        """(n - 1, k) v_j D_j / sum_l v_l D_l with D = C of a document minus C of the one below it.

        They sum to 1. A negative one speaks for the document below. NaN where the two are level.
        """
        return _over(self.column_weights * -np.diff(self.columns, axis=0), -np.diff(self.totals))

    @property
    def swaps(self) -> np.ndarray:
        """(n - 1, m) the weight of objective j at which a document and the one below it swap; NaN: at none.

        All other weights shrink in proportion: w moves along the line to the vertex e_j. The difference of the sums, f,
        is linear in w, so the swap is at the part t = f(w) / (f(w) - f(e_j)) of the way where f(e_j) < 0, and nowhere
        else. The weight of j is then w_j + t (1 - w_j). With two objectives the lines to the two vertices are the edge.
        """
        differences = -np.diff(self.columns, axis=0)
        here = (differences @ self.column_weights).clip(0)[:, None]
        vertices = np.eye(len(self.weights))
        there = differences @ np.stack([_column_weights(vertex, self.main_share) for vertex in vertices], axis=1)
        way = np.divide(here, here - there, out=np.full_like(there, np.nan), where=there < 0)
        return np.asarray(self.weights + way * (1 - self.weights))

    def to_dict(self, most_features: int = 5) -> dict[str, Any]:
        """For JSON; what is not defined is None.

        Args:
            most_features: of each column and pair.
        """
        totals, parts, lead_parts, swaps = self.totals, self.parts, self.lead_parts, self.swaps
        found: dict[str, Any] = {
            "query": self.query,
            "weights": named(self.objectives, self.weights),
            "scale": self.scale,
            **({} if self.main_share is None else {"main_share": self.main_share}),
            **({} if self.trees is None else {"contributions_in": dict(self.trees.spaces)}),
            "documents": [
                {"place": i + 1, "row": int(row), "sum": float(totals[i]), "parts": named(self.names, parts[i])}
                for i, row in enumerate(self.rows)
            ],
        }
        for i, above in enumerate(found["documents"][:-1]):
            above["over_next"] = {
                "row": int(self.rows[i + 1]),
                "lead": float(totals[i] - totals[i + 1]),
                "parts": named(self.names, lead_parts[i]),
                "swaps": named(self.objectives, swaps[i]),
                **({} if self.trees is None else self._of_trees(self.trees, i, most_features)),
            }
        return found

    def _of_trees(self, trees: Trees, above: int, most: int) -> dict[str, Any]:
        lead = self.totals[above] - self.totals[above + 1]
        sources = {
            source: named(self.names, _over(self.column_weights * (values[above] - values[above + 1]), lead))
            for source, values in trees.sources.items()
        }
        return {"sources": sources, "features": {j: trees.leading(j, above, most) for j in trees.contributions}}


def _column_weights(weights: np.ndarray, main_share: float | None) -> np.ndarray:
    """(k,) v of (m,) w: w, or ((1 - λ) w, λ)."""
    return weights if main_share is None else np.append((1 - main_share) * weights, main_share)


def _over(values: np.ndarray, total: ArrayLike) -> np.ndarray:
    """(..., k) values over (...) totals; NaN over 0."""
    whole = np.broadcast_to(np.asarray(total, dtype=np.float64)[..., None], values.shape)
    return np.divide(values, whole, out=np.full(values.shape, np.nan), where=whole != 0)
