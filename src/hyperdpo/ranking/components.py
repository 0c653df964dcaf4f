"""Components: one non-negative column per objective, whose weighted sum ranks a list as the ranker does at any weights.

With them a search engine or a database turns the dial by itself: a trade-off is a dot product.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperdpo.core.point import check_scales
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import write_atomically
from hyperdpo.objectives import MAIN
from hyperdpo.ranking.examples import Batch, Items
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.parametrizations import MixtureRanker
from hyperdpo.ranking.run import RankRun

#: Endings of the files that :func:`write_components` writes.
SUFFIXES = (".parquet", ".csv", ".npy")


def component_names(run: RankRun) -> tuple[str, ...]:
    """The columns' names: the objectives, and ``main`` for expected gains.

    Raises:
        InputError: a run whose ranking is not that of a weighted sum.
    """
    ranker = run.ranker
    if isinstance(ranker, GainRanker):
        return (*run.objectives, MAIN)
    if not isinstance(ranker, MixtureRanker):
        raise InputError(
            f"components: a ranker of parametrization {run.config.parametrization} has none; train a mixture"
        )
    if ranker.power != 1:
        raise InputError(f"components: this mixture has power {ranker.power:g}; only power 1 is a weighted sum")
    if len(set(run.betas)) > 1:
        listed = ", ".join(f"{beta:g}" for beta in run.betas)
        raise InputError(f"components: this mixture has β {listed}; only equal β give a weighted sum")
    return run.objectives


@torch.inference_mode()
def components(
    run: RankRun,
    part: Part,
    scale: float = 1.0,
    *,
    base_scores: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Columns C such that the order of sum_j v_j C_j within each list is that of the run's scores at v and the scale.

    v is w; for expected gains it is ((1 - λ) w, λ). Column j is exp(c β s_base) p_j for the form ``product``, and
    g_base^(c - 1) g_j for the form ``gain``. One factor per list makes the largest entry of a list 1.

    Args:
        part: groups to score. The columns hold for these candidate lists.
        scale: c.
        base_scores: (N of the table,), where the run cannot compute them itself.

    Returns:
        (N, k) float32 >= 0, in the order of :func:`component_names`.

    Raises:
        InputError: a run whose ranking is not that of a weighted sum, a scale that is not above 0, or base scores are
            missing.
    """
    names = component_names(run)
    c = float(check_scales(scale, 1))
    base = run.base_scores(part.table, base_scores, device)[part.rows()]
    items = Items(part=part, features=run.features(part), base_scores=base, trees=run.ranker.trees)
    found = np.zeros((items.num_items, len(names)), dtype=np.float32)
    run.ranker.eval()
    for group_batch in items.batches():
        batch = items.batch(group_batch, device)
        logs = _log_columns(run, batch, c).masked_fill(~batch.mask.unsqueeze(1), -torch.inf)
        columns = (logs - logs.amax((1, 2), keepdim=True)).exp().float().cpu().numpy()
        rows, mask = items.index(group_batch)
        found[rows[mask]] = np.moveaxis(columns, 1, -1)[mask]
    return found


def _log_columns(run: RankRun, batch: Batch, scale: float) -> torch.Tensor:
    """(G, k, n) float64 logarithms, up to a number per list."""
    base = batch.base_scores.double().unsqueeze(1)
    if isinstance(run.ranker, GainRanker):
        return run.ranker.columns(batch).double().log() + (scale - 1) * run.ranker.base_slope.double() * base
    assert isinstance(run.ranker, MixtureRanker)
    return run.ranker.log_targets(batch).double() + scale * run.betas[0] * base


def write_components(out: Path, table: GroupedTable, names: tuple[str, ...], values: np.ndarray) -> None:
    """Write columns beside their query id and row number, in the order of the source.

    Args:
        out: ``.parquet`` or ``.csv`` with the columns ``qid``, ``row`` (from 0) and one per name; ``.npy`` with the
            (N, k) numbers alone.
        values: (N, k), by the table's rows.

    Raises:
        InputError: the file cannot be written.
    """
    values = table.source_order(values)
    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, values, allow_pickle=False)
    else:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        qids = table.source_order(np.repeat(table.qids, table.group_sizes))
        columns: dict[str, ArrayLike] = {"qid": qids, "row": np.arange(len(values))}
        written = pa.table({**columns, **dict(zip(names, values.T, strict=True))})
        if out.suffix == ".parquet":
            pyarrow.parquet.write_table(written, buffer)
        else:
            pyarrow.csv.write_csv(written, buffer)
    write_atomically(out, buffer.getvalue())
