"""``hyperdpo data check``: what a file holds and what a fit would make of it, without training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hyperdpo.data.compression import plain_name
from hyperdpo.errors import InputError
from hyperdpo.extras import require

#: Endings of files that only a language model's data have.
_JSON = (".json", ".jsonl")


def check_command(
    source: Path,
    *,
    format: str,
    overrides: dict[str, Any],
    prompt_column: str | None,
    ignore_columns: list[str] | None,
    skip_invalid: bool,
    cpu: bool = False,
    **options: Any,
) -> None:
    """``hyperdpo data check``.

    Args:
        cpu: means nothing here: nothing is computed on a GPU.
        options: those of a ranker's data.
    """
    reading = {"prompt_column": prompt_column, "ignore_columns": ignore_columns, "skip_invalid": skip_invalid}
    if is_preferences(source, options, {"format": format, **reading}):
        check_preferences(source, format=format, reading=reading, options=options, settings=overrides)
    else:
        check_table(source, settings=overrides, reading={"format": format, **reading}, **options)


def is_preferences(source: Path, options: Mapping[str, Any], reading: Mapping[str, Any]) -> bool:
    """Whether a file or directory holds preferences: by names, and for Parquet by the columns.

    Args:
        options: what names labels of a ranker.
        reading: options that are about preferences only.
    """
    labels = any(options[name] for name in ("preset", "config_file", "objectives"))
    given = reading["prompt_column"] or reading["format"] != "auto"
    paths = sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    names = [plain_name(path) for path in paths]
    if any(name.endswith((".txt", ".csv", ".tsv")) for name in names):
        return False
    if given or any(name.endswith(_JSON) for name in names):
        return True
    tables = [path for path, name in zip(paths, names, strict=True) if name.endswith(".parquet")]
    return _holds_texts(tables[0], labels) if tables else source.is_dir() and not labels


def _holds_texts(path: Path, labels: bool) -> bool:
    """Whether a Parquet file has the columns of preferences; one that has neither them nor ``qid`` is said to have
    unless labels are named."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hyperdpo.alignment.data.formats import FORMATS, detect_format

    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return not labels  # refused by whoever reads it
    try:
        columns = FORMATS[detect_format(dict.fromkeys(schema.names))].columns
    except InputError:
        return not labels and "qid" not in schema.names
    return not any(pa.types.is_primitive(schema.field(name).type) for name in columns[:1])


def check_table(
    source: Path,
    *,
    preset: str | None,
    config_file: Path | None,
    objectives: list[str] | None,
    settings: dict[str, Any],
    reading: Mapping[str, Any],
    sort: bool,
    features_from_zero: bool,
    validation: Path | None,
    test: Path | None,
    base_scores: str | None,
) -> None:
    """Data of a ranker.

    Args:
        reading: options that are about preferences only: none may be given.

    Raises:
        InputError: where ``rank fit`` would refuse the data.
    """
    from hyperdpo.ranking.config import build_config
    from hyperdpo.ranking.data_report import check_data, describe_table
    from hyperdpo.ranking.tables import print_features

    _refuse(reading, "the data of a ranker")
    flags = {"sort": sort, "features_from_zero": features_from_zero}
    overrides = settings | {name: value for name, value in flags.items() if value}
    if not (preset or config_file or objectives or "objectives" in settings):
        _refuse({"validation": validation, "test": test, "base_scores": base_scores}, "no labels that are named")
        lines, features = describe_table(source, overrides)
        print_features(features)
        for line in lines:
            click.echo(line)
        return
    config = build_config(preset=preset, config_file=config_file, objectives=objectives, overrides=overrides)
    lines, features = check_data(source, config, validation=validation, test=test, base_scores=base_scores)
    print_features(features)
    for line in lines:
        click.echo(line)


def check_preferences(
    source: Path,
    *,
    format: str,
    reading: Mapping[str, Any],
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Data of a language model.

    Args:
        options: what is about rankers, of which only a configuration and objectives mean something here.
        settings: of the fit.

    Raises:
        InputError: where ``align fit`` would refuse the data.
    """
    require("align")
    from hyperdpo.alignment.data.preferences import shared_questions
    from hyperdpo.alignment.data.reading import ReadOptions
    from hyperdpo.alignment.data.report import describe_parts, label_lines
    from hyperdpo.alignment.settings import settings_of
    from hyperdpo.alignment.sources import columns_of, configured_objectives, prepared, reading_of

    names = ("preset", "base_scores", "sort", "features_from_zero", "validation", "test")
    _refuse({name: options[name] for name in names}, "preferences of a language model")
    configured = settings_of(options["config_file"], settings)
    read = reading_of(configured, format, **reading)
    labels = configured_objectives(configured, options["objectives"])
    columns = columns_of(configured, options["objectives"])
    reports = describe_parts(source, columns, labels, ReadOptions(**read))
    for name, report in reports.items():
        first, *more = report.lines()
        click.echo(first if name == "all" else f"{name}: {first}")
        for line in more:
            click.echo(line)
    for report in reports.values():
        if report.refusal is not None:
            raise InputError(report.refusal)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all of it is in the reports
        found = prepared(source, configured, options["objectives"], read)
    if "all" in reports:
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in found.parts.items() if len(part))
        click.echo(f"groups after the split: {sizes}")
        for line in label_lines(found.parts["train"], found.fitted):
            click.echo(f"training groups, {line}")
    else:
        for line in shared_questions(found.parts):
            click.echo(line)


def _refuse(options: Mapping[str, Any], what: str) -> None:
    for name, value in options.items():
        if value and value != "auto":
            raise InputError(f"--{name.replace('_', '-')}: DATA holds {what}, where it has no meaning; leave it out")
