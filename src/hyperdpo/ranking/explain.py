"""Explanations of lists by a run: its columns, and what trees, network and base give to them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperdpo.core.point import check_weights
from hyperdpo.data.groups import GroupedTable, abridged
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError, counted
from hyperdpo.ranking.components import component_names, components, list_sources
from hyperdpo.ranking.examples import Items
from hyperdpo.ranking.explanation import Explanation, Trees
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.run import RankRun


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
    trees = _explained_trees(run, part, run.base_scores(table, base_scores, device)[rows], columns, device)
    return Explanation.of(
        columns,
        w,
        known,
        scale,
        query=str(table.qids[part.groups[0]]),
        objectives=run.objectives,
        names=names,
        rows=rows if table.order is None else table.order[rows],
        trees=trees,
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
    """What trees, network and base give to the columns of one list, in the order of the data; None: it uses no trees.

    Args:
        base: (n,) scores.
        columns: (n, k) components.
    """
    ranker = run.ranker
    if not isinstance(ranker, GainRanker) or ranker.trees is None or not ranker.tree_weight:
        return None
    items = Items(part=part, features=run.features(part), base_scores=base, trees=ranker.trees)
    (group_batch,) = items.batches()
    batch = items.batch(group_batch, device)
    sources = list_sources(ranker, batch, torch.from_numpy(columns).to(batch.features.device)[None])
    models = zip(component_names(run), ranker.trees.models, ranker.tree_parts, strict=False)
    first = ranker.trees.models[0]
    rows = column_values(part, first.columns, np.array(first.origins) if first.origins else None)
    used = {name: model for name, model, weight in models if weight > 0}
    return Trees.of(used, rows, {name: values[0].cpu().numpy() for name, values in sources.items()})
