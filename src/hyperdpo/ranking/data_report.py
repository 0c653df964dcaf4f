"""What a table holds and what a training would make of it, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.data.cache import table_kind
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import FeatureTransform, column_chunks
from hyperdpo.errors import InputError, counted
from hyperdpo.ranking.config import RankConfig, parse_config
from hyperdpo.ranking.features import choose_features, feature_lines, fit_transform
from hyperdpo.ranking.fitting import spread_within_groups
from hyperdpo.ranking.labels import fit_labels, refuse_labels_among
from hyperdpo.ranking.sources import base_of, read, read_parts

#: Standard deviation within a group of base scores that are trained here, on generated and on real data: 0.8 to 2.
#: Beyond these limits a temperature means something else.
USUAL_SPREAD = (0.4, 4.0)

_FORMATS = {"letor": "LETOR text", "csv": "CSV", "parquet": "Parquet"}


@dataclass(frozen=True)
class FeatureReport:
    """What is known of one feature after the training rows were looked at."""

    name: str
    kind: str
    """``whole numbers``, ``0 and 1``, ``numbers`` or ``constant``."""
    missing: float
    """Share of the training rows where it is missing."""
    scaling: str
    """How the scorer sees it."""


def check_data(
    source: Path,
    config: RankConfig,
    *,
    validation: Path | None = None,
    test: Path | None = None,
    base_scores: str | None = None,
) -> tuple[list[str], list[FeatureReport]]:
    """What a fit would make of the data, said without training.

    Returns:
        Lines in words, and one report for each feature.

    Raises:
        InputError: where a fit would refuse the data.
    """
    parts = read_parts(source, validation, test, config, show=True)
    base_source, given = base_of(base_scores, parts, config.qid_column)
    train = parts["train"]
    choice = choose_features(train.table, config, base_source.column)
    lines = [f"{name} groups: {part.table.source}, {_layout(part)}" for name, part in parts.items()]
    _, labels = fit_labels(config, parts, main_is_trained=base_source.kind == "trained", features=choice.columns)
    refuse_labels_among(train, config, choice.columns)
    transform = fit_transform(train, choice, config)
    for part in parts.values():
        part.table.column_indices(choice.columns)
    lines += [*feature_lines(choice, transform, config.gbdt.categorical), *(report.line() for report in labels)]
    scores = train.table.column(base_source.column) if base_source.column else (given or {}).get("train")
    if scores is not None:
        lines.append(_base_line(scores[train.rows()], train))
    elif config.main is None:
        raise InputError("main: there is no main label to train a base on; expected one, or --base-scores")
    return lines, feature_reports(train, transform)


def describe_table(source: Path, settings: Mapping[str, Any]) -> tuple[list[str], list[FeatureReport]]:
    """What a file without named labels holds: as :func:`check_data`, with every column as a feature.

    Args:
        settings: of :class:`RankConfig`; those about reading count.

    Raises:
        InputError: the file cannot be read, or a column was most likely meant to hold numbers and does not.
    """
    unlabelled = [{"name": "?", "column": "?"}]
    config = parse_config({**settings, "objectives": unlabelled, "main": None}, "settings")
    if source.is_dir():
        raise InputError(f"{source}: a directory; without --config, --preset or --objectives, expected a file")
    table = read(source, config)
    choice = choose_features(table, config, labelled=False)
    part = Part.whole(table)
    transform = FeatureTransform.fit(part, choice.columns)
    lines = [
        f"{source}, {_layout(part)}",
        *feature_lines(choice, transform),
        "no labels are named, so all columns are taken for features: name them with --config, --preset or --objectives",
    ]
    return lines, feature_reports(part, transform)


def feature_reports(part: Part, transform: FeatureTransform) -> list[FeatureReport]:
    """One for each feature, in one pass over the rows of a part."""
    count = len(transform.columns)
    missing, rows = np.zeros(count), 0
    whole, binary = np.ones(count, dtype=bool), np.ones(count, dtype=bool)
    for chunk in column_chunks(part, transform.columns, transform.origins):
        absent = np.isnan(chunk)
        missing += absent.sum(0)
        whole &= (absent | (chunk == np.round(chunk))).all(0)
        binary &= (absent | (chunk == 0) | (chunk == 1)).all(0)
        rows += len(chunk)
    found = []
    for j, name in enumerate(transform.columns):
        kind = "0 and 1" if binary[j] else "whole numbers" if whole[j] else "numbers"
        origin = f"minus {transform.origins[j]:,.10g}, " if transform.origins[j] else ""
        scaling = "none" if name in transform.constant else origin + ("logarithm" if transform.logs[j] else "linear")
        found.append(
            FeatureReport(name, "constant" if name in transform.constant else kind, missing[j] / max(rows, 1), scaling)
        )
    return found


def _layout(part: Part) -> str:
    sizes = part.sizes
    kind = _FORMATS[table_kind(Path(part.table.source))]
    return (
        f"{kind}; {counted(len(sizes), 'group')} with {counted(int(sizes.sum()), 'row')}, "
        f"{int(sizes.min())} to {int(sizes.max())} each"
        + (f", {int((sizes == 1).sum()):,} of one row, which teach nothing" if (sizes == 1).any() else "")
    )


def _base_line(scores: np.ndarray, part: Part) -> str:
    spread = spread_within_groups(scores, part.sizes)
    low, high = USUAL_SPREAD
    line = f"base scores: standard deviation within a group {spread:.3g}"
    if low <= spread <= high:
        return line
    far = "wider" if spread > high else "narrower"
    return (
        f"{line}, much {far} than that of a base trained here ({low:g} to {high:g}): a temperature of 1 then means "
        "something else. Expected raw margins (not probabilities or ranks), for training rows from models that did not "
        "see them (out of fold); set beta=auto, which divides beta by the spread"
    )
