"""What the ``hyperdpo rank`` commands do: files in, files and a table out."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import click
import numpy as np

from hyperdpo.core.point import parse_weights
from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted, one_line
from hyperdpo.extras import require
from hyperdpo.files import check_writable, read_yaml, write_atomically, write_json
from hyperdpo.locks import writes_to
from hyperdpo.objectives import MAIN
from hyperdpo.plots import plot_fronts
from hyperdpo.ranking.calibration import calibration
from hyperdpo.ranking.clicks import corrected_labels
from hyperdpo.ranking.components import SUFFIXES, component_names, write_components
from hyperdpo.ranking.config import RankConfig, build_config
from hyperdpo.ranking.evaluation import Front
from hyperdpo.ranking.explain import explain, group_of
from hyperdpo.ranking.explanation import Explanation
from hyperdpo.ranking.fitting import fit_run
from hyperdpo.ranking.gain_ranker import GainRanker
from hyperdpo.ranking.oracle import attained, gain_oracle_front, oracle_front
from hyperdpo.ranking.run import METRICS, RUN, RankRun
from hyperdpo.ranking.run_files import BASE_SCORES, CONFIG, MODEL, TREES
from hyperdpo.ranking.scoring import ScoreRequest
from hyperdpo.ranking.sources import base_of, given_base, note_other_columns, read, read_data, read_parts
from hyperdpo.ranking.tables import print_explanation, print_fit, print_front
from hyperdpo.ranking.training import make_accelerator
from hyperdpo.threads import use_free_cores

#: What ``--track`` takes.
TRACKERS = ("tensorboard", "wandb")
#: What components are for.
WEIGHTED_SUM = "rank by the sum of weight times column"


class RunOptions(TypedDict, total=False):
    """How commands read a run and its data: the options of :func:`~hyperdpo.options.ranker_data_options`.

    Attributes:
        preset, config_file: name the run's objectives; a file says how the data's query id and labels are called, too.
        objectives: those of the run that a command is about.
        base_scores: a column, or a file with one number per row, where the run has none of its own.
        sort: the rows of a query need not stand together.
        features_from_zero: features of LETOR text are numbered from 0.
        cpu: use no accelerator.
    """

    preset: str | None
    config_file: Path | None
    objectives: Sequence[str] | None
    base_scores: str | None
    sort: bool
    features_from_zero: bool
    cpu: bool


@writes_to("out")
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
    **how: Unpack[RunOptions],
) -> dict[str, Any]:
    """``hyperdpo rank front``: the content of ``FRONT.json``."""
    if plot is not None and plot.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"--plot: found {plot.name!r}; expected a name ending in .png, .pdf or .svg")
    run, chosen = _opened(run_path, how)
    config_file, base_scores = how.get("config_file"), how.get("base_scores")
    if config_file is not None:
        metric = {**read_yaml(config_file).get("metric", {}), **(metric or {})}
    device = best_device(how.get("cpu", False))
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
            "corrected": corrected_labels(examples.labels, None if examples.main_gains is None else run.config.main),
            "weight": None if examples.group_weights is None else run.config.weight,
        },
    }
    del result["base"]["weights"], result["base"]["scale"]
    if (calibrated := calibration(run, examples, device)) is not None:
        names = (*front.objectives, MAIN)
        result["calibration"] = {name: calibrated[name] for name in names if name in calibrated}
    attainable = None
    if oracle is not None:
        truth = read_table(oracle)
        where: Any = (examples, truth, grid, list(scales), betas, settings)
        if isinstance(run.ranker, GainRanker):
            label = None if examples.main_gains is None else run.config.main
            share = float(result["points"][0]["main_share"])
            attainable = gain_oracle_front(run.ranker, *where, main=label, main_share=share)
        else:
            attainable = oracle_front(*where)
        result["oracle"] = attained(front, attainable.only(chosen))
    if out is not None:
        write_json(out, result)
    if plot is not None:
        shown = {"HyperDPO": result} | ({} if attainable is None else {"oracle": attainable.only(chosen).to_dict()})
        plot_fronts(shown, plot, base=result["base"])
    print_front(result)
    for what, written in (("front", out), ("plot", plot)):
        if written is not None:
            click.echo(f"{what}: {written}")
    return result


def note_unmeasured(front: Front, source: str) -> None:
    """Say which objectives no group can measure: they count 0 in the hypervolume."""
    for name, groups in zip(front.objectives, front.groups_counted, strict=True):
        if not groups:
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
    engine: str = "local",
    scheduler: str | None = None,
    workers: int | None = None,
    partition_rows: int | None = None,
    **how: Unpack[RunOptions],
) -> np.ndarray | None:
    """``hyperdpo rank score``: (N,) scores in the file's order, or (N, k) components; None from workers of Dask.

    Args:
        components: write these instead of scores; weights are then not needed.
        engine: ``dask`` writes a directory of Parquet files.
        scheduler, workers, partition_rows: as of :func:`~hyperdpo.ranking.distributed.score_files`.
    """
    _check_engine(engine, source, {"scheduler": scheduler, "workers": workers, "partition-rows": partition_rows})
    run, chosen = _opened(run_path, how)
    base_scores, cpu = how.get("base_scores"), how.get("cpu", False)
    w: tuple[float, ...] | None = None
    if components is not None:
        foreign = {"--weights": weights, "--main-share": main_share, "--out": out}
        for name in (name for name, value in foreign.items() if value is not None):
            raise InputError(f"{name}: --components writes columns for all weights, to their own file; leave it out")
        if engine == "local" and components.suffix not in SUFFIXES:  # now, not after the scoring
            expected = ", ".join(SUFFIXES)
            raise InputError(f"--components: found {components.name!r}; expected a name ending in {expected}")
    elif weights is None:
        raise InputError("--weights: missing; expected one per objective, such as .3,.7 (or --components OUT)")
    else:
        w = tuple(map(float, parse_weights(weights, run.objectives, chosen)))
    betas = None if temperatures is None else tuple(temperatures)
    request = ScoreRequest(w, scale, betas, main_share, base_scores)
    names = request.names(run)
    if engine == "dask":
        _score_with_dask(run, source, request, components or out, scheduler, workers, partition_rows, cpu=cpu)
        return None
    device = best_device(cpu)
    run.to(device)
    table = read(source, run.config, origins=run.origins)
    use_free_cores()
    values = request.values(run, table, device)
    if components is not None:
        write_components(components, table, names, values)
        click.echo(f"{components}: {len(values):,} rows, {', '.join(names)}; {WEIGHTED_SUM}")
        return values
    scores = table.source_order(values[:, 0])
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
    if out is not None:
        click.echo(f"{out}: {len(scores):,} rows, one score each")
    return scores


def _check_engine(engine: str, source: Path, options: Mapping[str, Any]) -> None:
    """Refuse options of the engine that is not asked for, and a directory without one."""
    if engine == "dask":
        require("dask")
        if options["scheduler"] is not None and options["workers"] is not None:
            raise InputError("--workers: is for worker processes on this machine; leave out --scheduler, or this")
        return
    for name in (name for name, value in options.items() if value is not None):
        raise InputError(f"--{name}: is for --engine dask; add that, or leave it out")
    if source.is_dir():
        raise InputError(
            f"{source}: is a directory; expected a file, or --engine dask for Parquet files in a directory"
        )


def _score_with_dask(
    run: RankRun,
    source: Path,
    request: ScoreRequest,
    out: Path | None,
    scheduler: str | None,
    workers: int | None,
    partition_rows: int | None,
    *,
    cpu: bool,
) -> None:
    from hyperdpo.ranking.distributed import PARTITION_ROWS, score_files

    if out is None:
        raise InputError("--out: missing; expected a directory for the parts that --engine dask writes")
    if request.base_scores is not None and Path(request.base_scores).is_file():
        raise InputError("--base-scores: is a file; --engine dask takes base scores from a column of the data")
    rows = partition_rows or PARTITION_ROWS
    done = score_files(run, source, request, out, scheduler=scheduler, workers=workers, partition_rows=rows, cpu=cpu)
    kept = f", {done['kept']:,} of them kept from before" if done["kept"] else ""
    what = ", ".join(done["columns"]) + ("" if request.weights else f"; {WEIGHTED_SUM}")
    click.echo(f"{out}: {done['rows']:,} rows in {counted(done['parts'], 'part')}{kept}; {what}")


def explain_command(
    run_path: Path,
    source: Path,
    query: str,
    *,
    weights: str | None = None,
    scale: float = 1.0,
    main_share: float | None = None,
    top: int = 10,
    out: Path | None = None,
    **how: Unpack[RunOptions],
) -> Explanation:
    """``hyperdpo rank explain``.

    Args:
        query: its id, as text.
        weights: None: the same for each objective.
        top: documents that are printed; ``out`` gets them all.
    """
    run, chosen = _opened(run_path, how)
    base_scores = how.get("base_scores")
    component_names(run)  # refuses a run without components before the data are read
    if weights is None:
        w = np.zeros(len(run.objectives))
        w[chosen] = 1 / len(chosen)
    else:
        w = parse_weights(weights, run.objectives, chosen)
    device = best_device(how.get("cpu", False))
    run.to(device)
    table = read(source, run.config, origins=run.origins)
    note_other_columns(table, run, base_scores)
    part, given = group_of(table, query), given_base(base_scores, run, table)
    use_free_cores()
    found = explain(run, part, w, scale, main_share=main_share, base_scores=given, device=device)
    if out is not None:
        write_json(out, found.to_dict())
    print_explanation(found, top)
    if out is not None:
        click.echo(f"explanation: {out}")
    return found


def _opened(run_path: Path, how: RunOptions) -> tuple[RankRun, list[int]]:
    """A run that reads files as a configuration says (what their query id and labels are called), and the positions of
    the objectives that a command is about."""
    preset, config_file, objectives = how.get("preset"), how.get("config_file"), how.get("objectives")
    like = None if config_file is None else build_config(config_file=config_file)
    files = {name: bool(how.get(name, False)) for name in ("sort", "features_from_zero")}
    run = RankRun.load(run_path).read_files(**files, like=like)
    return run, _chosen_objectives(run, preset, config_file, objectives)


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
