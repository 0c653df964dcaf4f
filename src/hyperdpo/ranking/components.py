"""Components: one non-negative column per objective, whose weighted sum ranks a list as the ranker does at any weights.

With them a search engine or a database turns the dial by itself: a trade-off is a dot product.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike

from hyperdpo.core.gains import FLOOR
from hyperdpo.core.point import check_scales
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import write_atomically
from hyperdpo.objectives import MAIN
from hyperdpo.ranking.examples import Batch, Items
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.parametrizations import MixtureRanker, Ranker
from hyperdpo.ranking.run import RankRun

if TYPE_CHECKING:
    import pyarrow as pa

#: Endings of the files that :func:`write_components` writes.
SUFFIXES = (".parquet", ".csv", ".npy")


def component_names(run: RankRun, betas: Sequence[float] | None = None) -> tuple[str, ...]:
    """The columns' names: the objectives, and ``main`` for expected gains.

    Args:
        betas: the m temperatures that the run answers at; None: its own.

    Raises:
        InputError: a run whose ranking is not that of a weighted sum.
    """
    if (why := why_none(run, run.betas if betas is None else betas)) is not None:
        raise InputError(f"components: {why}")
    return (*run.objectives, MAIN) if isinstance(run.ranker, GainRanker) else run.objectives


def why_none(run: RankRun, betas: Sequence[float] | None) -> str | None:
    """Why a run's ranking is not that of a weighted sum; None where it is.

    Args:
        betas: the m temperatures that the run answers at; None: those of each list.
    """
    ranker = run.ranker
    if isinstance(ranker, GainRanker):
        return None
    if not isinstance(ranker, MixtureRanker) or betas is None:
        return f"a ranker of parametrization {run.config.parametrization} has none; train a mixture"
    if ranker.power != 1:
        return f"this mixture has power {ranker.power:g}; only power 1 is a weighted sum"
    if len(set(betas)) > 1:
        return f"this mixture answers at β {', '.join(f'{beta:g}' for beta in betas)}; only equal β give a weighted sum"
    return None


@torch.inference_mode()
def components(
    run: RankRun,
    part: Part,
    scale: float = 1.0,
    *,
    temperatures: ArrayLike | None = None,
    base_scores: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Columns C such that the order of sum_j v_j C_j within each list is that of the run's scores at v and the scale.

    v is w; for expected gains it is ((1 - λ) w, λ). Column j is exp(c β s_base) p_j for the form ``product``, and
    g_base^(c - 1) g_j for the form ``gain``, where g_j counts as at least :data:`~hyperdpo.core.gains.FLOOR`, as in
    scores. One factor per list makes the largest entry of a list 1.

    Args:
        part: groups to score. The columns hold for these candidate lists.
        scale: c.
        temperatures: β, m equal numbers, for the form ``product``; None: the run's.
        base_scores: (N of the table,), where the run cannot compute them itself.

    Returns:
        (N, k) float32 >= 0, in the order of :func:`component_names`.

    Raises:
        InputError: a run whose ranking is not that of a weighted sum, or not at these temperatures, a scale that is not
            above 0, or base scores are missing.
    """
    betas, _ = run.answering(temperatures)  # a mixture answers at any, without a factor
    names = component_names(run, betas)
    c = float(check_scales(scale, 1))
    base = run.base_scores(part.table, base_scores, device)[part.rows()]
    items = Items(part=part, features=run.features(part), base_scores=base, trees=run.ranker.trees)
    found = np.zeros((items.num_items, len(names)), dtype=np.float32)
    run.ranker.eval()
    for group_batch in items.batches():
        batch = items.batch(group_batch, device)
        rows, mask = items.index(group_batch)
        found[rows[mask]] = list_components(run.ranker, batch, c, betas[0]).cpu().numpy()[mask]
    return found


def list_components(ranker: Ranker, batch: Batch, scale: torch.Tensor | float, beta: float) -> torch.Tensor:
    """(G, n, k) float32: the columns of some lists, 0 on padding, as :func:`components` has them.

    Args:
        scale: c, one number or (G,).
        beta: β of all objectives, for the form ``product``.
    """
    base = batch.base_scores.double().unsqueeze(1)
    c = torch.as_tensor(scale, dtype=torch.float64, device=base.device).reshape(-1, 1, 1)
    if isinstance(ranker, GainRanker):
        logs = ranker.columns(batch).double().clamp_min(FLOOR).log() + (c - 1) * ranker.base_slope.double() * base
    else:
        assert isinstance(ranker, MixtureRanker)
        logs = ranker.log_targets(batch).double() + c * beta * base
    logs = logs.masked_fill(~batch.mask.unsqueeze(1), -torch.inf)
    return (logs - logs.amax((1, 2), keepdim=True)).exp().float().transpose(1, 2)


def list_sources(ranker: GainRanker, batch: Batch, columns: torch.Tensor) -> dict[str, torch.Tensor]:
    """What trees, base and network give to the components of some lists, by name: (G, n, k) float64 each.

    Args:
        batch: with what the trees predict.
        columns: (G, n, k) from :func:`list_components`, at any scale. The sources sum to them, but for items whose
            expected gains are all 0, which have no sources.
    """
    sources = ranker.column_sources(batch)
    whole = sum(sources.values(), torch.zeros_like(sources["trees"]))
    factor = columns.double().sum(-1) / whole.sum(1).clamp_min(1e-300)
    return {name: values.transpose(1, 2) * factor.unsqueeze(-1) for name, values in sources.items()}


def write_components(out: Path, table: GroupedTable, names: tuple[str, ...], values: np.ndarray) -> None:
    """Write columns beside their query id and row number, in the order of the source.

    Args:
        out: ``.parquet`` or ``.csv`` with the columns ``qid``, ``row`` (from 0) and one per name; ``.npy`` with the
            (N, k) numbers alone.
        values: (N, k), by the table's rows.

    Raises:
        InputError: the file cannot be written.
    """
    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, table.source_order(values), allow_pickle=False)
    else:
        import pyarrow.csv
        import pyarrow.parquet

        written = with_rows(table, names, values)
        if out.suffix == ".parquet":
            pyarrow.parquet.write_table(written, buffer)
        else:
            pyarrow.csv.write_csv(written, buffer)
    write_atomically(out, buffer.getvalue())


def with_rows(table: GroupedTable, names: tuple[str, ...], values: np.ndarray, first_row: int = 0) -> pa.Table:
    """Columns beside their query id and row number, in the order of the source.

    Args:
        values: (N, k), by the table's rows.
        first_row: the number of the first row.

    Returns:
        The columns ``qid``, ``row`` and one per name.
    """
    import pyarrow as pa

    qids = table.source_order(np.repeat(table.qids, table.group_sizes))
    columns: dict[str, ArrayLike] = {"qid": qids, "row": np.arange(first_row, first_row + len(values))}
    return pa.table({**columns, **dict(zip(names, table.source_order(values).T, strict=True))})
