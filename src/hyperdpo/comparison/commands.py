"""What ``hyperdpo rank compare`` and ``align compare`` do: files in; trainings, JSON, a picture and a table out."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hyperdpo.comparison.entries import ALIGN_VARIANTS, RANK_VARIANTS, Entry, kept_settings, parse_entry
from hyperdpo.comparison.methods import needs_lightgbm
from hyperdpo.comparison.plots import plot_language_models
from hyperdpo.comparison.rank_measures import compare
from hyperdpo.comparison.repeats import natural_seeds, rank_repeats
from hyperdpo.comparison.tables import print_language_models, print_rankers
from hyperdpo.errors import InputError
from hyperdpo.files import check_writable, write_json
from hyperdpo.locks import writes_to
from hyperdpo.plots import plot_fronts
from hyperdpo.ranking.config import RankConfig, merged, with_overrides
from hyperdpo.ranking.training import make_accelerator
from hyperdpo.threads import use_free_cores


@writes_to("out")
def rank_compare_command(
    source: Path,
    config: RankConfig,
    out: Path,
    *,
    methods: Sequence[str],
    points: int = 11,
    seeds: int | None = None,
    folds: int = 0,
    main_levels: int = 3,
    main_share: float | None = None,
    oracle: Path | None = None,
    base_scores: str | None = None,
    cpu: bool = False,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """``hyperdpo rank compare``: the content of ``compare.json``.

    Args:
        seeds: None: as many as there are folds, 3 of one split.
        main_levels: compare at so many equal main scores, too.
        main_share: λ of the methods that take one; None: chosen on validation groups.
        given: the settings that the user gave; a note says which of them a method replaces.
    """
    entries = [parse_entry(method, RANK_VARIANTS) for method in methods]
    note_kept_settings(entries, given or {})
    if main_share is not None:
        entries = with_main_share(entries, config, main_share)
    check_writable(out)
    if seeds is None:
        seeds = natural_seeds(source, folds)
    repeats = rank_repeats(source, config, seeds=seeds, folds=folds, base=base_scores, oracle=oracle)
    accelerator = make_accelerator(config.training.precision, cpu=cpu)
    use_free_cores()
    started = time.monotonic()
    how: dict[str, Any] = {"points": points, "main_levels": main_levels, "say": click.echo}
    result = compare(config, repeats, entries, accelerator, out, **how)
    result["data"] = {"source": source.name, "folds": folds}
    write_json(out / "compare.json", result)
    plot_fronts(result["methods"], out / "compare.png", result["base"])
    print_rankers(result)
    _say_where(out, started)
    return result


@writes_to("out")
def align_compare_command(
    source: Path, model: str | None, out: Path, *, methods: Sequence[str], **options: Any
) -> dict[str, Any]:
    """``hyperdpo align compare``: the content of ``compare.json``.

    Args:
        options: of :func:`~hyperdpo.comparison.align_settings.compared`.
    """
    from hyperdpo.comparison.align_settings import compared

    started = time.monotonic()
    result = compared(source, model, out, [parse_entry(method, ALIGN_VARIANTS) for method in methods], **options)
    write_json(out / "compare.json", result)
    plot_language_models(result, out / "compare.png")
    print_language_models(result)
    _say_where(out, started)
    return result


def with_main_share(entries: Sequence[Entry], config: RankConfig, share: float) -> list[Entry]:
    """The entries with λ fixed, where they take one: expected gains that are asked for by name, and LightGBM.

    Raises:
        InputError: none of them does.
    """
    found = []
    for entry in entries:
        if needs_lightgbm(entry.method):
            entry = replace(entry, overrides={**entry.overrides, "main_share": share})
        elif with_overrides(config, entry.overrides).mixture.form == "gain" and entry.one_shot:
            entry = replace(entry, overrides=merged(entry.overrides, {"mixture": {"main_share": share}}))
        found.append(entry)
    untouched = [new.label for old, new in zip(entries, found, strict=True) if new is old]
    if len(untouched) == len(entries):
        raise InputError(
            "--main-share: no method takes one; expected hyperdpo:gain, :gbdt, :blend or lightgbm-ls among --methods"
        )
    if untouched:
        warnings.warn(f"--main-share has no effect on {', '.join(untouched)}", stacklevel=2)
    return found


def note_kept_settings(entries: Sequence[Entry], given: Mapping[str, Any]) -> None:
    """Say which of the settings that are given for all entries an entry replaces by its own."""
    labels: dict[str, list[str]] = {}
    for entry in entries:
        for kept in kept_settings(entry.overrides, given):
            labels.setdefault(kept, []).append(entry.label)
    for kept, named in labels.items():
        warnings.warn(f"{', '.join(named)} keeps its own {kept}", stacklevel=2)


def _say_where(out: Path, started: float) -> None:
    click.echo(f"{out / 'compare.json'}, {out / 'compare.png'}; {time.monotonic() - started:.0f} s this time")
