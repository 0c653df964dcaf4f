"""``hyperdpo choose`` and :func:`choose`: from a run and data to the best point under requirements."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

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
from hyperdpo.core.point import Point
from hyperdpo.core.preferences import stream
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

_Groups = TypeVar("_Groups", "Part", "Preferences")


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
    main_share: float | None = None,
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
    """The weights and scale (temperatures, main share) of a run that make one metric best under requirements on others.

    >>> choice = hyperdpo.choose("run", "train.txt", ["main>=0.45"], maximize="url_clicks")
    >>> choice.weights, choice.main_share, choice.scale, choice.requirements[0].price

    Args:
        run: a run directory of ``rank fit`` or ``align fit``, or a run that was loaded.
        data: a file (or directory), or a :class:`~hyperdpo.data.splits.Part`; for a language model a file or
            :class:`~hyperdpo.alignment.data.preferences.Preferences`.
        require: such as ``main>=0.45``. For a ranker the metrics are NDCG of ``main`` and of every objective, by name;
            for a language model each objective's cross-entropy error, by name, and ``accuracy:NAME``, of pairs.
        maximize, minimize: the metric that is to be best; one of the two.
        confidence: confidence of the intervals (two-sided) and the requirements (one-sided).
        certain: requirements have to be met with that confidence, not only on average.
        holdout: intervals and verdicts come from other groups than those of the choice: a share of the groups (0.5), a
            split of the run's own data (``test``), or data like ``data``, not a file.
        split: a split of the run's own data; ``auto``: its validation groups (its test groups where there are none),
            and all groups of other data.
        scales: the grid of scales; the search stays between its ends. A single one is kept.
        points: number of weightings in the grid.
        fixed_temperatures: leave β as it is, also where the ranker answers at others. Otherwise a mixture's are
            searched from half the run's to twice it, and those of a ``temperature`` run where it was trained.
        main_share: the only share λ of the main label, for expected gains (``mixture.form: gain``). None: it is
            searched. Other scales than 1 are searched only where requirements cannot be met at 1.
        base_scores: base scores for a ranker that has none of its own for the data: a column, a file or an array.
        sort, features_from_zero: how a ranker's data are read, besides what it was trained with; see
            :func:`~hyperdpo.data.cache.read_table`.
        format, prompt_column, ignore_columns, skip_invalid, model: how a language model's data are read, and its
            base, as in ``align front``.
        seed: seed of resamples, random steps and a share held out.
        resamples: number of bootstrap resamples, at least 10 / (1 - confidence); None: usually 2000, see
            :func:`~hyperdpo.choosing.bootstrap.number_of_resamples`.
        cpu: do not use a GPU.

    Raises:
        InputError: an argument does not fit the run or the data.
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
    goal = str(maximize if maximize is not None else minimize)
    how: dict[str, Any] = {"maximize": maximize is not None, "confidence": confidence, "certain": certain}
    how |= {"seed": seed, "resamples": resamples}
    path = Path(run) if isinstance(run, str | Path) else None
    share = _share(holdout)
    holdout = holdout if share is None else share
    reading: dict[str, Any] = {"format": format, "prompt_column": prompt_column}
    reading |= {"ignore_columns": ignore_columns, "skip_invalid": skip_invalid}
    device = best_device(cpu)

    def check(names: Sequence[str], larger_is_better: Sequence[bool]) -> None:
        check_metrics(requirements, goal, maximize=how["maximize"], names=names, larger_is_better=larger_is_better)

    if isinstance(run, RankRun) or (path is not None and run_kind(path) != "align"):
        _refuse({**reading, "model": model}, "a ranker, which has none")
        ranker = run if isinstance(run, RankRun) else RankRun.load(str(path))
        ranker.read_files(sort=sort, features_from_zero=features_from_zero)
        requirements = [replace(r, name=_main_name(ranker, r.name)) for r in requirements]
        goal, names = _main_name(ranker, goal), rank_metrics(ranker)
        check(names, [True] * len(names))
        space = rank_space(ranker, grid, fixed_temperatures=fixed_temperatures, main_share=main_share)
        ranker.to(device)
        chosen, reported = _rank_samples(ranker, data, split, holdout, base_scores, seed, device)
        with progress_bar("choose", None, "points") as update:
            told = replace(chosen, measure=_telling(chosen.measure, update))
            how |= {"holdout": reported, "effort": Effort(points=points)}
            found = choose_point(told, space, ranker.objectives, requirements, goal, **how)
        return replace(found, details=_rank_use(found, ranker, path or ranker.path, base_scores))

    extras.require("align")
    from hyperdpo.alignment.commands import disable_progress_bars_without_tty
    from hyperdpo.alignment.gguf_models import origin_of
    from hyperdpo.alignment.run import AlignRun
    from hyperdpo.choosing.language import align_effort, align_space, larger_is_better
    from hyperdpo.choosing.language import metric_names as align_metrics

    foreign = {
        "base_scores": base_scores,
        "main_share": main_share,
        "sort": sort,
        "features_from_zero": features_from_zero,
    }
    _refuse(foreign, "a language model, where it has no meaning")
    disable_progress_bars_without_tty()
    aligned = AlignRun.load(path, model) if path is not None else run
    assert isinstance(aligned, AlignRun)
    check(align_metrics(aligned), larger_is_better(aligned))
    chosen, reported = _align_samples(aligned, data, split, holdout, reading, seed, device)
    how |= {"holdout": reported, "effort": align_effort(aligned, points)}
    found = choose_point(chosen, align_space(aligned, grid), aligned.names, requirements, goal, **how)
    return replace(found, details=_align_use(found, path) | {"gguf_origin": origin_of(aligned.model)})


