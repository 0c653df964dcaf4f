"""``hyperdpo rank``: the commands' options. What they do is in :mod:`hyperdpo.ranking.commands`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hyperdpo.options import (
    PATH,
    WHOLE,
    WholeRange,
    beta_option,
    numbers_of,
    ranker_data_options,
    setting,
    settings_option,
    take_settings,
)

if TYPE_CHECKING:
    from hyperdpo.ranking.config import RankConfig

#: Options that are settings of a configuration, and which.
SETTINGS = {"seed": ("seed",), "sort": ("sort",), "features_from_zero": ("features_from_zero",)}
FIT_SETTINGS = {
    "parametrization": ("parametrization",),
    "precision": ("training.precision", "base_training.precision"),
}


@click.group()
def rank() -> None:
    """Fine-tune a ranker on several labels at once, and use it at any weights."""


#: Settings of the paper.
paper_option = click.option(
    "--paper", is_flag=True, help="The paper's setting: scratch, w beside the features, one w per batch."
)
run_beta_option = beta_option(
    "β, one per objective: any with mixture.form product and the parametrization temperature, none with mixture.form "
    "gain, else multiples of the run's.  [default: the run's]"
)
main_share_option = click.option(
    "--main-share",
    type=float,
    metavar="L",
    help="λ, the main label's share, for a run of mixture.form gain.  [default: the run's]",
)


def config_of(options: dict[str, Any], overrides: dict[str, Any]) -> RankConfig:
    """Take what names a configuration out of the options, and read it."""
    from hyperdpo.ranking.config import build_config

    named = {name: options.pop(name) for name in ("preset", "config_file", "objectives", "paper")}
    return build_config(overrides=overrides, **named)


@rank.command("fit")
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--out", type=PATH, required=True, help="Run directory; an interrupted run is resumed.")
@ranker_data_options
@setting(
    "--parametrization",
    click.Choice(["scratch", "augmentation", "mixture", "temperature"]),
    "ranking.config:RankConfig.parametrization",
    "How the ranker takes weights; see docs/ranking.md.",
)
@paper_option
@click.option("--validation", type=PATH, help="Validation groups, instead of a split of DATA.")
@click.option("--test", type=PATH, help="Test groups, instead of a split of DATA.")
@setting("--seed", int, "ranking.config:RankConfig.seed", "Seed of initialisation, order and sampled weights.")
@settings_option("Any setting, such as training.epochs=20.")
@setting(
    "--precision", click.Choice(["auto", "no", "bf16"]), "ranking.config:TrainingConfig.precision", "Mixed precision."
)
@click.option("--track", help="Trackers: tensorboard, wandb; logs go to OUT/logs.")
@click.option("--overwrite", is_flag=True, help="Start again where OUT holds a run.")
def rank_fit(**options: Any) -> None:
    """Train one ranker for all weightings of the objectives in DATA.

    DATA is LETOR/MSLR text, CSV (either may be .gz, .bz2 or .zst) or Parquet, or a directory with train, vali and test
    files. Without --base-scores a base ranker is trained on the main label first.
    """
    from hyperdpo.ranking.commands import fit_command

    overrides = take_settings(options, {**SETTINGS, **FIT_SETTINGS})
    config = config_of(options, overrides)
    fit_command(config=config, **options)


@rank.command("front")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--points", type=WHOLE, default=11, show_default=True, help="Weightings on the front.")
@click.option(
    "--scales",
    callback=numbers_of,
    default="1",
    show_default=True,
    metavar="C,C",
    help="Scales c: above 1 is nearer to the base.",
)
@run_beta_option
@main_share_option
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
@click.option("--k", type=WholeRange(min=1), help="NDCG@k, instead of the run's.")
@click.option("--gain", type=click.Choice(["linear", "exponential"]), help="NDCG's gain, instead of the run's.")
@click.option(
    "--empty", type=click.Choice(["skip", "one", "zero"]), help="Groups without a positive label, instead of the run's."
)
@ranker_data_options
def rank_front(**options: Any) -> None:
    """Measure the front of RUN on DATA: NDCG of every objective, and of the main label, at each weighting."""
    from hyperdpo.ranking.commands import front_command

    metric = {name: options.pop(name) for name in ("k", "gain", "empty")}
    front_command(metric={name: value for name, value in metric.items() if value is not None}, **options)


@rank.command("score")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option(
    "--weights", metavar="W,W", help="One per objective, sum 1: .3,.7, or by name: clicks=.3,quality=.7 (others 0)."
)
@click.option(
    "--components",
    type=PATH,
    metavar="OUT",
    help="Write one column per objective instead, whose weighted sum ranks as the run does at any weights: .parquet, "
    ".csv or .npy.",
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="c: above 1 is nearer to the base.")
@run_beta_option
@main_share_option
@click.option("--out", type=PATH, help="One score per row, as text or .npy; standard output if left out.")
@click.option(
    "--engine",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="dask: DATA is a directory of Parquet files, and --out or --components a directory of as many or more.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of Dask, such as tcp://host:8786.  [default: this machine]")
@click.option("--workers", type=WholeRange(min=1), help="Processes of --engine dask.  [default: one per free core]")
@click.option(
    "--partition-rows",
    type=WholeRange(min=1),
    metavar="N",
    help="Rows that a worker of --engine dask holds at a time, rounded up to whole groups.  [default: 1,000,000]",
)
@ranker_data_options
def rank_score(**options: Any) -> None:
    """Score all rows of DATA at one weighting, scale and temperature; or write columns for all weightings."""
    from hyperdpo.ranking.commands import score_command

    score_command(**options)


@rank.command("explain")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--query", required=True, metavar="Q", help="The id of the query whose list is explained.")
@click.option(
    "--weights",
    metavar="W,W",
    help="One per objective, sum 1: .3,.7, or by name: clicks=.3,quality=.7 (others 0).  [default: all the same]",
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="c: above 1 is nearer to the base.")
@main_share_option
@click.option(
    "--top", type=WholeRange(min=1), default=10, show_default=True, help="Documents to print; --out has them all."
)
@click.option("--out", type=PATH, help="JSON file to write.")
@ranker_data_options
def rank_explain(**options: Any) -> None:
    """Say which objective put each document of a query where it is, and at which weights it swaps with the next.

    Labels are not needed. For a run with trees, the features that made the difference are named, too.
    """
    from hyperdpo.ranking.commands import explain_command

    explain_command(**options)
