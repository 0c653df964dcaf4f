"""Explanations in the answer of ``POST /rank``: those of ``hyperdpo rank explain``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperdpo.ranking.explanation import Explanation
from hyperdpo.serving.server.rank_model import ListToScore, RankModel
from hyperdpo.serving.server.rank_schema import AskedGroup


def explanations(asked: Sequence[AskedGroup], columns: Sequence[np.ndarray], model: RankModel) -> list[dict[str, Any]]:
    """What the answer of each list has in addition: ``explanation`` where it is asked for, else nothing.

    Args:
        columns: of those lists that ask, in their order: (n, k) components, or (n, 1 + S, k) with their sources.
    """
    known = iter(columns)
    return [{} if one.columns is None else _explained(one.columns, one, next(known), model) for one in asked]


def _explained(work: ListToScore, asked: AskedGroup, columns: np.ndarray, model: RankModel) -> dict[str, Any]:
    places = np.arange(len(columns))
    trees, lacks = None, None
    if model.trees is not None:
        sources = dict(zip(model.sources, columns[:, 1:].swapaxes(0, 1).astype(np.float64), strict=True))
        trees, lacks = model.trees.explained(work.features, sources)
        columns = columns[:, 0]
    found = Explanation.of(
        columns.astype(np.float64),
        np.array(asked.point.weights),
        asked.work.main_share,
        asked.point.scale,
        query="",
        objectives=model.objectives,
        names=model.columns,
        rows=places,
        trees=trees,
    )
    ids = places.tolist() if asked.ids is None else asked.ids
    told = found.to_dict()
    documents: list[dict[str, Any]] = told["documents"]
    for one in documents:
        for named in (one, one.get("over_next", {})):
            if named:
                named["id"] = ids[named.pop("row")]
    answer = {"explanation": documents, "contributions_in": told.get("contributions_in"), "explanation_lacks": lacks}
    return {name: value for name, value in answer.items() if value}
