"""The labels of a run: fitted on the training split, checked on all, and described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np

from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.places import row_place
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import CHUNK_ROWS, label_values
from hyperdpo.errors import InputError
from hyperdpo.objectives import Label, Objective
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.metrics import LARGEST_EXPONENT, NdcgSettings


@dataclass(frozen=True)
class LabelReport:
    """What is known of one label after the training groups were looked at."""

    name: str
    column: str
    target: str
    why: str
    """Why this target."""
    groups: int
    """Training groups."""
    varies: int
    """Those of them within which the label varies: only they can teach, or measure, anything."""
    unjudged: int
    """Training rows without a label."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def line(self) -> str:
        """In words."""
        without = f", {self.unjudged:,} rows not judged" if self.unjudged else ""
        return (
            f"label {self.name} (column {self.column}): target {self.target} ({self.why}); "
            f"varies in {self.varies:,} of {self.groups:,} training groups{without}"
        )


def _called(label: Label, table: GroupedTable) -> str:
    """What a message calls a label: also by its column, if it was not given apart from the features."""
    return f"label {label.name!r}" + ("" if table.labels else f" (column {label.column})")


def all_labels(config: RankConfig) -> list[Label]:
    """The m objectives, and the main label where there is one."""
    return [*config.objectives, *(() if config.main is None else (config.main,))]


def fit_labels(
    config: RankConfig, parts: Mapping[str, Part], *, main_is_trained: bool
) -> tuple[RankConfig, tuple[LabelReport, ...]]:
    """The configuration with what the labels need from the training split, and what was found.

    Args:
        main_is_trained: whether a base is trained on the main label; else it is only measured.

    Raises:
        InputError: a label that is missing in a row, that the metric cannot take, or that is the same within every
            training group.
    """
    labels = all_labels(config)
    train = parts["train"]
    for label in labels:
        if not train.table.labels:
            train.table.column_index(label.column)  # here it must be in the file; elsewhere LETOR may leave it out
        _check_resolution(train.table, label)
    raw = {name: label_values(part, [label.column for label in labels]) for name, part in parts.items()}
    for name, part in parts.items():
        for j, label in enumerate(labels):
            check_present(part, label, raw[name][:, j], config.qid_column)
    fitted, reports = [], []
    for j, label in enumerate(labels):
        values = raw["train"][:, j]
        if not label.judged(values).any():
            raise InputError(
                f"{train.table.source}: {_called(label, train.table)} is judged on no training row; "
                "expected at least two in a group"
            )
        why = label.fitting_target(values)[1]
        one = label.fitted(values)
        fitted.append(one)
        reports.append(_report(train, one, why, values))
        if reports[-1].varies == 0 and (isinstance(label, Objective) or main_is_trained):
            raise InputError(
                f"{train.table.source}: {_called(label, train.table)} is the same on all rows of each "
                "training group, so no order of a group is better than another; expected a label that varies within "
                "groups"
            )
    for name, part in parts.items():
        for j, label in enumerate(fitted):
            _check_measurable(part, label, raw[name][:, j], config.metric, config.qid_column)
    m = len(config.objectives)
    objectives = tuple(cast(Objective, label) for label in fitted[:m])
    return replace(config, main=None if config.main is None else fitted[-1], objectives=objectives), tuple(reports)


def _report(part: Part, label: Label, why: str, values: np.ndarray) -> LabelReport:
    judged = label.judged(values)
    gains = np.where(judged, label.gains(values), np.nan)
    starts = np.cumsum(part.sizes) - part.sizes
    low, high = (reduce.reduceat(gains, starts) for reduce in (np.fmin, np.fmax))
    varies = int((high > low).sum())
    assert label.target is not None
    return LabelReport(label.name, label.column, label.target, why, len(part.sizes), varies, int((~judged).sum()))


def check_present(part: Part, label: Label, values: np.ndarray, qid_column: str = "qid") -> None:
    """Refuse (N,) raw values of which one is missing, unless the label may be not judged.

    Raises:
        InputError: with the place of the first.
    """
    missing = np.flatnonzero(np.isnan(values))
    if len(missing) and label.unjudged is None:
        row = int(part.rows()[missing[0]])
        raise InputError(
            f"{row_place(part.table, row, qid_column)}: {_called(label, part.table)} is missing; expected a number on "
            f"every row, or `unjudged: -1` beside `name: {label.name}` in the configuration file: missing values then "
            "count as not judged"
        )


def refuse_labels_among(part: Part, config: RankConfig, columns: tuple[str, ...]) -> None:
    """Refuse features that hold the very values of a label: a copy of it was left among them.

    Raises:
        InputError: one does, on all rows of the part.
    """
    labels = all_labels(config)
    suspects = np.ones((len(columns), len(labels)), dtype=bool)
    index, rows = part.table.column_indices(columns), part.rows()
    truths = label_values(part, [label.column for label in labels])
    for start in range(0, len(rows), CHUNK_ROWS):
        kept = np.flatnonzero(suspects.any(axis=1))
        if not len(kept):
            return
        features = part.table.take(rows[start : start + CHUNK_ROWS], index[kept])
        for j in range(len(labels)):
            suspects[kept, j] &= (features == truths[start : start + CHUNK_ROWS, [j]]).all(axis=0)
    if suspects.any():
        i, j = (int(k) for k in np.argwhere(suspects)[0])
        raise InputError(
            f"{part.table.source}: feature {columns[i]!r} is a copy of {_called(labels[j], part.table)}; "
            "name it in excluded_columns, or remove it from the data"
        )


def _check_resolution(table: GroupedTable, label: Label) -> None:
    origin = None if table.labels else table.origins.get(label.column)
    if origin is not None:
        raise InputError(
            f"{table.source}: {_called(label, table)} holds numbers of about {origin:,.0f} whose "
            "differences 32-bit floats cannot hold; expected smaller numbers: subtract a constant from the column"
        )


def _check_measurable(part: Part, label: Label, values: np.ndarray, metric: NdcgSettings, qid_column: str) -> None:
    """Refuse a label that the metric cannot take, of any split, before anything is trained.

    Raises:
        InputError: a negative gain, or one too large for exponential gain.
    """
    gains = label.gains(values)
    lowest, highest = (float(reduce.reduce(gains, initial=0.0)) for reduce in (np.fmin, np.fmax))
    if lowest < 0:
        row = int(part.rows()[int(np.nanargmin(gains))])
        hint = "add a constant to the column"
        if lowest == -1 and label.direction == "maximize":
            hint += f", or `unjudged: -1` beside `name: {label.name}` in the configuration file, if -1 means not judged"
        raise InputError(
            f"{row_place(part.table, row, qid_column)}: {_called(label, part.table)} has the value {lowest:g}; NDCG "
            f"needs labels of at least 0: {hint}"
        )
    if metric.gain == "exponential" and highest > LARGEST_EXPONENT:
        raise InputError(
            f"{part.table.source}: {_called(label, part.table)} has the value {highest:g}; metric.gain "
            f"exponential needs labels of at most {LARGEST_EXPONENT}: expected gain linear"
        )
