"""``hyperdpo align``: the commands' options. What they do is in :mod:`hyperdpo.alignment.commands`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from hyperdpo.alignment.variants import VARIANTS
from hyperdpo.errors import InputError
from hyperdpo.options import (
    PATH,
    PREFERENCE_FORMATS,
    described,
    names_of,
    numbers_of,
    overrides_of,
    reading_options,
)


@click.group()
def align() -> None:
    """Fine-tune a language model on several preference objectives at once, and use it at any weights."""


def check_extra() -> None:
    """One line, before anything is read, where the extra is missing."""
    for package in ("transformers", "peft"):
        if find_spec(package) is None:
            raise InputError(f"{package} is not installed; expected it, from pip install 'hyperdpo[align]'")


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How DATA is read."""
    formats = click.Choice(PREFERENCE_FORMATS)
    layout = click.option("--format", type=formats, default="auto", show_default=True, help="Of DATA.")
    for option in reversed((layout, *reading_options())):
        command = option(command)
    return command


cpu_option = click.option("--cpu", is_flag=True, help="Do not use a GPU.")
model_option = click.option("--model", help="Base model, instead of the one the run was trained on.")


@align.command("fit")
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--model", required=True, help="A local checkpoint or a hub name.")
@click.option("--out", type=PATH, required=True, help="Run directory; an interrupted run goes on there.")
@click.option("--config", "config_file", type=PATH, help="YAML file with objectives, conditioning, training, split.")
@click.option("--objectives", callback=names_of, metavar="A,B", help="Only these objectives, in this order.")
@click.option("--beta", type=float, help="Temperature of all objectives.  [default: 0.1]")
@click.option("--epochs", type=float, help="Passes over the training groups.  [default: 4]")
@click.option("--seed", type=int, help="Of initialisation, order and sampled weights.  [default: 42]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting: training.learning_rate=1e-3.")
@click.option("--overwrite", is_flag=True, help="Replace a finished run.")
@data_options
@cpu_option
def align_fit(
    source: Path,
    model: str,
    out: Path,
    config_file: Path | None,
    objectives: list[str] | None,
    beta: float | None,
    epochs: float | None,
    seed: int | None,
    settings: tuple[str, ...],
    overwrite: bool,
    format: str,
    prompt_column: str | None,
    ignore_columns: list[str] | None,
    skip_invalid: bool,
    cpu: bool,
) -> None:
    """Train one adapter of a causal language model for all weightings of the objectives in DATA.

    DATA is JSONL, JSON or Parquet: prompt, completions, labels {objective: [numbers]}; listwise scores; chosen and
    rejected; the columns of UltraFeedback, HelpSteer or PKU-SafeRLHF; or a directory with train and test files.
    docs/alignment.md has a table of what is read.
    """
    check_extra()
    from hyperdpo.alignment.commands import fit_command

    overrides = overrides_of(settings)
    for key, value in (("beta", beta), ("num_train_epochs", epochs), ("seed", seed)):
        if value is not None:
            overrides.setdefault("training", {})[key] = value
    fit_command(
        source,
        model,
        out,
        objectives=objectives,
        config_file=config_file,
        overrides=overrides,
        format=format,
        prompt_column=prompt_column,
        ignore_columns=ignore_columns,
        skip_invalid=skip_invalid,
        cpu=cpu,
        overwrite=overwrite,
    )


@align.command("front")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--points", type=int, default=11, show_default=True, help="Weightings on the front.")
@click.option("--scales", callback=numbers_of, default="1", show_default=True, metavar="C,C", help="Scales c.")
@click.option("--out", type=PATH, help="FRONT.json to write.")
@click.option("--plot", type=PATH, help="PNG (or PDF, SVG) to draw.")
@click.option(
    "--split",
    type=click.Choice(["auto", "all", "train", "validation", "test"]),
    default="auto",
    show_default=True,
    help="auto: the test groups of the training data, all groups of other data.",
)
@data_options
@model_option
@cpu_option
def align_front(
    run_path: Path,
    source: Path,
    points: int,
    scales: list[float],
    out: Path | None,
    plot: Path | None,
    split: str,
    format: str,
    prompt_column: str | None,
    ignore_columns: list[str] | None,
    skip_invalid: bool,
    model: str | None,
    cpu: bool,
) -> None:
    """Measure RUN on DATA: the cross-entropy error of every objective at each weighting."""
    check_extra()
    from hyperdpo.alignment.commands import front_command

    front_command(
        run_path,
        source,
        points=points,
        scales=scales,
        out=out,
        plot=plot,
        split=split,
        format=format,
        prompt_column=prompt_column,
        ignore_columns=ignore_columns,
        skip_invalid=skip_invalid,
        model=model,
        cpu=cpu,
    )


