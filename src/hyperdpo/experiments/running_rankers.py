"""An experiment on rankers: its configuration, data, cases and comparisons."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from hyperdpo.comparison.commands import note_kept_settings
from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.methods import needs_lightgbm
from hyperdpo.comparison.rank_measures import compare, refuse_several_processes
from hyperdpo.comparison.repeats import RankRepeat, check_repeats, natural_seeds, rank_repeats
from hyperdpo.core.preferences import stream
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.experiments.experiment import POINTS, SMALL_POINTS, Experiment, Found
from hyperdpo.experiments.results import case_of, describe_data, table_rows
from hyperdpo.extras import is_installed
from hyperdpo.hashing import sha256_of
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.config import PRESETS, RankConfig, build_config, merged
from hyperdpo.ranking.training import make_accelerator
from hyperdpo.threads import use_free_cores

if TYPE_CHECKING:
    from accelerate import Accelerator

PAPER_PRESET = "mslr"
#: Random stream that draws nested training groups; the split itself has stream 0.
NESTED = 7
#: ``--small``: an instance that shows that everything runs, and nothing else.
SMALL: dict[str, Any] = {
    "scorer": {"width": 8},
    "base_scorer": {"width": 8},
    "training": {"epochs": 1, "sampling_factor": 1.0, "min_batches": 2, "evaluations": 1},
    "base_training": {"epochs": 1, "min_batches": 2, "evaluations": 1},
    "gbdt": {"trees": 10},
}
SMALL_QUERIES = 40


def find(
    experiment: Experiment,
    out: Path,
    *,
    data: Path | None = None,
    preset: str | None = None,
    config_file: Path | None = None,
    objectives: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    folds: int = 0,
    queries: int | None = None,
    small: bool = False,
    oracle: Path | None = None,
    base_scores: str | None = None,
    cpu: bool = False,
) -> Found:
    """Train and measure what an experiment compares.

    Args:
        data: None: generated data, whose oracle is known.
        preset, config_file, objectives, overrides: as for :func:`~hyperdpo.ranking.config.build_config`; without preset
            and file, the preset ``mslr``.
        seeds: repeats; None: 3, or one for each fold.
        folds: cut the groups of a file into so many parts.
        oracle: expected labels of a generated file.
        base_scores: ``lightgbm``, a column or a file; None: a base is trained.

    Raises:
        InputError: no such data or setting.
    """
    generated = data is None
    config = _config(experiment, preset, config_file, objectives, generated, small, overrides)
    accelerator = make_accelerator(config.training.precision, cpu=cpu)
    refuse_several_processes(accelerator)  # here, before all of them generate data
    entries = _available(experiment.entries)
    note_kept_settings(entries, overrides or {})
    papers = _is_papers(preset, config_file) and list(config.names) == _papers_objectives(experiment)
    check_repeats(config, seeds=1 if seeds is None else seeds, folds=folds, base=base_scores)  # before data are made
    if data is None:
        number = queries if queries is not None else SMALL_QUERIES if small else experiment.queries
        data, oracle = _generated(out / "data", number)
    elif not data.exists():
        raise InputError(f"{data}: no such file or directory; expected data, such as MSLR's Fold1/train.txt")
    if seeds is None:
        seeds = 1 if small else natural_seeds(data, folds)
    repeats = rank_repeats(data, config, seeds=seeds, folds=folds, base=base_scores, oracle=oracle)
    points = SMALL_POINTS if small else POINTS
    experiment = replace(experiment, entries=entries, paper=experiment.paper if papers else {})
    use_free_cores()
    with warnings.catch_warnings():
        # Several experiments on one base: that it is there already is no news.
        warnings.filterwarnings("ignore", message="base: resumed")
        cases = [
            _case(experiment, case, accelerator, out, points, str(base_scores))
            for case in _cases(experiment, config, repeats, small)
        ]
    return Found(
        title=experiment.title if papers else f"{experiment.title}; here: {', '.join(config.names)}",
        paper_says=experiment.paper_says,
        data=describe_data(data, repeats, generated, paper_preset=papers),
        settings=config.to_dict(),
        cases=cases,
        trainings=out / "trainings",
    )


@dataclass(frozen=True)
class Case:
    """One comparison of an experiment."""

    name: str
    value: int | None
    """The number by which the cases differ."""
    config: RankConfig
    repeats: Sequence[RankRepeat]


def _config(
    experiment: Experiment,
    preset: str | None,
    config_file: Path | None,
    objectives: Sequence[str] | None,
    generated: bool,
    small: bool,
    overrides: Mapping[str, Any] | None,
) -> RankConfig:
    """The resolved configuration, with the experiment's objectives."""
    if preset is None and config_file is None:
        preset = PAPER_PRESET
    papers = _is_papers(preset, config_file)
    settings: dict[str, Any] = dict(experiment.generated) if generated else {}
    if papers and experiment.extra_objectives:
        settings["objectives"] = [*PRESETS[PAPER_PRESET]["objectives"], *experiment.extra_objectives]
    # Built in turn, the user's last: each time from the whole of what stands so far.
    config = build_config(preset=preset, config_file=config_file, overrides=settings)
    pair = len(experiment.positions or ())
    if objectives is None and pair:
        chosen = experiment.positions if papers and experiment.positions else tuple(range(pair))
        if len(config.names) < pair:
            found = f"{len(config.names)} ({', '.join(config.names)})"
            raise InputError(f"{experiment.name}: found {found} objectives; expected {pair}")
        objectives = [config.names[position] for position in chosen]
    if objectives is not None and pair and len(objectives) != pair:
        raise InputError(f"--objectives: found {len(objectives)}; {experiment.name} expects {pair}")
    for more in (SMALL if small else {}, overrides or {}):
        settings = merged(settings, more)
    config = build_config(preset=preset, config_file=config_file, objectives=objectives, overrides=settings)
    if len(config.names) < 2:
        raise InputError(f"{experiment.name}: found 1 objective ({config.names[0]}); expected at least 2")
    return config


