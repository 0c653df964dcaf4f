"""``hyperdpo choose``, and the same from Python: runs and files in, a choice out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from hyperdpo import extras
from hyperdpo.choosing.choice import Choice, Sample, choose_point
from hyperdpo.choosing.rankers import metric_names as rank_metrics
from hyperdpo.choosing.rankers import rank_part, rank_sample, rank_space
from hyperdpo.choosing.requirements import Requirement, check_metrics, parse_requirement
from hyperdpo.choosing.scales import SCALES
from hyperdpo.choosing.search import Effort, Measure
from hyperdpo.choosing.tables import print_choice
from hyperdpo.core.preferences import stream
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.files import write_json
from hyperdpo.objectives import MAIN
from hyperdpo.progress import Update, progress_bar
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.sources import given_base
from hyperdpo.runs import run_kind
from hyperdpo.threads import use_free_cores
from hyperdpo.usage import align_call, align_command, rank_call, rank_command

if TYPE_CHECKING:
    from hyperdpo.alignment.data.groups import Preferences
    from hyperdpo.alignment.run import AlignRun

SPLITS = ("auto", "all", "train", "validation", "test")


def choose(
    run: str | Path | RankRun | AlignRun,
    data: Any,
    require: Sequence[str | Requirement] = (),
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    confidence: float = 0.95,
    certain: bool = False,
    holdout: str | float | Any = None,
    split: str = "auto",
    scales: Sequence[float] = SCALES,
    points: int | None = None,
    fixed_temperatures: bool = False,
    base_scores: str | np.ndarray | None = None,
    sort: bool = False,
    features_from_zero: bool = False,
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: Sequence[str] | None = None,
    skip_invalid: bool = False,
    model: str | None = None,
    seed: int = 0,
    resamples: int | None = None,
    cpu: bool = False,
) -> Choice:
    """The weights and scale (and temperatures) of a run that make one metric best under requirements on others.

    >>> choice = hyperdpo.choose("run", "train.txt", ["main>=0.45"], maximize="url_clicks")
    >>> choice.weights, choice.scale, choice.requirements[0].price

    Args:
        run: a run directory of ``rank fit`` or ``align fit``, or a run that was loaded.
        data: a file (or directory), or a :class:`~hyperdpo.data.splits.Part`; for a language model a file or
            :class:`~hyperdpo.alignment.data.preferences.Preferences`.
        require: such as ``main>=0.45``. For a ranker the metrics are NDCG of ``main`` and of every objective, by name;
            for a language model each objective's cross-entropy error, by name, and ``accuracy:NAME``, of pairs.
        maximize, minimize: the metric that is to be best; one of the two.
        confidence: of the intervals (two-sided) and the requirements (one-sided).
        certain: requirements are to be met with that confidence, not just on average.
        holdout: intervals and verdicts come from other groups than those of the choice: a share of the groups (0.5), a
            split of the run's own data (``test``), or data like ``data``, not a file.
        split: of the run's own data; ``auto``: its validation groups (its test groups where there are none), and all
            groups of other data.
        scales: the grid; the search stays between its ends. A single one is kept.
        points: weightings of the grid.
        fixed_temperatures: leave β as it is, also where the ranker answers at others. If not, a mixture's are searched
            up to twice the run's and down to half of it, and those of a ``temperature`` run where it was trained.
        base_scores: of a ranker, where it has none of its own for the data: a column, a file or an array.
        sort, features_from_zero: how a ranker's data are read, besides what it was trained with; see
            :func:`~hyperdpo.data.cache.read_table`.
        format, prompt_column, ignore_columns, skip_invalid, model: how a language model's data are read, and its
            base, as in ``align front``.
        seed: of resamples, random steps and a share held out.
        resamples: of the bootstrap, at least 10 / (1 - confidence); None: 2000 as a rule, see
            :func:`~hyperdpo.choosing.bootstrap.number_of_resamples`.
        cpu: do not use a GPU.

    Raises:
        InputError: anything of this that does not fit the run or the data.
    """
    requirements = [parse_requirement(r) if isinstance(r, str) else r for r in require]
    if (maximize is None) == (minimize is None):
        given = "neither" if maximize is None else "both"
        raise InputError(f"found {given} of maximize and minimize; expected one of them")
    grid = tuple(sorted({float(c) for c in scales}))
    if not grid or not all(np.isfinite(grid)) or grid[0] <= 0:
        raise InputError(f"scales: found {list(scales)}; expected finite numbers > 0")
    if points is not None and points < 1:
        raise InputError(f"points: found {points}; expected at least 1")
    path = Path(run) if isinstance(run, str | Path) else None
    settings: dict[str, Any] = {
        "maximize": maximize is not None,
        "confidence": confidence,
        "certain": certain,
        "seed": seed,
        "resamples": resamples,
    }
    goal = str(maximize if maximize is not None else minimize)
    share = _share(holdout)
    if share is not None:
        holdout = share
    if isinstance(run, RankRun) or (path is not None and run_kind(path) != "align"):
        foreign = {"format": format != "auto", "prompt_column": prompt_column is not None}
        foreign |= {"ignore_columns": ignore_columns is not None, "skip_invalid": skip_invalid}
        for name, value in (foreign | {"model": model is not None}).items():
            if value:
                raise InputError(f"{name}: this is a run of a ranker, which has none; leave it out")
        ranker = run if isinstance(run, RankRun) else RankRun.load(str(path))
        ranker.read_files(sort=sort, features_from_zero=features_from_zero)
        requirements, goal = _named_main(ranker, requirements), _main_name(ranker, goal)
        names = rank_metrics(ranker)
        check_metrics(
            requirements, goal, maximize=settings["maximize"], names=names, larger_is_better=[True] * len(names)
        )
        device = best_device(cpu)
        ranker.to(device)
        chosen, reported = _rank_samples(ranker, data, split, holdout, base_scores, seed, device)
        space = rank_space(ranker, grid, fixed_temperatures=fixed_temperatures)
        effort = Effort(points=points)
        with progress_bar("choose", None, "points") as update:
            told = replace(chosen, measure=_counted(chosen.measure, update))
            found = choose_point(
                told, space, ranker.objectives, requirements, goal, holdout=reported, effort=effort, **settings
            )
        return replace(found, details=_rank_use(found, ranker, path or ranker.path, base_scores))

    extras.require("align")
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.alignment.run import AlignRun
    from hyperdpo.choosing.language import align_effort, align_space
    from hyperdpo.choosing.language import metric_names as align_metrics

    foreign = {"base_scores": base_scores is not None, "sort": sort, "features_from_zero": features_from_zero}
    for name, value in foreign.items():
        if value:
            raise InputError(f"{name}: this is a run of a language model, where it has no meaning; leave it out")
    disable_progress_bars_without_tty()
    aligned = AlignRun.load(path, model) if path is not None else run
    assert isinstance(aligned, AlignRun)
    m = len(aligned.objectives)
    check_metrics(
        requirements,
        goal,
        maximize=settings["maximize"],
        names=align_metrics(aligned),
        larger_is_better=[False] * m + [True] * m,
    )
    reading: dict[str, Any] = {
        "format": format,
        "prompt_column": prompt_column,
        "ignore_columns": ignore_columns,
        "skip_invalid": skip_invalid,
    }
    chosen, reported = _align_samples(aligned, data, split, holdout, reading, seed, best_device(cpu))
    found = choose_point(
        chosen,
        align_space(aligned, grid),
        aligned.names,
        requirements,
        goal,
        holdout=reported,
        effort=align_effort(aligned, points),
        **settings,
    )
    return replace(found, details=_align_use(found, path))


def choose_command(
    run_path: Path,
    source: Path,
    *,
    require: Sequence[str],
    maximize: str | None,
    minimize: str | None,
    holdout: str | None,
    out: Path | None,
    **settings: Any,
) -> int:
    """``hyperdpo choose``: 0, or 1 where the requirements cannot be met."""
    if maximize is None and minimize is None:
        raise InputError("nothing to maximize; expected --maximize NAME (or --minimize NAME)")
    if holdout is not None and _share(holdout) is None and holdout not in SPLITS[2:]:
        raise InputError(
            f"--holdout: found {holdout!r}; expected train, validation or test, or a share of the groups such as 0.5"
        )
    started = time.monotonic()
    choice = choose(run_path, source, require, maximize=maximize, minimize=minimize, holdout=holdout, **settings)
    print_choice(choice)
    click.echo(f"{counted(choice.points_measured, 'point')} measured in {time.monotonic() - started:.1f} s")
    if out is not None:
        write_json(out, choice.to_dict())
        click.echo(f"point: {out}")
    return 0 if choice.met else 1


# Rankers --------------------------------------------------------------------------------------------------------------


def _main_name(run: RankRun, name: str) -> str:
    """The main label's metric goes by ``main`` and by the label's own name."""
    main = run.config.main
    return MAIN if main is not None and name == main.name else name


def _counted(measure: Measure, update: Update) -> Measure:
    """A measure that tells how many points were measured."""
    done = 0

    def counted(points: np.ndarray) -> np.ndarray:
        nonlocal done
        found = measure(points)
        done += len(points)
        update(done)
        return found

    return counted


def _named_main(run: RankRun, requirements: Sequence[Requirement]) -> list[Requirement]:
    return [replace(r, name=_main_name(run, r.name)) for r in requirements]


def _rank_samples(
    run: RankRun, data: Any, split: str, holdout: Any, base_scores: str | np.ndarray | None, seed: int, device: str
) -> tuple[Sample, Sample | None]:
    """The groups to choose on, and those to report on."""

    def base_of(table: GroupedTable) -> np.ndarray | None:
        return given_base(base_scores, run, table) if isinstance(base_scores, str) else base_scores

    def sample(part: Part, what: str) -> Sample:
        use_free_cores()
        examples = run.examples(part, base_scores=base_of(part.table), device=device)
        described = f"{run.config.metric.describe()}, {what}"
        return rank_sample(run, examples, device=device, description=described)

    def named(wanted: str) -> tuple[str, Part]:
        return rank_part(run, data, wanted)

    name, part = named(split)
    if holdout is None:
        return sample(part, f"{name} groups"), None
    if isinstance(holdout, float):
        first, second = _shared(len(part.groups), holdout, seed)
        parts = [Part(part.table, part.groups[groups]) for groups in (first, second)]
        return sample(parts[0], f"part of the {name} groups"), sample(parts[1], f"the rest of the {name} groups")
    if isinstance(holdout, Part):
        return sample(part, f"{name} groups"), sample(holdout, "held-out groups")
    _check_other(str(holdout), name)
    other, held_out = named(str(holdout))
    return sample(part, f"{name} groups"), sample(held_out, f"{other} groups")


def _rank_use(choice: Choice, run: RankRun, path: Path | None, base_scores: str | np.ndarray | None) -> dict[str, Any]:
    weights = list(choice.weights.values())
    betas = list(choice.temperatures.values())
    moved = betas if betas != list(run.betas) else None
    with_base = run.base_source.kind == "given"
    call = rank_call(weights, choice.scale, moved, with_base=with_base)
    if path is None:
        return {"command": None, "python": f"ranker.{call}"}
    column = base_scores if isinstance(base_scores, str) else "SCORES" if with_base else None
    command = rank_command(path, "DATA", weights, choice.scale, moved, column)
    return {"command": command, "python": f"HyperRanker.load({str(path)!r}).{call}"}


# Language models ------------------------------------------------------------------------------------------------------


def _align_samples(
    run: AlignRun, data: Any, split: str, holdout: Any, reading: dict[str, Any], seed: int, device: str
) -> tuple[Sample, Sample | None]:
    from hyperdpo.alignment.data.groups import Preferences
    from hyperdpo.choosing.language import align_part, align_sample

    given = isinstance(data, Preferences)
    if reading["skip_invalid"]:
        run.limits["skip_invalid"] = True
    preferences = data if given else run.read(data, **reading)

    def named(wanted: str) -> tuple[str, Preferences]:
        return align_part(run, preferences, wanted)

    def sample(part: Preferences, what: str) -> Sample:
        use_free_cores()
        described = f"cross-entropy error and accuracy of pairs, {what}"
        return align_sample(run, part, device=device, description=described, show=True)

    name, part = named(split)
    if holdout is None:
        return sample(part, f"{name} prompts"), None
    if isinstance(holdout, float):
        parts = part.split((1 - holdout, 0.0, holdout), seed)
        return (
            sample(parts["train"], f"part of the {name} prompts"),
            sample(parts["test"], f"the rest of the {name} prompts"),
        )
    if isinstance(holdout, Preferences):
        return sample(part, f"{name} prompts"), sample(holdout, "held-out prompts")
    _check_other(str(holdout), name)
    other, held_out = named(str(holdout))
    return sample(part, f"{name} prompts"), sample(held_out, f"{other} prompts")


def _align_use(choice: Choice, path: Path | None) -> dict[str, Any]:
    weights = list(choice.weights.values())
    call = align_call(weights, choice.scale)
    if path is None:
        return {"command": None, "python": f"run.{call}"}
    command = align_command(path, weights, choice.scale)
    return {"command": command, "python": f"AlignRun.load({str(path)!r}).{call}"}


# Both -----------------------------------------------------------------------------------------------------------------


def _share(holdout: Any) -> float | None:
    """The share that a holdout stands for, None where it is something else.

    Raises:
        InputError: a number that is no share.
    """
    if not isinstance(holdout, str | int | float):
        return None
    try:
        share = float(holdout)
    except ValueError:
        return None
    if not 0 < share < 1:
        raise InputError(f"holdout: found {holdout}; expected a share between 0 and 1, or a split's name")
    return share


def _shared(groups: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    held = round(groups * share)
    if not 0 < held < groups:
        raise InputError(f"holdout: {share:g} of {groups} groups leaves one side empty; expected more groups")
    order = stream(seed, 20).permutation(groups)
    return np.sort(order[held:]), np.sort(order[:held])


def _check_other(holdout: str, chosen_on: str) -> None:
    if holdout == chosen_on or "all" in (holdout, chosen_on):
        raise InputError(
            f"holdout {holdout}: the point is chosen on the {chosen_on} groups; expected other groups to report on"
        )
