"""What ``hyperdpo explore`` does before there is a page: runs and data are read, and what does not fit is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from hyperdpo.choosing.rankers import rank_part
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.explorer.app import check_port, serve
from hyperdpo.explorer.front import measured_on
from hyperdpo.explorer.rank_state import RankExplorer, check_same_labels, trained_on
from hyperdpo.extras import require
from hyperdpo.progress import note
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.sources import given_base
from hyperdpo.serving.export.commands import kind_of


def explore_command(
    run_path: Path,
    source: Path | None,
    *,
    compare: Path | None = None,
    port: int = 8080,
    host: str = "127.0.0.1",
    browser: bool = True,
    split: str = "auto",
    base_scores: str | None = None,
    sort: bool = False,
    features_from_zero: bool = False,
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: list[str] | None = None,
    skip_invalid: bool = False,
    model: str | None = None,
    cpu: bool = False,
) -> int:
    """``hyperdpo explore``: 0, when the user has seen enough."""
    kind = kind_of(run_path)
    if compare is not None and (other := kind_of(compare)) != kind:
        named = {"rank": "a ranker", "align": "a language model"}
        raise InputError(f"--compare {compare}: found {named[other]}; expected {named[kind]}, as {run_path}")
    if compare is not None and compare.resolve() == run_path.resolve():
        raise InputError(f"--compare {compare}: is the run itself; expected another")
    reading: dict[str, Any] = {
        "--format": format if format != "auto" else None,
        "--prompt-column": prompt_column,
        "--ignore-columns": ignore_columns,
        "--skip-invalid": skip_invalid or None,
    }
    foreign: dict[str, Any] = {**reading, "--model": model}
    if kind == "align":
        tables = {"--sort": sort or None, "--features-from-zero": features_from_zero or None}
        foreign = {"--base-scores": base_scores, **tables}
        about = {"--split": split if split != "auto" else None, **reading}
        told = next((option for option, value in about.items() if value is not None), None)
        if source is None and told is not None:
            raise InputError(f"{told}: is about DATA; expected DATA as well")
    for option, value in foreign.items():
        if value is not None:
            what = "a ranker" if kind == "rank" else "a language model"
            raise InputError(f"{option}: {run_path} is {what}, which has none; leave it out")
    check_port(host, port)
    title = f"{run_path.name} – hyperdpo explore"
    if kind == "rank":
        files = {"sort": sort, "features_from_zero": features_from_zero}
        page = _rank_page(run_path, source, compare, split, base_scores, files, best_device(cpu))
    else:
        options = {
            "format": format,
            "prompt_column": prompt_column,
            "ignore_columns": ignore_columns,
            "skip_invalid": skip_invalid,
        }
        page = _align_page(run_path, source, compare, split, options, model, best_device(cpu))
    serve(page, title, host, port, browser=browser)
    return 0


def _rank_page(
    path: Path,
    source: Path | None,
    compare: Path | None,
    split: str,
    base_scores: str | None,
    files: dict[str, Any],
    device: str,
) -> Any:
    if source is None:
        raise InputError(
            f"DATA: missing; {path} is a ranker, whose run does not hold its data: expected a labelled file"
        )
    run = RankRun.load(path).read_files(**files)
    name, part = rank_part(run, source, split)
    given = given_base(base_scores, run, part.table)
    explorers = [RankExplorer(run, path, part, name, base_scores=given, device=device)]
    if compare is not None:
        second = RankRun.load(compare)
        check_objectives(run.objectives, path, second.objectives, compare)
        if seen := trained_on(second, part):
            note(f"{compare} was trained on {seen} of the {counted(len(part.groups), 'group')} looked at")
        given = given_base(base_scores, second, part.table)
        settings = explorers[0].settings
        explorers.append(RankExplorer(second, compare, part, name, base_scores=given, settings=settings, device=device))
        check_same_labels(*explorers)
    started = time.monotonic()
    fronts = [one.front(one.start().temperatures) for one in explorers]
    click.echo(f"front measured on {measured_on(len(part.groups), name)} in {time.monotonic() - started:.1f} s")
    from hyperdpo.explorer.rank_view import RankView

    file = Path(part.table.source) if source.is_dir() else source
    return lambda: RankView(explorers, fronts, file, base_scores)


def _align_page(
    path: Path,
    source: Path | None,
    compare: Path | None,
    split: str,
    reading: dict[str, Any],
    model: str | None,
    device: str,
) -> Any:
    require("align")
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.alignment.run import AlignRun
    from hyperdpo.choosing.language import align_part
    from hyperdpo.explorer.lm_state import AlignExplorer

    disable_progress_bars_without_tty()
    run = AlignRun.load(path, model)
    name, part = "", None
    if source is not None:
        if reading["skip_invalid"]:
            run.limits["skip_invalid"] = True
        name, part = align_part(run, run.read(source, **reading), split)
    explorers = [AlignExplorer(run, path, part, name, device=device)]
    if compare is not None:
        second = AlignRun.load(compare, model)
        check_objectives(run.names, path, second.names, compare)
        explorers.append(AlignExplorer(second, compare, part, name, device=device))
    fronts = []
    if part is not None:
        started = time.monotonic()
        fronts = [one.front() for one in explorers]
        click.echo(f"front measured on {measured_on(len(part), name)} in {time.monotonic() - started:.1f} s")
    from hyperdpo.explorer.lm_view import LmView

    return lambda: LmView(explorers, fronts)


def check_objectives(names: tuple[str, ...], path: Path, others: tuple[str, ...], compare: Path) -> None:
    """Raise unless the second run is about the same objectives, in the same order.

    Raises:
        InputError: it is not.
    """
    if others != names:
        raise InputError(
            f"--compare {compare}: found the objectives {', '.join(others)}; expected those of {path}: "
            f"{', '.join(names)}"
        )
