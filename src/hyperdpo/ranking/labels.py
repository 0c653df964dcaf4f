"""The labels of a run: fitted on the training split, checked on all, and described."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar, cast

import numpy as np

from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.places import row_place
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import CHUNK_ROWS, label_values
from hyperdpo.errors import InputError
from hyperdpo.objectives import OLD_ARRAY_PREFIX, Label, Objective
from hyperdpo.ranking.clicks import correction_line, group_weights, read_labels, with_position_power
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.metrics import LARGEST_EXPONENT, NdcgSettings

AnyLabel = TypeVar("AnyLabel", bound=Label)


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
    correction: str = ""
    """How click data is corrected."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def line(self) -> str:
        """In words."""
        without = f", {self.unjudged:,} rows not judged" if self.unjudged else ""
        return (
            f"label {self.name} (column {self.column}): target {self.target} ({self.why}); "
            f"varies in {self.varies:,} of {self.groups:,} training groups{without}"
            + (f"; {self.correction}" if self.correction else "")
        )


def label_in(table: GroupedTable, label: AnyLabel) -> AnyLabel:
    """The label with the column that it has in this table, and without a correction, with a note, that it lacks.

    A run made from arrays knows its labels under their names; a file calls them by their column, and the other way
    round. Older runs made from arrays have ``label:NAME``.
    """
    names = (label.column, label.name, label.column.removeprefix(OLD_ARRAY_PREFIX))
    column = next((name for name in names if name in table.label_columns), label.column)
    if label.click_column is None or label.click_column in table.label_columns:
        return replace(label, column=column)
    warnings.warn(
        f"{table.source}: no column {label.click_column!r}, so {label.name} is measured as it is, without correction",
        stacklevel=2,
    )
    return replace(label, column=column, propensity=None, position=None, position_power=None)


def _called(label: Label, table: GroupedTable) -> str:
    """What a message calls a label: also by its column, if it was not given apart from the features."""
    return f"label {label.name!r}" + ("" if table.labels else f" (column {label.column})")


def all_labels(config: RankConfig) -> list[Label]:
    """The m objectives, and the main label where there is one."""
    return [*config.objectives, *(() if config.main is None else (config.main,))]


def fit_labels(
    config: RankConfig, parts: Mapping[str, Part], *, main_is_trained: bool, features: Sequence[str] = ()
) -> tuple[RankConfig, tuple[LabelReport, ...]]:
    """The configuration with what the labels need from the training split, and what was found.

    Args:
        main_is_trained: whether a base is trained on the main label; else it is only measured.
        features: columns that tell documents apart, where the bias of positions is fitted.

    Raises:
        InputError: a label that is missing in a row, that the metric cannot take, or that is the same within every
            training group; wrong propensities, positions or group weights.
    """
    labels = all_labels(config)
    train = parts["train"]
    for label in labels:
        if not train.table.labels:
            train.table.column_index(label.column)  # here it must be in the file; elsewhere LETOR may leave it out
        _check_resolution(train.table, label)
        if label.click_column is not None and config.metric.gain != "linear":
            raise InputError(
                f"label {label.name!r}: clicks that are divided by propensities need metric.gain linear; found "
                f"{config.metric.gain}"
            )
    labels = [with_position_power(label, train, features, config.qid_column) for label in labels]
    raw = {}
    for name, part in parts.items():
        group_weights(part, config.weight, config.qid_column)
        raw[name] = read_labels(part, labels, config.qid_column)[0]
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
    return LabelReport(
        label.name,
        label.column,
        label.target,
        why,
        len(part.sizes),
        varies,
        int((~judged).sum()),
        correction_line(label),
    )


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
