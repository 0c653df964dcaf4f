"""What the ``hyperdpo rank`` commands do: files in, files and a table out."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hyperdpo.core.preferences import check_weights, weight_grid
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part, split_files, split_groups
from hyperdpo.errors import InputError
from hyperdpo.progress import progress_bar
from hyperdpo.ranking.checkpoints import write_atomically, write_json
from hyperdpo.ranking.config import RankConfig, build_config, read_yaml
from hyperdpo.ranking.evaluation import Front, front_hypervolume
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.oracle import oracle_front
from hyperdpo.ranking.run import BASE_SCORES, CONFIG, METRICS, MODEL, RUN, BaseSource, RankRun, best_device, read_scores
from hyperdpo.ranking.training import make_accelerator

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
        _prepare_directory(out, overwrite)
    with accelerator.main_process_first():  # the others find the parsed data
        parts = _read_parts(source, validation, test, config, show=main)
    base_source, given = _base(base_scores, parts)
    if track is not None:
        wandb = {"dir": str(out / "logs")}
        try:
            accelerator.init_trackers("hyperdpo", config=_flat(config.to_dict()), init_kwargs={"wandb": wandb})
        except Exception as error:  # each tracker raises its own: no login, no network, no space
            raise InputError(f"--track {track}: cannot be started ({' '.join(str(error).split())[:200]})") from None
    run = fit_run(config, parts, accelerator, out=out, base_source=base_source, given_base=given)
    accelerator.end_training()
    if main:
        _print_fit(run, out)
    return run


def front_command(
    run_path: Path,
    source: Path,
    *,
    points: int = 11,
    scales: Sequence[float] = (1.0,),
    out: Path | None = None,
    plot: Path | None = None,
    oracle: Path | None = None,
    split: str = "auto",
    metric: Mapping[str, Any] | None = None,
    preset: str | None = None,
    config_file: Path | None = None,
    objectives: Sequence[str] | None = None,
    base_scores: str | None = None,
    cpu: bool = False,
) -> dict[str, Any]:
    """``hyperdpo rank front``: the content of ``FRONT.json``."""
    if plot is not None and plot.suffix not in (".png", ".pdf", ".svg"):
        raise InputError(f"--plot: found {plot.name!r}; expected a name ending in .png, .pdf or .svg")
    run = RankRun.load(run_path)
    chosen = _chosen_objectives(run, preset, config_file, objectives)
    if oracle is not None and len(set(run.betas)) > 1:
        raise InputError(f"--oracle: the run has temperatures {run.betas}; expected equal ones, for a closed form")
    if config_file is not None:
        metric = {**read_yaml(config_file).get("metric", {}), **(metric or {})}
    device = best_device(cpu)
    run.to(device)
    table, file_of = _read_data(source, run, split)
    name, part = run.part(table, split) if file_of is None else (file_of, Part.whole(table))
    given = _given_base(base_scores, run, table)
    settings = replace(run.config.metric, **(metric or {}))
    grid = np.zeros((points if len(chosen) > 1 else 1, len(run.objectives)))
    grid[:, chosen] = weight_grid(len(chosen), points)
    examples = run.examples(part, base_scores=given, device=device)
    front = run.front(examples, grid, list(scales), metric=settings, device=device).only(chosen)
    result = front.to_dict() | {
        "parameters": run.metrics["parameters"],
        "train_seconds": run.metrics["train_seconds"],
        "base": run.base_front(examples, metric=settings).only(chosen).to_dict()["points"][0],
        "data": {
            "source": Path(table.source).name,
            "split": name,
            "groups": len(part.groups),
            "items": int(part.sizes.sum()),
        },
    }
    del result["base"]["weights"], result["base"]["scale"]
    attainable = None
    if oracle is not None:
        truth = read_table(oracle)
        attainable = oracle_front(examples, truth, grid, list(scales), run.betas, settings).only(chosen)
        result["oracle"] = _attained(front, attainable)
    if out is not None:
        write_json(out, result)
    if plot is not None:
        from hyperdpo.plots import plot_fronts

        shown = {"HyperDPO": front} if attainable is None else {"HyperDPO": front, "oracle": attainable}
        plot_fronts(shown, plot, base=result["base"])
    print_front(result)
    return result


def score_command(
    run_path: Path,
    source: Path,
    *,
    weights: str,
    scale: float = 1.0,
    out: Path | None = None,
    preset: str | None = None,
    config_file: Path | None = None,
    objectives: Sequence[str] | None = None,
    base_scores: str | None = None,
    cpu: bool = False,
) -> np.ndarray:
    """``hyperdpo rank score``: (N,) scores in the file's order."""
    run = RankRun.load(run_path)
    chosen = _chosen_objectives(run, preset, config_file, objectives)
    w = parse_weights(weights, run.objectives, chosen)
    device = best_device(cpu)
    run.to(device)
    table = _read(source, run.config)
    scores = run.score(Part.whole(table), w, scale, base_scores=_given_base(base_scores, run, table), device=device)
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


