"""Explanations: which objective put a document where it is, and at which weights it swaps with its neighbour.

A list is ranked by sum_j v_j C_j, with the columns C of :mod:`hyperdpo.ranking.components`. So the sum, and its
difference between two documents, are shared out among the objectives; and a pair swaps where the difference is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperdpo.core.gains import gain_weights
from hyperdpo.core.point import check_weights
from hyperdpo.data.groups import GroupedTable, abridged
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError, counted
from hyperdpo.fronts import named
from hyperdpo.ranking.components import component_names, components
from hyperdpo.ranking.examples import Items
from hyperdpo.ranking.parametrizations import GainRanker
from hyperdpo.ranking.run import RankRun


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
    """Of the k columns: the objectives, and ``main`` for expected gains."""
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


def explain(
    run: RankRun,
    part: Part,
    weights: ArrayLike,
    scale: float = 1.0,
    *,
    main_share: float | None = None,
    base_scores: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> Explanation:
    """Why a list is ranked as it is.

    Args:
        part: one group.
        weights: (m,) w.
        scale: c.
        main_share: λ; None: the run's.
        base_scores: (N of the table,), where the run cannot compute them itself.

    Raises:
        InputError: a run whose ranking is not that of a weighted sum (see
            :func:`~hyperdpo.ranking.components.component_names`), a point that it does not answer at, or base scores
            are missing.
    """
    names, w = component_names(run), check_weights(weights, len(run.objectives))
    share = run.share(main_share, 1)
    table, rows = part.table, part.rows()
    columns = components(run, part, scale, base_scores=base_scores, device=device).astype(np.float64)
    known = None if share is None else float(share[0])
    order = np.argsort(-(columns @ _column_weights(w, known)), kind="stable")
    trees = _explained_trees(run, part, run.base_scores(table, base_scores, device)[rows], columns, device)
    return Explanation(
        query=str(table.qids[part.groups[0]]),
        objectives=run.objectives,
        names=names,
        weights=w,
        scale=float(scale),
        main_share=known,
        rows=(rows if table.order is None else table.order[rows])[order],
        columns=columns[order],
        trees=None if trees is None else trees.ranked(order),
    )


def group_of(table: GroupedTable, query: str) -> Part:
    """The group of a query, by the query's id as text.

    Raises:
        InputError: there is no such query.
    """
    found = np.flatnonzero(table.qids.astype(str) == query)
    if not len(found):
        known = abridged(table.qids[:12].astype(str).tolist()) + (", ..." if table.num_groups > 12 else "")
        raise InputError(
            f"--query {query}: not among the {counted(table.num_groups, 'query')} of {table.source}; "
            f"expected one of {known}"
        )
    return Part(table, found)


@torch.inference_mode()
def _explained_trees(
    run: RankRun, part: Part, base: np.ndarray, columns: np.ndarray, device: torch.device | str
) -> Trees | None:
    """What trees, network and base give to the columns of one list, in the order of the data; None: it has no trees.

    Column j is (1 - τ) of the network's gain and τ of the trees', over the share of groups with signal. The main column
    is γ of that; the rest of its total is the base's.

    Args:
        base: (n,) scores.
        columns: (n, k), with a factor of each row: the scale's, and one per list.
    """
    ranker = run.ranker
    if not isinstance(ranker, GainRanker) or ranker.trees is None:
        return None
    items = Items(part=part, features=run.features(part), base_scores=base, trees=ranker.trees)
    (group_batch,) = items.batches()
    batch = items.batch(group_batch, device)
    whole = ranker.columns(batch)[0].double()
    assert batch.tree_columns is not None
    used = torch.full((ranker.num_columns, 1), ranker.tree_weight, dtype=torch.float64, device=whole.device)
    by_trees, by_base = torch.zeros_like(whole), torch.zeros_like(whole)
    learned_main = 0.0
    if ranker.learns_main:
        learned_main = ranker.learned_main
        used[-1] *= learned_main
    by_trees[: ranker.num_columns] = used * batch.tree_columns[0] / ranker.signal_shares.unsqueeze(-1)
    by_base[-1] = (1 - learned_main) * whole[-1].sum() * torch.softmax(ranker.base_slope * batch.base_scores[0], -1)
    parts = {"trees": by_trees, "base": by_base}
    if ranker.has_network:
        parts["neural"] = whole - by_trees - by_base
    factor = columns.sum(1) / whole.sum(0).clamp_min(1e-300).cpu().numpy()
    with_trees = [j for j in range(ranker.num_columns) if used[j] > 0]
    names, models = component_names(run), ranker.trees.models
    return Trees(
        features=models[0].columns,
        contributions={names[j]: models[j].contributions(part) for j in with_trees},
        spaces={names[j]: models[j].raw_space for j in with_trees},
        sources={name: values.cpu().numpy().T * factor[:, None] for name, values in parts.items()},
    )


def _column_weights(weights: np.ndarray, main_share: float | None) -> np.ndarray:
    """(k,) v of (m,) w."""
    return weights if main_share is None else gain_weights(torch.from_numpy(weights), main_share).numpy()


def _over(values: np.ndarray, total: ArrayLike) -> np.ndarray:
    """(..., k) values over (...) totals; NaN over 0."""
    whole = np.broadcast_to(np.asarray(total, dtype=np.float64)[..., None], values.shape)
    return np.divide(values, whole, out=np.full(values.shape, np.nan), where=whole != 0)
