"""Click data as it is: labels corrected for the positions that items were shown at, and weights of groups.

An item at a bad place is looked at seldom, so it is clicked seldom, however good it is. Divided by the chance that it
was looked at (its propensity), a click is an unbiased estimate of what the item would have had at the first place.

A list's labels are normalised: by their sum in a target, by their ideal DCG in a metric or a relative gain. This would
cancel the correction; with one click in a list nothing of it would be left. So a list counts sum z' / sum z times in
losses and in means of metrics: by how much its clicks were corrected on average.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.optimize import minimize_scalar

from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.places import row_place
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_chunks, label_values
from hyperdpo.errors import InputError, counted
from hyperdpo.objectives import Label

if TYPE_CHECKING:
    from hyperdpo.ranking.config import RankConfig

#: A click counts at most so many times: a smaller propensity is taken for one over this number.
LARGEST_CORRECTION = 10.0
#: The largest η that is looked for.
LARGEST_POWER = 5.0

AnyLabel = TypeVar("AnyLabel", bound=Label)


def click_roles(config: RankConfig) -> dict[str, str]:
    """Columns that describe clicks or groups, and so are no features, with the reason."""
    labels = [*config.objectives, *(() if config.main is None else (config.main,))]
    roles = {} if config.weight is None else {config.weight: "group weight"}
    for label in labels:
        if label.click_column is not None:
            roles[label.click_column] = f"{'propensity' if label.position is None else 'position'} of {label.name}"
    return roles


def read_labels(part: Part, labels: Sequence[Label], qid_column: str = "qid") -> tuple[np.ndarray, np.ndarray | None]:
    """Raw labels, those of click data divided by their propensities, and how often each group counts.

    Returns:
        (N, k) float32; (g, k) float32 sum z' / sum z of each group, 1 where it has no click. None: all 1.

    Raises:
        InputError: a column is missing, or holds no propensities or positions.
    """
    raw = label_values(part, [label.column for label in labels])
    if all(label.click_column is None for label in labels):
        return raw, None
    starts = np.cumsum(part.sizes) - part.sizes
    corrected, counts = raw.copy(), np.ones((len(starts), len(labels)), np.float32)
    for j, label in enumerate(labels):
        if label.click_column is None:
            continue
        judged = label.judged(raw[:, j])
        corrected[judged, j] *= corrections(part, label, judged, qid_column)[judged]
        before, after = (np.add.reduceat(np.where(judged, z[:, j], 0.0), starts) for z in (raw, corrected))
        counts[:, j] = np.divide(after, before, out=np.ones(len(starts)), where=before > 0)
    return corrected, counts


def corrections(part: Part, label: Label, judged: np.ndarray, qid_column: str = "qid") -> np.ndarray:
    """(N,) float32 from 1 to 10: 1 / max(propensity, 0.1), or min(position^η, 10).

    Args:
        judged: (N,) bool; the column must be right on these rows.

    Raises:
        InputError: a propensity outside 0 to 1, a position below 1, or η is not known.
    """
    column = str(label.click_column)
    values = beside_labels(part, column)
    if label.position is None:
        _check(part, column, judged & ~((values >= 0) & (values <= 1)), values, qid_column, "a propensity from 0 to 1")
        return (1 / np.maximum(values, 1 / LARGEST_CORRECTION)).astype(np.float32)
    _check(part, column, judged & ~((values >= 1) & np.isfinite(values)), values, qid_column, "a position from 1 on")
    if label.position_power is None:
        raise InputError(f"label {label.name!r}: position_power is not known before the label is fitted")
    return np.minimum(np.maximum(values, 1) ** label.position_power, LARGEST_CORRECTION).astype(np.float32)


def with_position_power(label: AnyLabel, part: Part, features: Sequence[str], qid_column: str = "qid") -> AnyLabel:
    """The label with its η: as it is where it is known, or fitted on the rows of a part.

    Rows with the same features are the same document of a query. At the position k a document is clicked a_d / k^η
    times on average. Given the sum of its clicks, their distribution over its positions depends on η alone, whose
    likelihood is maximised (a Poisson regression with an effect for each document; only the mean must be right).

    Args:
        features: columns that tell documents apart.

    Raises:
        InputError: no clicked document was shown at several positions.
    """
    if label.position is None or label.position_power is not None:
        return label
    clicks = label_values(part, [label.column])[:, 0].astype(np.float64)
    positions = beside_labels(part, label.position).astype(np.float64)
    judged = label.judged(clicks)
    bad = judged & ~((positions >= 1) & np.isfinite(positions))
    _check(part, label.position, bad, positions, qid_column, "a position from 1 on")
    power = fit_position_power(clicks[judged], positions[judged], _documents(part, features)[judged])
    if power is None:
        raise InputError(
            f"{part.table.source}: label {label.name!r}: no clicked document (rows with the same features) was shown "
            "at several positions, so the position bias cannot be fitted; set position_power (1 is usual), or give "
            "propensity: COLUMN"
        )
    return replace(label, position_power=power)


def fit_position_power(clicks: np.ndarray, positions: np.ndarray, documents: np.ndarray) -> float | None:
    """η >= 0 that maximises sum_i z_i log(k_i^-η / sum of k^-η over the rows of the same document).

    Args:
        clicks: (N,) z >= 0.
        positions: (N,) k >= 1.
        documents: (N,) the document of each row.

    Returns:
        None where no clicked document stands at several positions.
    """
    documents = np.unique(documents, return_inverse=True)[1].reshape(-1)
    order = np.argsort(documents, kind="stable")
    z, log_k, documents = clicks[order], np.log(positions[order]), documents[order]
    starts = np.flatnonzero(np.diff(documents, prepend=-1))
    moved = np.maximum.reduceat(log_k, starts) > np.minimum.reduceat(log_k, starts) if len(z) else np.zeros(0, bool)
    total = np.add.reduceat(z, starts) if len(z) else np.zeros(0)
    if not (moved & (total > 0)).any():
        return None
    kept = moved[documents]
    z, log_k, total = z[kept], log_k[kept], total[moved]
    starts = np.flatnonzero(np.diff(documents[kept], prepend=-1))

    def loss(power: float) -> float:
        sums = np.add.reduceat(np.exp(-power * log_k), starts)
        return float(power * (z @ log_k) + total @ np.log(sums))

    return float(minimize_scalar(loss, bounds=(0.0, LARGEST_POWER), method="bounded", options={"xatol": 1e-6}).x)


def _documents(part: Part, features: Sequence[str]) -> np.ndarray:
    """(N,) int64: a number that rows with the same features share."""
    found = [
        np.fromiter((hash(row.tobytes()) for row in np.ascontiguousarray(chunk)), np.int64, len(chunk))
        for chunk in column_chunks(part, tuple(features))
    ]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def group_weights(part: Part, column: str | None, qid_column: str = "qid") -> np.ndarray | None:
    """(g,) float32 weights of a part's groups; None where no column holds any.

    Raises:
        InputError: a weight that is negative or missing, that differs within a group, or is 0 in all of them.
    """
    if column is None:
        return None
    values = beside_labels(part, column)
    _check(part, column, ~((values >= 0) & np.isfinite(values)), values, qid_column, "a group weight of at least 0")
    starts = np.cumsum(part.sizes) - part.sizes
    found = values[starts]
    other = np.repeat(found, part.sizes) != values
    _check(part, column, other, values, qid_column, "the same weight on all rows of a group")
    if len(found) and not (found > 0).any():
        raise InputError(f"{part.table.source}: column {column!r} is 0 in all {counted(len(found), 'group')}")
    return found


def beside_labels(part: Part, column: str) -> np.ndarray:
    """(N,) float32 of a column that stands where the labels do.

    Raises:
        InputError: there is none of that name.
    """
    if not part.table.labels:
        part.table.column_index(column)  # unlike a feature, it may not be left out of LETOR text
    elif column not in part.table.labels:
        raise InputError(f"labels: no column {column!r}; found {', '.join(part.table.labels)}")
    return label_values(part, [column])[:, 0]


def measured_weight(column: str | None, table: GroupedTable) -> str | None:
    """The column of group weights, as far as a table has it; a note says where it lacks it."""
    if column is None or column in table.label_columns:
        return column
    warnings.warn(f"{table.source}: no column {column!r}, so all groups count alike", stacklevel=2)
    return None


def correction_line(label: Label) -> str:
    """How a label is corrected, in words; empty for one that is not."""
    if label.position is not None:
        return f"times the position (column {label.position}) to the power of {label.position_power:.3g}, at most 10"
    return "" if label.propensity is None else f"divided by its propensity (column {label.propensity}), at least 0.1"


def corrected_labels(labels: Sequence[Label], main: Label | None) -> dict[str, str]:
    """Labels that are measured on corrected clicks -> how they are corrected."""
    known = {label.name: correction_line(label) for label in (*labels, *(() if main is None else (main,)))}
    return {name: line for name, line in known.items() if line}


def _check(part: Part, column: str, bad: np.ndarray, values: np.ndarray, qid_column: str, expected: str) -> None:
    """Refuse the first of (N,) bad rows, with its place and value."""
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        place = row_place(part.table, int(part.rows()[first]), qid_column)
        raise InputError(f"{place}: column {column!r} is {values[first]:g}; expected {expected}")