def parse_weights(text: str, names: Sequence[str], chosen: Sequence[int]) -> np.ndarray:
    """(m,) weights from ``.3,.7`` or ``clicks=.3,quality=.7``.

    Args:
        names: the run's m objectives.
        chosen: positions of those that plain numbers stand for, in order. Fewer numbers than that leave
            0 for the rest, with a note on stderr.

    Raises:
        InputError: not numbers, an unknown name, or not a point of the simplex.
    """
    w = np.zeros(len(names))
    pieces = [piece.strip() for piece in text.split(",")]
    labels = [names[i] for i in chosen]
    if len(pieces) > len(labels):
        raise InputError(f"--weights: found {len(pieces)} weights; expected {len(labels)}, for {', '.join(labels)}")
    named = ["=" in piece for piece in pieces]
    if any(named) and not all(named):
        raise InputError(f"--weights: found {text!r}; expected either plain numbers or name=number for each")
    for position, piece in enumerate(pieces):
        name, _, number = piece.rpartition("=")
        name = name.strip() if name else labels[position]
        if name not in labels:
            raise InputError(f"--weights: no objective {name!r}; expected some of {', '.join(labels)}")
        try:
            w[list(names).index(name)] = float(number)
        except ValueError:
            raise InputError(f"--weights: {piece!r} is not a number; expected such as .3,.7") from None
    w = check_weights(w, len(names))
    if not any(named) and len(pieces) < len(labels):
        said = ", ".join(f"{name} {w[list(names).index(name)]:g}" for name in labels)
        print(f"note: {len(pieces)} weights for {len(labels)} objectives, the rest count 0: {said}", file=sys.stderr)
    return w


def print_front(result: Mapping[str, Any]) -> None:
    """The content of ``FRONT.json`` as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    names = result["objectives"]
    data = result["data"]
    table = Table(
        title=f"{result['metric']['description']}, {data['split']} groups: {data['groups']}", title_justify="left"
    )
    for heading in ("weights", "scale", *names, "main"):
        table.add_column(heading, justify="right", overflow="fold")

    def row(weights: str, scale: str, point: Mapping[str, Any]) -> None:
        table.add_row(weights, scale, *(_figure(point["metrics"][n]) for n in names), _figure(point["main"]))

    row("base", "", result["base"])
    for point in result["points"]:
        row(",".join(f"{w:.2g}" for w in point["weights"]), f"{point['scale']:g}", point)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(
        f"hypervolume {result['hypervolume']:.4g}, with main {_figure(result['hypervolume_with_main'])} "
        f"(reference {result['reference_point']}); {result['parameters']:,} parameters, "
        f"trained in {result['train_seconds']:.1f} s",
        highlight=False,
    )
    if "oracle" in result:
        oracle = result["oracle"]
        console.print(
            f"of the attainable front: {_percent(oracle['fraction'])}, with main "
            f"{_percent(oracle['fraction_with_main'])} "
            f"(oracle hypervolume {oracle['hypervolume']:.4g}, with main {_figure(oracle['hypervolume_with_main'])})",
            highlight=False,
        )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _print_fit(run: RankRun, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    metrics = run.metrics
    table = Table("", "parameters", "epochs", "items/s", "seconds", "validation")
    for name, history in metrics["history"].items():
        best = history["validation"][history["best"]]
        parameters = metrics["base_parameters"] if name == "base" else metrics["parameters"]
        table.add_row(
            name,
            f"{parameters:,}",
            f"{history['epochs'][-1]} (best {history['epochs'][history['best']]})",
            f"{history['items'] / max(history['seconds'], 1e-9):,.0f}",
            f"{history['seconds']:.1f}",
            _figure(best),
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    m, main = len(run.objectives), run.config.main
    described = f"{len(run.transform.columns)} features, {m} objectives: {', '.join(run.objectives)}"
    console.print(
        f"{described}; base: {run.base_source.kind}, on {main.name if main else 'no main label'}", highlight=False
    )
    if front := metrics.get("validation_front"):
        console.print(
            f"validation hypervolume at {len(front['points'])} weightings: {front['hypervolume']:.4g}, "
            f"with main {_figure(front['hypervolume_with_main'])}; {front['metric']['description']}",
            highlight=False,
        )
    console.print(f"run: {out}", highlight=False)


def _attained(front: Front, attainable: Front) -> dict[str, float | None]:
    """Hypervolumes of the oracle's front, and the fraction that a front has of them."""
    fraction_with_main = None
    if front.hypervolume_with_main is not None and attainable.hypervolume_with_main:
        fraction_with_main = front.hypervolume_with_main / attainable.hypervolume_with_main
    volume = front_hypervolume(attainable.metrics)
    return {
        "hypervolume": volume,
        "hypervolume_with_main": attainable.hypervolume_with_main,
        "fraction": front.hypervolume / volume if volume else None,
        "fraction_with_main": fraction_with_main,
    }


