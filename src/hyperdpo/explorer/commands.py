"""``hyperdpo explore`` up to the page: it reads runs and data, and refuses what does not fit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from hyperdpo.choosing.rankers import rank_part
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.explorer.app import check_port, serve
from hyperdpo.explorer.front import Front
from hyperdpo.explorer.rank_state import RankExplorer, check_same_labels, trained_on
from hyperdpo.explorer.state import Explorer, measured_on
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
    main_share: float | None = None,
    sort: bool = False,
    features_from_zero: bool = False,
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: list[str] | None = None,
    skip_invalid: bool = False,
    model: str | None = None,
    cpu: bool = False,
) -> int:
    """``hyperdpo explore``: 0, when the user has seen enough.

    Raises:
        InputError: runs that cannot be compared, an option that has no meaning here, or data that do not fit.
    """
    kind = kind_of(run_path)
    what = {"rank": "a ranker", "align": "a language model"}
    if compare is not None and (other := kind_of(compare)) != kind:
        raise InputError(f"--compare {compare}: found {what[other]}; expected {what[kind]}, as {run_path}")
    if compare is not None and compare.resolve() == run_path.resolve():
        raise InputError(f"--compare {compare}: is the run itself; expected another")
    files: dict[str, Any] = {"sort": sort, "features_from_zero": features_from_zero}
    reading: dict[str, Any] = {"format": format, "prompt_column": prompt_column}
    reading |= {"ignore_columns": ignore_columns, "skip_invalid": skip_invalid}
    if kind == "align" and source is None and (told := _given(split=split, **reading)):
        raise InputError(f"{told[0]}: is about DATA; expected DATA as well")
    ranker_only = {"base_scores": base_scores, "main_share": main_share, **files}
    foreign = _given(**reading, model=model) if kind == "rank" else _given(**ranker_only)
    if foreign:
        raise InputError(f"{foreign[0]}: {run_path} is {what[kind]}, which has none; leave it out")
    check_port(host, port)
    if kind == "rank":
        page = _rank_page(run_path, source, compare, split, best_device(cpu), base_scores, main_share, **files)
    else:
        page = _align_page(run_path, source, compare, split, best_device(cpu), model, **reading)
    serve(page, f"{run_path.name} – hyperdpo explore", host, port, browser=browser)
    return 0


def _given(**options: Any) -> list[str]:
    """The options that were given, as on the command line."""
    return [f"--{name.replace('_', '-')}" for name, value in options.items() if value not in (None, False, "auto")]


def _fronts(explorers: Sequence[Explorer], groups: int, name: str) -> list[Front]:
    """The front of each run; says how long that took."""
    started = time.monotonic()
    fronts = [one.front() for one in explorers]
    click.echo(f"front measured on {measured_on(groups, name)} in {time.monotonic() - started:.1f} s")
    return fronts


def _rank_page(
    path: Path,
    source: Path | None,
    compare: Path | None,
    split: str,
    device: str,
    base: str | None,
    main_share: float | None,
    **files: Any,
) -> Callable[[], object]:
    if source is None:
        raise InputError(
            f"DATA: missing; {path} is a ranker, whose run does not hold its data: expected a labelled file"
        )
    run = RankRun.load(path).read_files(**files).use_share(main_share)
    name, part = rank_part(run, source, split)
    given = given_base(base, run, part.table)
    explorers = [RankExplorer(run, path, part, name, base_scores=given, device=device)]
    if compare is not None:
        second = RankRun.load(compare)
        check_objectives(run.objectives, path, second.objectives, compare)
        if seen := trained_on(second, part):
            note(f"{compare} was trained on {seen} of the {counted(len(part.groups), 'group')} looked at")
        given = given_base(base, second, part.table)
        settings = explorers[0].settings
        explorers.append(RankExplorer(second, compare, part, name, base_scores=given, settings=settings, device=device))
        check_same_labels(*explorers)
    fronts = _fronts(explorers, len(part.groups), name)
    from hyperdpo.explorer.rank_view import RankView

    file = Path(part.table.source) if source.is_dir() else source
    return lambda: RankView(explorers, fronts, file, base)


def _align_page(
    path: Path, source: Path | None, compare: Path | None, split: str, device: str, model: str | None, **reading: Any
) -> Callable[[], object]:
    require("align")
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.alignment.run import AlignRun
    from hyperdpo.choosing.language import align_part, read_for
    from hyperdpo.explorer.lm_state import AlignExplorer

    disable_progress_bars_without_tty()
    run = AlignRun.load(path, model)
    name, part = "", None
    if source is not None:
        name, part = align_part(run, read_for(run, source, **reading), split)
    explorers = [AlignExplorer(run, path, part, name, device=device)]
    if compare is not None:
        second = AlignRun.load(compare, model)
        check_objectives(run.names, path, second.names, compare)
        explorers.append(AlignExplorer(second, compare, part, name, device=device))
    fronts = [] if part is None else _fronts(explorers, len(part), name)
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
