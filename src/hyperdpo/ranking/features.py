"""Which columns of a table are the features of a run, and why the others are not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hyperdpo.data.groups import GroupedTable, abridged
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError
from hyperdpo.ranking.config import RankConfig

#: Names that data-frame tools give to an index: pandas, polars, R, databases.
INDEX_NAME = re.compile(
    r"|index|level_\d+|unnamed: ?\d+(\.\d+)*|__index_level_\d+__|row[ _.]?(nr|num|number|id|index|names?)?|\.\.\.\d+",
    re.IGNORECASE,
)
#: Names that they give to a column without one. It may be an index, if it numbers the rows.
UNNAMED = re.compile(r"X(\.\d+)?|V\d+|_c\d+|_\d+|[Cc]olumn_?\d+|[Ff]ield_?\d+")


@dataclass(frozen=True)
class FeatureChoice:
    """The features of a run."""

    columns: tuple[str, ...]
    left_out: Mapping[str, str]
    """Every other column of the table, and why it is no feature."""


def choose_features(
    table: GroupedTable, config: RankConfig, base_column: str | None = None, *, labelled: bool = True
) -> FeatureChoice:
    """All columns of numbers but labels, base scores, excluded ones and those that only number the rows.

    Args:
        table: the training data.
        base_column: the column of the base scores.
        labelled: False: no column is a label.

    Raises:
        InputError: no such label, no feature, or a column that was most likely meant to hold numbers does not.
    """
    roles: dict[str, str] = {name: "in excluded_columns" for name in config.excluded_columns}
    if labelled:
        roles |= {o.column: f"label of {o.name}" for o in config.objectives}
    if labelled and config.main is not None:
        roles.setdefault(config.main.column, "main label")
    if base_column is not None:
        roles.setdefault(base_column, "base scores")
    for name, reason in roles.items():
        if not reason.startswith("in "):
            table.column_index(name)
    for name, problem in table.doubtful.items():
        if name not in roles:
            raise InputError(f"{table.source}:{problem}")
    left_out = {name: reason for name, reason in roles.items() if name in table.columns or name in table.left_out}
    left_out |= {name: reason for name, reason in table.left_out.items() if name not in roles}
    columns = [name for name in table.columns if name not in roles]
    if not config.keep_row_numbers:
        numbering = [name for name in columns if _numbers_the_rows(table, name)]
        left_out |= {name: "numbers the rows (keep_row_numbers keeps it)" for name in numbering}
        columns = [name for name in columns if name not in numbering]
    if not columns:
        others = "; ".join(f"{name or '(no name)'}: {reason}" for name, reason in left_out.items())
        raise InputError(f"{table.source}: no column is left for a feature; expected at least one ({others})")
    return FeatureChoice(tuple(columns), left_out)


def feature_lines(choice: FeatureChoice, transform: FeatureTransform) -> list[str]:
    """What ``rank fit`` and ``data check`` say of the features."""
    lines = [f"features ({len(choice.columns)}): {abridged(choice.columns)}"]
    if choice.left_out:
        described = "; ".join(f"{name or '(no name)'} ({reason})" for name, reason in choice.left_out.items())
        lines.append(f"no features: {described}")
    if transform.constant:
        lines.append(
            f"constant on all training rows, so without effect ({len(transform.constant)}): "
            f"{abridged(transform.constant)}"
        )
    if len(transform.indicators):
        names = [transform.columns[j] for j in transform.indicators]
        lines.append(f"with missing values ({len(names)}; the mean and one more column each): {abridged(names)}")
    if shifted := [name for name, origin in zip(transform.columns, transform.origins, strict=True) if origin]:
        lines.append(f"stored as distances from their lowest value ({len(shifted)}): {abridged(shifted)}")
    return lines


def _numbers_the_rows(table: GroupedTable, name: str) -> bool:
    """Whether a column holds different whole numbers and has the name of an index, or numbers the rows without gaps and
    has a name that says nothing."""
    index, unnamed = INDEX_NAME.fullmatch(name), UNNAMED.fullmatch(name)
    if not index and not unnamed:
        return False
    position = table.column_index(name)
    values = np.sort(table.values[:, position]).astype(np.float64) + table.origins.get(name, 0.0)
    steps = np.diff(values)
    if not ((values == np.round(values)).all() and (steps > 0).all()):  # not with NaN
        return False
    return bool(index) or (bool((steps == 1).all()) and values[0] in (0, 1))
