"""The command line. Torch and friends are imported where a command needs them, so that ``--help`` is instant.

Exit codes: 0 done; 1 done, and the answer is that requirements cannot be met (``choose``); 2 bad input, with one line
on stderr; 130 interrupted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hyperdpo._version import __version__
from hyperdpo.alignment.cli import align, check_extra
from hyperdpo.choosing.cli import choose
from hyperdpo.errors import InputError
from hyperdpo.explorer.cli import explore
from hyperdpo.options import (
    PATH,
    PREFERENCE_FORMATS,
    add_options,
    described,
    names_of,
    numbers_of,
    overrides_of,
    reading_options,
    table_options,
)
from hyperdpo.ranking.variants import VARIANTS
from hyperdpo.serving.serve_cli import serve


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            code = cli.main(arguments, prog_name="hyperdpo", standalone_mode=False)
    except (InputError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"hyperdpo: {' '.join(message.split())}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("hyperdpo: interrupted; a training goes on where it was when the command is given again", err=True)
        return 130
    return code if isinstance(code, int) else 0


def _note(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the source that raised it."""
    click.echo(f"hyperdpo: note: {' '.join(str(message).split())}", err=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """HyperDPO: one trained model, every trade-off between several objectives."""


cli.add_command(align)
cli.add_command(choose)
cli.add_command(explore)
cli.add_command(serve)


@cli.group()
def data() -> None:
    """Make data, and look at data before a training."""


@cli.group()
def rank() -> None:
    """Fine-tune a ranker on several labels at once, and use it at any weights."""


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What every ``rank`` command that reads data takes."""
    options = (
        click.option("--preset", help="Label columns of a known data set: mslr or mslr_inverted_quality."),
        click.option("--config", "config_file", type=PATH, help="YAML file; see docs/ranking.md."),
        click.option("--objectives", callback=names_of, metavar="A,B", help="Only these objectives, in this order."),
        click.option(
            "--base-scores",
            metavar="COLUMN|FILE",
            help="Scores of your own ranker: a column, or a file with one per row.",
        ),
        *table_options(),
        click.option("--cpu", is_flag=True, help="Do not use a GPU."),
    )
    return add_options(*options)(command)


def given(**settings: Any) -> dict[str, Any]:
    """Those of the settings that were given."""
    return {name: value for name, value in settings.items() if value is not None}


#: Settings of the paper.
paper_option = click.option(
    "--paper", is_flag=True, help="The paper's setting: scratch, w beside the features, one w per batch."
)
temperature_option = click.option(
    "--temperature",
    "temperatures",
    callback=numbers_of,
    metavar="B,B",
    help="β, one per objective: any with the parametrizations mixture and temperature, multiples of the run's with the "
    "others.  [default: the run's]",
)


@data.command("generate")
@click.argument("out", type=PATH)
@click.option("--queries", type=int, required=True, help="Number of queries (groups).")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of one seed, a smaller file is the start of a larger one."
)
@click.option("--oracle", type=PATH, help="Also write the labels' expectations, as CSV.")
def generate_data(out: Path, queries: int, seed: int, oracle: Path | None) -> None:
    """Write MSLR-format text to OUT: 131 features, relevance, and five labels that conflict by construction.

    Another seed gives features another meaning, and a smaller file of the same seed holds the same queries: neither is
    a test file. Test on the groups that a fit holds out, or on queries cut off the end of a larger file.
    """
    from hyperdpo.data.synthetic import generate
    from hyperdpo.progress import progress_bar

    with progress_bar("generate", queries, "queries") as update:
        documents = generate(out, queries, seed, oracle, progress=update)
    click.echo(f"{out}: {queries} queries, {documents} documents")


@data.command("check")
@click.argument("source", metavar="FILE", type=PATH)
@click.option("--validation", type=PATH, help="For a ranker: validation groups, instead of a split of FILE.")
@click.option("--test", type=PATH, help="For a ranker: test groups, instead of a split of FILE.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting of the fit.")
@click.option("--format", type=click.Choice(PREFERENCE_FORMATS), default="auto", help="For a language model: of FILE.")
@add_options(*reading_options("For a language model: "))
@data_options
def check_data(
    source: Path,
    settings: tuple[str, ...],
    format: str,
    prompt_column: str | None,
    ignore_columns: list[str] | None,
    skip_invalid: bool,
    **options: Any,
) -> None:
    """Say what FILE holds and what a fit would make of it, without training: layout, groups, features, labels, and what
    would be left out. Exit code 2, with the reason, where a fit would refuse it.

    FILE is data of a ranker (LETOR text, CSV, Parquet, with the labels that --config, --preset or --objectives name),
    or preferences of a language model (JSON lines, Parquet). Either may be a directory with a file for each part.
    """
    from hyperdpo.data_check import check_preferences, check_table, is_preferences

    options.pop("cpu")
    reading = {"prompt_column": prompt_column, "ignore_columns": ignore_columns, "skip_invalid": skip_invalid}
    if is_preferences(source, options, {"format": format, **reading}):
        check_preferences(source, format=format, reading=reading, options=options, settings=overrides_of(settings))
    else:
        check_table(source, settings=overrides_of(settings), reading={"format": format, **reading}, **options)


@rank.command("fit")
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--out", type=PATH, required=True, help="Run directory; an interrupted run goes on.")
@data_options
@click.option(
    "--parametrization",
    type=click.Choice(["scratch", "augmentation", "mixture", "temperature"]),
    help="Of the ranker; see docs/ranking.md.  [default: mixture]",
)
@paper_option
@click.option("--validation", type=PATH, help="Validation groups, instead of a split of DATA.")
@click.option("--test", type=PATH, help="Test groups, instead of a split of DATA.")
@click.option("--seed", type=int, help="Of initialisation, order and sampled weights.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, such as training.epochs=20.")
@click.option("--precision", type=click.Choice(["auto", "no", "bf16"]), help="Mixed precision.  [default: auto]")
@click.option("--track", help="Trackers: tensorboard, wandb; logs go to OUT/logs.")
@click.option("--overwrite", is_flag=True, help="Start again where OUT holds a run.")
def rank_fit(
    source: Path,
    out: Path,
    preset: str | None,
    config_file: Path | None,
    objectives: list[str] | None,
    base_scores: str | None,
    sort: bool,
    features_from_zero: bool,
    cpu: bool,
    parametrization: str | None,
    paper: bool,
    validation: Path | None,
    test: Path | None,
    seed: int | None,
    settings: tuple[str, ...],
    precision: str | None,
    track: str | None,
    overwrite: bool,
) -> None:
    """Train one ranker for all weightings of the objectives in DATA.

    DATA is LETOR/MSLR text, CSV (either may be .gz, .bz2 or .zst) or Parquet, or a directory with train, vali and test
    files. Without --base-scores a base ranker is trained on the main label first.
    """
    from hyperdpo.ranking.commands import fit_command
    from hyperdpo.ranking.config import build_config

    overrides = overrides_of(settings)
    overrides |= given(
        seed=seed, parametrization=parametrization, sort=sort or None, features_from_zero=features_from_zero or None
    )
    if precision is not None:
        for part in ("training", "base_training"):
            if isinstance(overrides.setdefault(part, {}), dict):  # anything else is refused below
                overrides[part]["precision"] = precision
    config = build_config(
        preset=preset, config_file=config_file, objectives=objectives, overrides=overrides, paper=paper
    )
    fit_command(
        source,
        config,
        out,
        validation=validation,
        test=test,
        base_scores=base_scores,
        cpu=cpu,
        track=track,
        overwrite=overwrite,
    )


@rank.command("front")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--points", type=int, default=11, show_default=True, help="Weightings on the front.")
@click.option(
    "--scales",
    callback=numbers_of,
    default="1",
    show_default=True,
    metavar="C,C",
    help="Scales c: above 1 is nearer to the base.",
)
@temperature_option
@click.option("--out", type=PATH, help="FRONT.json to write.")
@click.option("--plot", type=PATH, help="PNG (or PDF, SVG) to draw.")
@click.option(
    "--oracle", type=PATH, help="Oracle file of generated data: report the fraction of its front that is attained."
)
@click.option(
    "--split",
    type=click.Choice(["auto", "all", "train", "validation", "test"]),
    default="auto",
    show_default=True,
    help="auto: the test groups of the training data, all groups of other data.",
)
@click.option("--k", type=click.IntRange(min=1), help="NDCG@k, instead of the run's.")
@click.option("--gain", type=click.Choice(["linear", "exponential"]), help="NDCG's gain, instead of the run's.")
@click.option(
    "--empty", type=click.Choice(["skip", "one", "zero"]), help="Groups without a positive label, instead of the run's."
)
@data_options
def rank_front(
    run_path: Path,
    source: Path,
    points: int,
    scales: list[float],
    temperatures: list[float] | None,
    out: Path | None,
    plot: Path | None,
    oracle: Path | None,
    split: str,
    k: int | None,
    gain: str | None,
    empty: str | None,
    **data: Any,
) -> None:
    """Measure the front of RUN on DATA: NDCG of every objective, and of the main label, at each weighting."""
    from hyperdpo.ranking.commands import front_command

    metric = {name: value for name, value in (("k", k), ("gain", gain), ("empty", empty)) if value is not None}
    front_command(
        run_path,
        source,
        points=points,
        scales=scales,
        temperatures=temperatures,
        out=out,
        plot=plot,
        oracle=oracle,
        split=split,
        metric=metric,
        **data,
    )


@rank.command("compare")
@click.argument("source", metavar="DATA", type=PATH)
@click.option(
    "--methods",
    callback=names_of,
    default="hyperdpo,dpo-ls,dpo-soup,mo-dpo",
    show_default=True,
    metavar="A,B",
    help=f"Some of {described(VARIANTS)}; with a variant as hyperdpo:paper. See docs/ranking.md.",
)
@click.option(
    "--out", type=PATH, required=True, help="Directory for trainings, compare.json and compare.png; goes on there."
)
@click.option("--points", type=int, default=11, show_default=True, help="Weightings on each front.")
@click.option(
    "--seeds", type=int, help="Repeats, each with a seed of its own.  [default: one per fold; 3 of one split]"
)
@click.option("--folds", type=int, default=0, metavar="K", help="Cross-validation over the groups of a file.")
@click.option("--oracle", type=PATH, help="Oracle file of generated data: report the fraction attained.")
@click.option("--seed", type=int, help="The first seed.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any setting, of all methods but those that have it of their own (a note says so).",
)
@paper_option
@data_options
def rank_compare(
    source: Path,
    methods: list[str],
    out: Path,
    points: int,
    seeds: int | None,
    folds: int,
    oracle: Path | None,
    seed: int | None,
    settings: tuple[str, ...],
    paper: bool,
    preset: str | None,
    config_file: Path | None,
    objectives: list[str] | None,
    base_scores: str | None,
    sort: bool,
    features_from_zero: bool,
    cpu: bool,
) -> None:
    """Train and measure methods side by side on DATA: same split, base, weights, temperatures.

    DATA is a file, a directory with train, vali and test files, or one of Fold1 to Fold5. A finished training is kept
    in OUT and never run again. --base-scores lightgbm trains a LambdaMART on the main label as the base.
    """
    from hyperdpo.ranking.commands import compare_command
    from hyperdpo.ranking.config import build_config

    overrides = overrides_of(settings)
    overrides |= given(seed=seed, sort=sort or None, features_from_zero=features_from_zero or None)
    config = build_config(
        preset=preset, config_file=config_file, objectives=objectives, overrides=overrides, paper=paper
    )
    compare_command(
        source,
        config,
        out,
        methods=methods,
        given=overrides,
        points=points,
        seeds=seeds,
        folds=folds,
        oracle=oracle,
        base_scores=base_scores,
        cpu=cpu,
    )


@rank.command("score")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option(
    "--weights",
    required=True,
    metavar="W,W",
    help="One per objective, sum 1: .3,.7, or by name: clicks=.3,quality=.7 (others 0).",
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="c: above 1 is nearer to the base.")
@temperature_option
@click.option("--out", type=PATH, help="One score per row, as text or .npy; standard output if left out.")
@data_options
def rank_score(
    run_path: Path,
    source: Path,
    weights: str,
    scale: float,
    temperatures: list[float] | None,
    out: Path | None,
    **data: Any,
) -> None:
    """Score all rows of DATA at one weighting, scale and temperature."""
    from hyperdpo.ranking.commands import score_command

    score_command(run_path, source, weights=weights, scale=scale, temperatures=temperatures, out=out, **data)


@cli.command("export")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.option("--out", type=PATH, required=True, help="File of a ranker, directory of a language model.")
@click.option("--format", help="Ranker: onnx, torch; language model: merged, peft.  [default: the first of them]")
@click.option("--weights", metavar="W,W", help="Language model: the point to freeze, .3,.7 or NAME=.3,NAME=.7.")
@click.option(
    "--temperature",
    "temperatures",
    callback=numbers_of,
    metavar="B,B",
    help="Ranker: β to freeze, one per objective.  [default: the run's; an input with the parametrization temperature]",
)
@click.option("--model", help="Language model: base model, instead of the one the run was trained on.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
def export(
    run_path: Path,
    out: Path,
    format: str | None,
    weights: str | None,
    temperatures: list[float] | None,
    model: str | None,
    overwrite: bool,
) -> None:
    """Write RUN as a file that is served without this package; see docs/serving.md.

    A ranker becomes ONNX (or torch.export), with weights and scale as inputs. A language model becomes a transformers
    checkpoint, or a PEFT adapter, at the weights that are given.
    """
    from hyperdpo.serving.commands import export_command

    export_command(
        run_path, out, format=format, weights=weights, temperatures=temperatures, model=model, overwrite=overwrite
    )


@cli.command("experiment")
@click.argument("name", required=False)
@click.option(
    "--data", "source", type=PATH, help="File, fold directory, or directory of Fold1..5; generated if left out."
)
@click.option("--out", type=PATH, default=Path("experiments"), show_default=True, help="Reports, JSON and trainings.")
@click.option("--seeds", type=int, help="Repeats.  [default: 3, or one for each fold]")
@click.option("--folds", type=int, default=0, metavar="K", help="Cross-validation over the groups of a file.")
@click.option("--queries", type=int, help="Size of the generated data; prompts, for a language model.")
@click.option("--oracle", type=PATH, help="Oracle file of generated data.")
@click.option("--model", help="Language model: a checkpoint or a hub name; a small one is trained if left out.")
@click.option("--small", is_flag=True, help="A tiny instance, to see that it runs.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, of all methods.")
@data_options
def experiment(
    name: str | None,
    source: Path | None,
    out: Path,
    seeds: int | None,
    folds: int,
    queries: int | None,
    oracle: Path | None,
    model: str | None,
    small: bool,
    settings: tuple[str, ...],
    sort: bool,
    features_from_zero: bool,
    **data: Any,
) -> None:
    """Run the experiment NAME: a table or figure of the paper, or a look beyond it. Without NAME, list them."""
    from hyperdpo.experiments.registry import EXPERIMENTS, LANGUAGE

    if name is None or name == "list":
        for known, (_, what) in EXPERIMENTS.items():
            click.echo(f"{known:<12}{what}")
        return
    if name in LANGUAGE:
        check_extra()
        others = {
            "--folds": folds,
            "--oracle": oracle,
            "--preset": data["preset"],
            "--base-scores": data["base_scores"],
            "--sort": sort,
            "--features-from-zero": features_from_zero,
        }
        for option, value in others.items():
            if value:
                raise InputError(f"{option}: {name} is about a language model, which has none; expected it left out")
        from hyperdpo.experiments.running_language import run_language_experiment

        run_language_experiment(
            name,
            out=out,
            data=source,
            model=model,
            config_file=data["config_file"],
            objectives=data["objectives"],
            overrides=overrides_of(settings),
            seeds=seeds,
            prompts=queries,
            small=small,
            cpu=data["cpu"],
        )
        return
    if model is not None:
        raise InputError(f"--model: {name} is about rankers; expected it left out")
    from hyperdpo.experiments.running import run_experiment

    run_experiment(
        name,
        out=out,
        data=source,
        overrides=overrides_of(settings) | given(sort=sort or None, features_from_zero=features_from_zero or None),
        seeds=seeds,
        folds=folds,
        queries=queries,
        small=small,
        oracle=oracle,
        **data,
    )


@cli.command("demo")
@click.option("--align", is_flag=True, help="Of a language model instead of a ranker.")
@click.option(
    "--out", type=PATH, help="Directory for data, run, front and report.  [default: demo, with --align demo-align]"
)
@click.option("--queries", type=int, help="Size of the generated data.  [default: 600, with --align 480 prompts]")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting of the fit.")
def demo(align: bool, out: Path | None, queries: int | None, seed: int, settings: tuple[str, ...]) -> None:
    """The whole way on generated data: data, base, fit, front, plots, report."""
    if align:
        check_extra()
        from hyperdpo.alignment.demo import run_align_demo

        directory = Path("demo-align") if out is None else out
        run_align_demo(directory, prompts=queries or 480, seed=seed, overrides=overrides_of(settings))
        return
    from hyperdpo.demo import run_demo

    run_demo(out or Path("demo"), queries=queries or 600, seed=seed, overrides=overrides_of(settings))


if __name__ == "__main__":
    sys.exit(main())
