"""What the ``hyperdpo rank`` commands do: files in, files and a table out."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from hyperdpo.core.point import parse_weights
from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable, abridged
from hyperdpo.data.splits import Part
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, one_line
from hyperdpo.extras import require
from hyperdpo.files import check_writable, read_yaml, write_atomically, write_json
from hyperdpo.plots import plot_fronts
from hyperdpo.ranking.clicks import correction_line
from hyperdpo.ranking.components import SUFFIXES, component_names, write_components
from hyperdpo.ranking.components import components as find_components
from hyperdpo.ranking.config import RankConfig, build_config
from hyperdpo.ranking.evaluation import Front
from hyperdpo.ranking.examples import Examples
from hyperdpo.ranking.fitting import fit_run
from hyperdpo.ranking.labels import all_labels
from hyperdpo.ranking.oracle import attained, oracle_front
from hyperdpo.ranking.run import BASE_SCORES, CONFIG, METRICS, MODEL, RUN, TREES, RankRun
from hyperdpo.ranking.sources import base_of, given_base, read, read_data, read_parts
from hyperdpo.ranking.tables import print_fit, print_front
from hyperdpo.ranking.training import make_accelerator
from hyperdpo.threads import use_free_cores

#: What ``--track`` takes.
TRACKERS = ("tensorboard", "wandb")


def fit_command(
    source: Path,
    config: RankConfig,
    out: Path,
    *,
    validation: Path | None = None,
    test: Path | None = None,
    base_scores: str | None = None,
    cpu: bool = False,
    track: str | None = None,
    overwrite: bool = False,
) -> RankRun:
    """``hyperdpo rank fit``."""
    accelerator = make_accelerator(config.training.precision, cpu=cpu, log_with=_trackers(track), log_dir=out / "logs")
    main = accelerator.is_main_process
    if main:
        _check_directory(out, overwrite)
    with accelerator.main_process_first():  # the others find the parsed data, and no old checkpoints
        parts = read_parts(source, validation, test, config, show=main)
        base_source, given = base_of(base_scores, parts, config.qid_column)
        if main and overwrite:
            _clear_directory(out)
    if track is not None:
        (out / "logs").mkdir(parents=True, exist_ok=True)  # wandb writes elsewhere where its directory is missing
        wandb = {"dir": str(out / "logs")}
        try:
            accelerator.init_trackers("hyperdpo", config=_flat(config.to_dict()), init_kwargs={"wandb": wandb})
        except Exception as error:  # each tracker raises its own: no login, no network, no space
            raise InputError(f"--track {track}: cannot be started ({one_line(error)})") from None
    use_free_cores()
    say = click.echo if main else None
    run = fit_run(config, parts, accelerator, out=out, base_source=base_source, given_base=given, say=say)
    accelerator.end_training()
    if main:
        print_fit(run, out)
    return run


def front_command(
    run_path: Path,
    source: Path,
    *,
    points: int = 11,
    scales: Sequence[float] = (1.0,),
    temperatures: Sequence[float] | None = None,
    main_share: float | None = None,
    out: Path | None = None,
    plot: Path | None = None,
    oracle: Path | None = None,
    split: str = "auto",
    metric: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config_file: Path | None = None,
    objectives: Sequence[str] | None = None,
    base_scores: str | None = None,
    sort: bool = False,
    features_from_zero: bool = False,
    cpu: bool = False,
) -> dict[str, Any]:
    """``hyperdpo rank front``: the content of ``FRONT.json``."""
    if plot is not None and plot.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"--plot: found {plot.name!r}; expected a name ending in .png, .pdf or .svg")
    run = _run_for(run_path, config_file, sort=sort, features_from_zero=features_from_zero)
    chosen = _chosen_objectives(run, preset, config_file, objectives)
    if config_file is not None:
        metric = {**read_yaml(config_file).get("metric", {}), **(metric or {})}
    if oracle is not None and run.ranker.takes_main_share:
        raise InputError("--oracle: the attainable front of expected gains is not known; leave --oracle out")
    device = best_device(cpu)
    run.to(device)
    table, file_of = read_data(source, run, split)
    note_other_columns(table, run, base_scores)
    name, part = run.part(table, split) if file_of is None else (file_of, Part.whole(table))
    given = given_base(base_scores, run, table)
    settings = replace(run.config.metric, **(metric or {}))
    grid = np.zeros((points if len(chosen) > 1 else 1, len(run.objectives)))
    grid[:, chosen] = weight_grid(len(chosen), points)
    use_free_cores()
    examples = run.examples(part, base_scores=given, device=device)
    asked: dict[str, Any] = {"temperatures": temperatures, "main_share": main_share}
    front = run.front(examples, grid, list(scales), metric=settings, **asked, device=device, show=True)
    note_unmeasured(front, table.source)
    betas = front.temperatures[0].tolist()
    front = front.only(chosen)
    result = front.to_dict() | {
        "parameters": run.metrics["parameters"],
        "train_seconds": run.metrics["train_seconds"],
        "base": run.base_front(examples, metric=settings).only(chosen).to_dict()["points"][0],
        "data": {
            "source": Path(table.source).name,
            "split": name,
            "groups": len(part.groups),
            "items": int(part.sizes.sum()),
            "corrected": corrected_labels(examples, run.config),
            "weight": None if examples.group_weights is None else run.config.weight,
        },
    }
    del result["base"]["weights"], result["base"]["scale"]
    attainable = None
    if oracle is not None:
        truth = read_table(oracle)
        attainable = oracle_front(examples, truth, grid, list(scales), betas, settings).only(chosen)
        result["oracle"] = attained(front, attainable)
    if out is not None:
        write_json(out, result)
    if plot is not None:
        shown = {"HyperDPO": result} | ({} if attainable is None else {"oracle": attainable.to_dict()})
        plot_fronts(shown, plot, base=result["base"])
    print_front(result)
    for what, written in (("front", out), ("plot", plot)):
        if written is not None:
            click.echo(f"{what}: {written}")
    return result


def note_other_columns(table: GroupedTable, run: RankRun, base_scores: str | None = None) -> None:
    """Say which features of the run a LETOR file does not reach, and which columns the run was not trained with.

    The former count as 0, as all that is absent in LETOR text does. The run's labels and the base scores are not named.

    Args:
        base_scores: the column of the base scores, or their file.

    Raises:
        InputError: a feature of the run is missing.
    """
    names = run.transform.columns
    beyond = table.features_beyond(names)
    if beyond:
        warnings.warn(
            f"{table.source}: no feature above {table.columns[-1]}; {len(beyond)} of the run's {len(names)} features "
            f"({beyond[0]} to {beyond[-1]}) count as 0",
            stacklevel=2,
        )
    others = run.data.get("features_left_out")  # a run of an older version does not say
    if others is None:
        return
    known = {*names, *others, *(label.column for label in all_labels(run.config)), base_scores}
    if extra := [name for name in table.columns if name not in known]:
        warnings.warn(
            f"{table.source}: columns that the run was not trained with, and does not use: {abridged(extra)}",
            stacklevel=2,
        )


def corrected_labels(examples: Examples, config: RankConfig) -> dict[str, str]:
    """Labels that are measured on corrected clicks -> how they are corrected."""
    main = [] if config.main is None or examples.main_gains is None else [config.main]
    known = {label.name: correction_line(label) for label in (*examples.labels, *main)}
    return {name: line for name, line in known.items() if line}


def note_unmeasured(front: Front, source: str) -> None:
    """Say which objectives no group can measure: they count 0 in the hypervolume."""
    for name, counted in zip(front.objectives, front.groups_counted, strict=True):
        if not counted:
            warnings.warn(
                f"{source}: no group has a positive label of {name}, so its NDCG is not known and the hypervolume is 0",
                stacklevel=2,
            )


def score_command(
    run_path: Path,
    source: Path,
    *,
    weights: str | None = None,
    components: Path | None = None,
    scale: float = 1.0,
    temperatures: Sequence[float] | None = None,
    main_share: float | None = None,
    out: Path | None = None,
    preset: str | None = None,
    config_file: Path | None = None,
    objectives: Sequence[str] | None = None,
    base_scores: str | None = None,
    sort: bool = False,
    features_from_zero: bool = False,
    cpu: bool = False,
) -> np.ndarray:
    """``hyperdpo rank score``: (N,) scores in the file's order, or (N, k) components.

    Args:
        components: write these instead of scores; weights are then not needed.
    """
    run = _run_for(run_path, config_file, sort=sort, features_from_zero=features_from_zero)
    chosen = _chosen_objectives(run, preset, config_file, objectives)
    if components is not None:
        foreign = {"--weights": weights, "--main-share": main_share, "--beta": temperatures, "--out": out}
        for name in (name for name, value in foreign.items() if value is not None):
            raise InputError(f"{name}: --components writes columns for all weights, to their own file; leave it out")
        if components.suffix not in SUFFIXES:  # now, not after the scoring
            expected = ", ".join(SUFFIXES)
            raise InputError(f"--components: found {components.name!r}; expected a name ending in {expected}")
        names = component_names(run)
    elif weights is None:
        raise InputError("--weights: missing; expected one per objective, such as .3,.7 (or --components OUT)")
    else:
        w = parse_weights(weights, run.objectives, chosen)
    device = best_device(cpu)
    run.to(device)
    table = read(source, run.config, origins=run.origins)
    note_other_columns(table, run, base_scores)
    given = given_base(base_scores, run, table)
    use_free_cores()
    if components is not None:
        values = find_components(run, Part.whole(table), scale, base_scores=given, device=device)
        write_components(components, table, names, values)
        click.echo(f"{components}: {len(values):,} rows, {', '.join(names)}; rank by the sum of weight times column")
        return values
    asked: dict[str, Any] = {"temperatures": temperatures, "main_share": main_share}
    scores = run.score(Part.whole(table), w, scale, **asked, base_scores=given, device=device)
    scores = table.source_order(scores)
    if out is not None and out.suffix == ".npy":
        import io

        buffer = io.BytesIO()
        np.save(buffer, scores, allow_pickle=False)
        write_atomically(out, buffer.getvalue())
    else:
        text = "".join(f"{score:.9g}\n" for score in scores)
        if out is None:
            sys.stdout.write(text)
        else:
            write_atomically(out, text.encode())
    return scores


def _run_for(run_path: Path, config_file: Path | None, *, sort: bool, features_from_zero: bool) -> RankRun:
    """A run that reads files as a configuration says: what their query id and labels are called."""
    like = None if config_file is None else build_config(config_file=config_file)
    return RankRun.load(run_path).read_files(sort=sort, features_from_zero=features_from_zero, like=like)


def _check_directory(out: Path, overwrite: bool) -> None:
    """Refuse a finished run, unless it may be overwritten. An interrupted run is left alone and resumed."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a directory for the run")
    if (out / RUN).exists() and not overwrite:
        raise InputError(f"{out}: holds a finished run; expected a new directory, or --overwrite")
    check_writable(out)


