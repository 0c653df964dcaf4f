"""Which columns of a table are the features of a run, and why the others are not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hyperdpo.data.groups import GroupedTable, abridged
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError, did_you_mean
from hyperdpo.ranking.clicks import click_roles
from hyperdpo.ranking.config import RankConfig


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
        labelled: False: no column is a label. Nor is one where the labels were given apart from the features.

    Raises:
        InputError: no such label, no feature, or a column that was most likely meant to hold numbers does not.
    """
    roles: dict[str, str] = {name: "in excluded_columns" for name in config.excluded_columns}
    labelled = labelled and not table.labels
    if labelled:
        roles |= {o.column: f"label of {o.name}" for o in config.objectives}
        if config.main is not None:
            roles.setdefault(config.main.column, "main label")
        roles |= click_roles(config)
    if base_column is not None:
        roles.setdefault(base_column, "base scores")
    for name, reason in roles.items():
        if reason == "main label" and name not in {*table.columns, *table.doubtful, *table.left_out}:
            raise InputError(
                f"{table.source}: no column {name!r} for the main label; name yours with --set main.column=NAME, or "
                f"use --set main=null and --base-scores (the columns are {abridged(table.columns)})"
            )
        if not reason.startswith("in "):
            table.column_index(name)
    for name in config.excluded_columns:
        if name not in table.columns and name not in table.left_out and not name.isdecimal():
            near = did_you_mean(name, [*table.columns, *table.left_out])
            warnings.warn(f"{table.source}: excluded_columns has {name!r}, which is no column{near}", stacklevel=2)
    for name, problem in table.doubtful.items():
        if name not in roles:
            raise InputError(f"{table.source}:{problem}")
    left_out = {name: reason for name, reason in roles.items() if name in table.columns or name in table.left_out}
    left_out |= {name: reason for name, reason in table.left_out.items() if name not in roles}
    columns = [name for name in table.columns if name not in roles]
    if not config.keep_row_numbers:
        numbering = [name for name in columns if name in table.numbering]
        left_out |= {name: "numbers the rows (keep_row_numbers keeps it)" for name in numbering}
        columns = [name for name in columns if name not in numbering]
    if not columns:
        others = "; ".join(f"{name or '(no name)'}: {reason}" for name, reason in left_out.items())
        raise InputError(f"{table.source}: no column is left for a feature; expected at least one ({others})")
    return FeatureChoice(tuple(columns), left_out)


def fit_transform(part: Part, choice: FeatureChoice, config: RankConfig) -> FeatureTransform:
    """The transform of a training part's features, where columns of categories become 0: a network cannot use codes.

    Raises:
        InputError: ``gbdt.categorical`` or ``gbdt.monotone`` names what is no feature.
    """
    config.gbdt.check_features(choice.columns, part.table.source)
    transform = FeatureTransform.fit(part, choice.columns)
    return replace(transform, scale=np.where(np.isin(choice.columns, config.gbdt.categorical), 0, transform.scale))


def feature_lines(choice: FeatureChoice, transform: FeatureTransform, categorical: Sequence[str] = ()) -> list[str]:
    """What ``rank fit`` and ``data check`` say of the features.

    Args:
        categorical: columns of categories.
    """
    lines = [f"features ({len(choice.columns)}): {abridged(choice.columns)}"]
    if choice.left_out:
        described = "; ".join(f"{name or '(no name)'} ({reason})" for name, reason in choice.left_out.items())
        lines.append(f"no features: {described}")
    if categorical:
        lines.append(f"categories, for trees only (scorer.kind gbdt or blend): {abridged(categorical)}")
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