@align.command("compare")
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--model", required=True, help="A local checkpoint or a hub name.")
@click.option(
    "--methods",
    callback=names_of,
    default="hyperdpo,dpo-ls,dpo-soup,mo-dpo,logit-mixing",
    show_default=True,
    metavar="A,B",
    help=f"Some of {described(VARIANTS)}; with a variant as hyperdpo:prompt. See docs/alignment.md.",
)
@click.option(
    "--out", type=PATH, required=True, help="Directory for trainings, compare.json and compare.png; goes on there."
)
@click.option("--points", type=click.IntRange(min=2), default=11, show_default=True, help="Weightings on each front.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Repeats; each has a seed and split of its own.")
@click.option("--seed", type=int, help="The first seed.  [default: 0]")
@click.option(
    "--scorer",
    metavar="NAME",
    help="Scores sampled texts: package.module:function, from prompts and texts to (N, m) numbers, or "
    "classifiers:PATH,PATH.  [default: text measures, where all objectives are such]",
)
@click.option("--prompts", type=click.IntRange(min=1), default=160, show_default=True, help="Most that texts follow.")
@click.option("--samples", type=click.IntRange(min=1), default=4, show_default=True, help="Texts of each prompt.")
@click.option("--tokens", type=click.IntRange(min=1), default=48, show_default=True, help="Length of a text.")
@click.option("--config", "config_file", type=PATH, help="YAML file; see docs/alignment.md.")
@click.option("--objectives", callback=names_of, metavar="A,B", help="Only these objectives, in this order.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, of all methods.")
@data_options
@cpu_option
def align_compare(
    source: Path,
    model: str,
    methods: list[str],
    out: Path,
    points: int,
    seeds: int,
    seed: int | None,
    scorer: str | None,
    prompts: int,
    samples: int,
    tokens: int,
    config_file: Path | None,
    objectives: list[str] | None,
    settings: tuple[str, ...],
    format: str,
    prompt_column: str | None,
    ignore_columns: list[str] | None,
    skip_invalid: bool,
    cpu: bool,
) -> None:
    """Train and measure methods side by side on DATA: same base, splits, weights, temperatures.

    A finished training is kept in OUT and never run again.
    """
    check_extra()
    from hyperdpo.alignment.commands import compare_command

    overrides = overrides_of(settings)
    if seed is not None:
        overrides.setdefault("training", {})["seed"] = seed
    compare_command(
        source,
        model,
        out,
        methods=methods,
        points=points,
        seeds=seeds,
        objectives=objectives,
        config_file=config_file,
        overrides=overrides,
        format=format,
        prompt_column=prompt_column,
        ignore_columns=ignore_columns,
        skip_invalid=skip_invalid,
        scorer=scorer,
        sizes={"prompts": prompts, "samples": samples, "tokens": tokens},
        cpu=cpu,
    )


@align.command("generate")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.option(
    "--weights",
    multiple=True,
    required=True,
    metavar="W,W",
    help="One per objective, sum 1, or NAME=W,NAME=W; may be given several times, for answers side by side.",
)
@click.option("--prompt", "prompts", multiple=True, required=True, help="May be given several times.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="c: above 1 is nearer to the base.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--sample/--greedy", default=False, show_default=True)
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the sampling.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per answer.")
@model_option
@cpu_option
def align_generate(
    run_path: Path,
    weights: tuple[str, ...],
    prompts: tuple[str, ...],
    scale: float,
    max_new_tokens: int,
    sample: bool,
    temperature: float,
    seed: int,
    as_json: bool,
    model: str | None,
    cpu: bool,
) -> None:
    """Continue prompts at any weights; all in one batch."""
    check_extra()
    from hyperdpo.alignment.commands import generate_command

    generate_command(
        run_path,
        prompts=prompts,
        weights=weights,
        scale=scale,
        max_new_tokens=max_new_tokens,
        sample=sample,
        temperature=temperature,
        seed=seed,
        model=model,
        as_json=as_json,
        cpu=cpu,
    )