def _refuse(options: Mapping[str, Any], what: str) -> None:
    """Refuse options that have no meaning for a run of this kind."""
    for name, value in options.items():
        if value is not None and value is not False and not (name == "format" and value == "auto"):
            raise InputError(f"{name}: this is a run of {what}; leave it out")


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
    if holdout is not None and _share(holdout) is None and holdout not in ("train", "validation", "test"):
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


def _main_name(run: RankRun, name: str) -> str:
    """``main`` for the main label's own name, other names as they are."""
    main = run.config.main
    return MAIN if main is not None and name == main.name else name


def _telling(measure: Measure, update: Update) -> Measure:
    """A measure that reports how many points it has measured."""
    done = 0

    def telling(points: np.ndarray) -> np.ndarray:
        nonlocal done
        found = measure(points)
        done += len(points)
        update(done)
        return found

    return telling


# What is measured on --------------------------------------------------------------------------------------------------


def _samples(
    named: Callable[[str], tuple[str, _Groups]],
    sample: Callable[[_Groups, str], Sample],
    halves: Callable[[_Groups, float], tuple[_Groups, _Groups]],
    split: str,
    holdout: Any,
) -> tuple[Sample, Sample | None]:
    """The groups to choose on, and those to report on (None: the same).

    Args:
        named: the groups of a split, and what they are called.
        sample: makes a sample of groups with that description.
        halves: sets a share of groups aside.
    """
    name, part = named(split)
    noun = "groups" if isinstance(part, Part) else "prompts"
    if holdout is None:
        return sample(part, f"{name} {noun}"), None
    if isinstance(holdout, float):
        kept, aside = halves(part, holdout)
        return sample(kept, f"part of the {name} {noun}"), sample(aside, f"the rest of the {name} {noun}")
    if isinstance(holdout, type(part)):
        return sample(part, f"{name} {noun}"), sample(holdout, f"held-out {noun}")
    if str(holdout) == name or "all" in (str(holdout), name):
        raise InputError(
            f"holdout {holdout}: the point is chosen on the {name} groups; expected other groups to report on"
        )
    other, held_out = named(str(holdout))
    return sample(part, f"{name} {noun}"), sample(held_out, f"{other} {noun}")


def _rank_samples(
    run: RankRun, data: Any, split: str, holdout: Any, base_scores: str | np.ndarray | None, seed: int, device: str
) -> tuple[Sample, Sample | None]:
    def sample(part: Part, what: str) -> Sample:
        use_free_cores()
        base = given_base(base_scores, run, part.table) if isinstance(base_scores, str) else base_scores
        examples = run.examples(part, base_scores=base, device=device)
        return rank_sample(run, examples, device=device, description=f"{run.config.metric.describe()}, {what}")

    def halves(part: Part, share: float) -> tuple[Part, Part]:
        groups = len(part.groups)
        held = round(groups * share)
        if not 0 < held < groups:
            raise InputError(f"holdout: {share:g} of {groups} groups leaves one side empty; expected more groups")
        order = stream(seed, 20).permutation(groups)
        kept, aside = (Part(part.table, part.groups[np.sort(one)]) for one in (order[held:], order[:held]))
        return kept, aside

    return _samples(lambda wanted: rank_part(run, data, wanted), sample, halves, split, holdout)


def _align_samples(
    run: AlignRun, data: Any, split: str, holdout: Any, reading: dict[str, Any], seed: int, device: str
) -> tuple[Sample, Sample | None]:
    from hyperdpo.alignment.data.groups import Preferences
    from hyperdpo.choosing.language import align_part, align_sample, read_for

    def sample(part: Preferences, what: str) -> Sample:
        use_free_cores()
        described = f"cross-entropy error and accuracy of pairs, {what}"
        return align_sample(run, part, device=device, description=described, show=True)

    def halves(part: Preferences, share: float) -> tuple[Preferences, Preferences]:
        parts = part.split((1 - share, 0.0, share), seed)
        return parts["train"], parts["test"]

    preferences = data if isinstance(data, Preferences) else read_for(run, data, **reading)
    return _samples(lambda wanted: align_part(run, preferences, wanted), sample, halves, split, holdout)


def _share(holdout: Any) -> float | None:
    """The share that a holdout stands for; None where it is something else.

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


# How to use the point -------------------------------------------------------------------------------------------------


def _rank_use(choice: Choice, run: RankRun, path: Path | None, base_scores: str | np.ndarray | None) -> dict[str, Any]:
    betas = tuple(choice.temperatures.values())
    own = () if betas == tuple(run.betas) else betas
    point = Point(tuple(choice.weights.values()), choice.scale, own, choice.main_share)
    with_base = run.base_source.kind == "given"
    call = rank_call(point, with_base=with_base)
    if path is None:
        return {"command": None, "python": f"ranker.{call}"}
    column = base_scores if isinstance(base_scores, str) else "SCORES" if with_base else None
    command = rank_command(path, "DATA", point, column)
    return {"command": command, "python": f"HyperRanker.load({str(path)!r}).{call}"}


def _align_use(choice: Choice, path: Path | None) -> dict[str, Any]:
    point = Point(tuple(choice.weights.values()), choice.scale)
    if path is None:
        return {"command": None, "python": f"run.{align_call(point)}"}
    return {"command": align_command(path, point), "python": f"AlignRun.load({str(path)!r}).{align_call(point)}"}
