"""``hyperdpo data check``: what a file holds and what a fit would make of it, without training."""

from __future__ import annotations

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
    if is_preferences(source, options):
        check_preferences(source, format=format, reading=reading, options=options, settings=overrides)
    else:
        check_table(source, settings=overrides, reading={"format": format, **reading}, **options)


def is_preferences(source: Path, options: Mapping[str, Any]) -> bool:
    """Whether a file or directory holds preferences: by its name, and for Parquet by whether labels are named."""
    labels = any(options[name] for name in ("preset", "config_file", "objectives"))
    if source.is_dir():
        names = [plain_name(path) for path in source.iterdir() if path.is_file()]
        return not any(name.endswith((".txt", ".csv", ".tsv")) for name in names) and not labels
    name = plain_name(source)
    if name.endswith(_JSON):
        return True
    return name.endswith(".parquet") and not labels


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
        options, settings: what is about rankers, of which only a configuration and objectives mean something here.

    Raises:
        InputError: where ``align fit`` would refuse the data.
    """
    require("align")
    from hyperdpo.alignment.data_report import describe_preferences
    from hyperdpo.alignment.settings import beta_of, columns_of, reading_of, settings_of

    names = ("preset", "base_scores", "sort", "features_from_zero", "validation", "test")
    _refuse({name: options[name] for name in names} | {"set": settings}, "preferences of a language model")
    configured = settings_of(options["config_file"], {})
    report = describe_preferences(
        source,
        objectives=columns_of(configured.get("objectives"), options["objectives"], beta_of(configured["training"])),
        **reading_of(configured, format, **reading),
    )
    for line in report.lines():
        click.echo(line)
    if report.refusal is not None:
        raise InputError(report.refusal)


def _refuse(options: Mapping[str, Any], what: str) -> None:
    for name, value in options.items():
        if value and value != "auto":
            raise InputError(f"--{name.replace('_', '-')}: DATA holds {what}, where it has no meaning; leave it out")