def _clear_directory(out: Path) -> None:
    """Remove the run that is overwritten. Called once the data for the new run have been read."""
    for name in (RUN, CONFIG, METRICS, MODEL):
        (out / name).unlink(missing_ok=True)
    for name in (BASE_SCORES, TREES, "checkpoints", "logs"):
        shutil.rmtree(out / name, ignore_errors=True)


def _trackers(track: str | None) -> list[str] | None:
    if track is None:
        return None
    names = [name.strip() for name in track.split(",")]
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--track: no tracker {name!r}; expected some of {', '.join(TRACKERS)}")
        require("track", name)
    return names


def _chosen_objectives(
    run: RankRun, preset: str | None, config_file: Path | None, objectives: Sequence[str] | None
) -> list[int]:
    """Positions of the objectives that a command is about; a preset or file must name the run's own."""
    if preset is not None or config_file is not None:
        # A run may have been trained for some of what a preset names, never for anything else.
        named = build_config(preset=preset, config_file=config_file).names
        if not set(run.objectives) <= set(named):
            raise InputError(
                f"{run.path}: was trained for {', '.join(run.objectives)}; the preset or file names {', '.join(named)}"
            )
    names = list(objectives or run.objectives)
    if len(set(names)) < len(names):
        raise InputError(f"--objectives: found {', '.join(names)}; expected each name once")
    for name in names:
        if name not in run.objectives:
            raise InputError(
                f"--objectives: no objective {name!r} in {run.path}; expected some of {', '.join(run.objectives)}"
            )
    return [run.objectives.index(name) for name in names]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as the flat numbers and texts that trackers take."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, int | float | str) else str(value)
    return flat
