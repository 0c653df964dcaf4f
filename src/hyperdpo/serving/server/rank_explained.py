"""Explanations in the answer of ``POST /rank``: those of ``hyperdpo rank explain``, but for the features of trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hyperdpo.ranking.explanation import Explanation
from hyperdpo.serving.server.rank_model import RankModel
from hyperdpo.serving.server.rank_schema import AskedGroup


def explanations(asked: Sequence[AskedGroup], columns: Sequence[np.ndarray], model: RankModel) -> list[dict[str, Any]]:
    """What the answer of each list has in addition: ``explanation`` where it is asked for, else nothing.

    Args:
        columns: (n, k) components of those lists that ask, in their order.
    """
    known = iter(columns)
    return [{} if one.columns is None else {"explanation": _explanation(one, next(known), model)} for one in asked]


def _explanation(asked: AskedGroup, columns: np.ndarray, model: RankModel) -> list[dict[str, Any]]:
    places = np.arange(len(columns))
    found = Explanation.of(
        columns.astype(np.float64),
        np.array(asked.point.weights),
        asked.work.main_share,
        asked.point.scale,
        query="",
        objectives=model.objectives,
        names=model.columns,
        rows=places,
    )
    ids = places.tolist() if asked.ids is None else asked.ids
    documents: list[dict[str, Any]] = found.to_dict()["documents"]
    for one in documents:
        for named in (one, one.get("over_next", {})):
            if named:
                named["id"] = ids[named.pop("row")]
    return documents