def _papers_objectives(experiment: Experiment) -> list[str]:
    """The names of the objectives that the experiment has in the paper (with its extra ones, which have none there)."""
    settings = [*PRESETS[PAPER_PRESET]["objectives"], *experiment.extra_objectives]
    names = [one["name"] for one in settings]
    return names if experiment.positions is None else [names[position] for position in experiment.positions]


def _is_papers(preset: str | None, config_file: Path | None) -> bool:
    """Whether the objectives are the paper's I to V."""
    return config_file is None and preset in (None, PAPER_PRESET)


def _available(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The entries that can be trained here; says which are left out."""
    if is_installed("lightgbm"):
        return entries
    missing = [entry.label for entry in entries if needs_lightgbm(entry.method)]
    if missing:
        click.echo(f"{', '.join(missing)} is left out: lightgbm is not installed (pip install 'hyperdpo[gbdt]')")
    return tuple(entry for entry in entries if not needs_lightgbm(entry.method))


def _generated(directory: Path, queries: int) -> tuple[Path, Path]:
    """Generated data and its oracle; the same number of queries gives the same data."""
    data, oracle = directory / f"generated-{queries}.txt", directory / f"generated-{queries}.oracle.csv"
    if not (data.exists() and oracle.exists()):
        with progress_bar("generate", queries, "queries") as update:
            generate(data, queries, 0, oracle, progress=update)
    return data, oracle


def _cases(experiment: Experiment, config: RankConfig, repeats: Sequence[RankRepeat], small: bool) -> list[Case]:
    values = experiment.small_values if small else experiment.values
    if experiment.vary == "objectives":
        numbers = sorted({min(m, len(config.names)) for m in values})
        return [Case(f"m = {m}", m, _first(config, m), repeats) for m in numbers]
    if experiment.vary == "groups":
        available = min(len(repeat.parts["train"].groups) for repeat in repeats)
        numbers = sorted({min(n, available) for n in values})
        return [Case(f"{n:,} training groups", n, config, [_fewer(one, n, config) for one in repeats]) for n in numbers]
    return [Case("", None, config, repeats)]


def _first(config: RankConfig, number: int) -> RankConfig:
    """The first objectives; a column that one of them reads need not be kept out twice."""
    chosen = config.selecting(config.names[:number])
    read = [objective.column for objective in chosen.objectives]
    return replace(chosen, excluded_columns=tuple(c for c in chosen.excluded_columns if c not in read))


def _fewer(repeat: RankRepeat, number: int, config: RankConfig) -> RankRepeat:
    """A repeat with some of its training groups; fewer are among more."""
    part = repeat.parts["train"]
    order = stream(config.split.seed, NESTED).permutation(len(part.groups))
    chosen = Part(part.table, np.sort(part.groups[order[:number]]))
    return replace(repeat, parts={**repeat.parts, "train": chosen})


def _case(
    experiment: Experiment, case: Case, accelerator: Accelerator, out: Path, points: int, base: str
) -> dict[str, Any]:
    """One comparison, its table, and the oracle's front where it is known."""
    config, repeats = case.config, case.repeats
    directory = out / "trainings" / _key(config, repeats, base)
    points = max(points, len(config.names) + 1)

    def say(text: str) -> None:
        click.echo(f"{case.name}: {text}" if case.name else text)

    comparison = compare(config, repeats, experiment.entries, accelerator, directory, points=points, say=say)
    result = case_of(comparison, table_rows(comparison, experiment.paper), name=case.name, value=case.value)
    if "front" in experiment.charts and comparison["oracle"] is not None:
        result["oracle"] = comparison["oracle"]
    return result


def _key(config: RankConfig, repeats: Sequence[RankRepeat], base: str) -> str:
    """The directory of trainings that may be shared: same data, objectives and base.

    The first repeat speaks for all: with more seeds the first ones stay what they are.
    """
    settings = config.to_dict()
    kept = ("objectives", "main", "excluded_columns", "base_scorer", "base_training", "metric", "qid_column")
    digest = sha256_of([settings[name] for name in kept], base)
    for name, part in sorted(repeats[0].parts.items()):
        digest.update(f"{name} {part.table.fingerprint}".encode() + part.groups.tobytes())
    for name, scores in sorted((repeats[0].given_base or {}).items()):
        digest.update(name.encode() + np.ascontiguousarray(scores).tobytes())
    return f"{len(config.names)}-objectives-{digest.hexdigest()[:10]}"