def _prepare_directory(out: Path, overwrite: bool) -> None:
    """Refuse a finished run, unless it is to go; leave an interrupted one, which is then gone on with."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; expected a directory for the run")
    if overwrite:
        for name in (RUN, CONFIG, METRICS, MODEL):
            (out / name).unlink(missing_ok=True)
        for name in (BASE_SCORES, "checkpoints", "logs"):
            shutil.rmtree(out / name, ignore_errors=True)
    elif (out / RUN).exists():
        raise InputError(f"{out}: holds a finished run; expected a new directory, or --overwrite")
    try:  # now, not after a training
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror})") from None


def _trackers(track: str | None) -> list[str] | None:
    if track is None:
        return None
    names = [name.strip() for name in track.split(",")]
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--track: no tracker {name!r}; expected some of {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise InputError(f"--track: {name} is not installed; expected it, from pip install 'hyperdpo[track]'")
    return names


def _read(path: Path, config: RankConfig, *, show: bool = True) -> GroupedTable:
    size = path.stat().st_size if path.is_file() else 0
    with progress_bar(f"read {path.name}", size / 1e6, "MB", show=show) as update:
        return read_table(path, qid_column=config.qid_column, progress=lambda done, _: update(done / 1e6, ""))


def _read_parts(
    source: Path, validation: Path | None, test: Path | None, config: RankConfig, *, show: bool
) -> dict[str, Part]:
    """The splits: files of a directory, files given, or parts of one file."""
    files = split_files(source) if source.is_dir() else {"train": source}
    files |= {name: path for name, path in (("validation", validation), ("test", test)) if path is not None}
    tables = {name: _read(path, config, show=show) for name, path in files.items()}
    if "validation" in tables:
        return {name: Part.whole(table) for name, table in tables.items()}
    if "test" not in tables:
        return split_table(tables["train"], config)
    # A test file, but no validation file: validation groups come out of the training file.
    split = config.split
    share = split.validation / (split.train + split.validation)
    groups = split_groups(tables["train"].num_groups, (1 - share, share, 0.0), split.seed)
    parts = {name: Part(tables["train"], groups[name]) for name in ("train", "validation") if len(groups[name])}
    return parts | {"test": Part.whole(tables["test"])}


def _read_data(source: Path, run: RankRun, split: str) -> tuple[GroupedTable, str | None]:
    """The table that a run is measured on, and of a directory the split whose file it is (None for a file)."""
    if not source.is_dir():
        return _read(source, run.config), None
    files = split_files(source)
    wanted = "test" if split == "auto" else split
    if wanted not in files:
        raise InputError(
            f"{source}: no file for {wanted!r}; found {', '.join(files)}: name one of them (--split or DATA)"
        )
    return _read(files[wanted], run.config), wanted


def _base(argument: str | None, parts: Mapping[str, Part]) -> tuple[BaseSource, dict[str, np.ndarray] | None]:
    """Where base scores come from, and the given ones: a file holds those of all tables, one after the other."""
    if argument is None:
        return BaseSource("trained"), None
    tables = list({id(part.table): part.table for part in parts.values()}.values())
    if argument in tables[0].columns:
        return BaseSource("column", argument), None
    scores = _scores_for(argument, tables)
    ends = np.cumsum([table.num_rows for table in tables])
    by_table = {id(table): scores[end - table.num_rows : end] for table, end in zip(tables, ends, strict=True)}
    return BaseSource("given"), {name: by_table[id(part.table)] for name, part in parts.items()}


def _given_base(argument: str | None, run: RankRun, table: GroupedTable) -> np.ndarray | None:
    if argument is None:
        return None
    return table.column(argument) if argument in table.columns else _scores_for(argument, [table])


def _scores_for(argument: str, tables: Sequence[GroupedTable]) -> np.ndarray:
    if not Path(argument).exists():
        raise InputError(f"--base-scores: {argument!r} is neither a column of {tables[0].source} nor a file")
    scores = read_scores(argument)
    rows = sum(table.num_rows for table in tables)
    if len(scores) != rows:
        names = ", ".join(table.source for table in tables)
        raise InputError(f"{argument}: found {len(scores)} scores; expected {rows}, one per row of {names}")
    return scores


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
