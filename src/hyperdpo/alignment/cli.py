"""``hyperdpo align``: the commands' options. What they do is in :mod:`hyperdpo.alignment.commands`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hyperdpo.extras import require
from hyperdpo.options import (
    PATH,
    PREFERENCE_FORMATS,
    WHOLE,
    WholeRange,
    add_options,
    cpu_option,
    names_of,
    numbers_of,
    reading_options,
    scorer_option,
    setting,
    settings_option,
    take_settings,
)

#: Options that are settings of a training, and which.
SEED = {"seed": ("training.seed",)}
FIT_SETTINGS = {"beta": ("training.beta",), "epochs": ("training.num_train_epochs",)}
TEXTS = {name: (f"texts.{name}",) for name in ("prompts", "samples", "tokens")}


@click.group()
def align() -> None:
    """Fine-tune a language model on several preference objectives at once, and use it at any weights."""


def _commands() -> Any:
    """What the commands do: imported where one runs, and the extra with it."""
    require("align")
    from hyperdpo.alignment import commands

    return commands


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How DATA is read."""
    formats = click.Choice(PREFERENCE_FORMATS)
    layout = click.option("--format", type=formats, default="auto", show_default=True, help="Layout of DATA.")
    return add_options(layout, *reading_options())(command)


model_option = click.option("--model", help="Base model, instead of the one the run was trained on.")


@align.command("fit")
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--model", help="A local checkpoint, a GGUF file or a hub name.  [default: `model` of --config]")
@click.option("--out", type=PATH, required=True, help="Run directory; an interrupted run is resumed.")
@click.option("--config", "config_file", type=PATH, help="YAML file; see docs/settings.md.")
@click.option("--objectives", callback=names_of, metavar="A,B", help="Only these objectives, in this order.")
@setting("--beta", float, "alignment.settings:BETA", "Temperature of all objectives.")
@setting("--epochs", float, "alignment.settings:EPOCHS", "Passes over the training groups.")
@setting("--seed", int, "alignment.settings:SEED", "Seed of initialisation, order and sampled weights.")
@settings_option("Any setting: training.learning_rate=1e-3.")
@click.option(
    "--portable",
    is_flag=True,
    help="Refuse settings of an adapter that `export --format vertices` and gguf cannot write.",
)
@click.option("--overwrite", is_flag=True, help="Replace a finished run.")
@data_options
@cpu_option
def align_fit(**options: Any) -> None:
    """Train one adapter of a causal language model for all weightings of the objectives in DATA.

    DATA is JSONL, JSON or Parquet: prompt, completions, labels {objective: [numbers]}; listwise scores; chosen and
    rejected; the columns of UltraFeedback, HelpSteer or PKU-SafeRLHF; or a directory with train and test files.
    docs/alignment.md has a table of what is read.
    """
    overrides = take_settings(options, {**SEED, **FIT_SETTINGS})
    _commands().fit_command(overrides=overrides, **options)


@align.command("front")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--points", type=WHOLE, default=11, show_default=True, help="Weightings on the front.")
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
def align_front(**options: Any) -> None:
    """Measure RUN on DATA: the cross-entropy error of every objective at each weighting."""
    _commands().front_command(**options)


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
@click.option(
    "--max-new-tokens",
    type=WholeRange(min=1),
    default=64,
    show_default=True,
    help="The most tokens that an answer may have.",
)
@click.option("--sample/--greedy", default=False, show_default=True, help="Sample, or take the likeliest token.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    help="Temperature of the sampling; needs --sample.  [default: 1.0]",
)
@click.option("--seed", type=WHOLE, help="Seed of the sampling; needs --sample.  [default: 0]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per answer.")
@model_option
@cpu_option
def align_generate(**options: Any) -> None:
    """Continue prompts at any weights; all in one batch."""
    _commands().generate_command(**options)


@align.command("sample")
@click.argument("model")
@click.option(
    "--prompts-file",
    type=PATH,
    required=True,
    help="JSONL, JSON or Parquet with a prompt in each row, a text or messages; or .txt with one per line.",
)
@click.option("--responses", type=WHOLE, default=4, show_default=True, help="Different answers to each prompt.")
@scorer_option("none; at least one is needed")
@click.option("--out", type=PATH, required=True, help="JSONL file to write; a stopped command is resumed.")
@click.option("--system", metavar="TEXT", help="System message, for prompts that have none.")
@click.option("--prompt-column", metavar="NAME", help="The column that holds the prompt.")
@click.option("--limit", type=WholeRange(min=1), help="Only so many prompts.")
@click.option("--offset", type=WholeRange(min=0), default=0, show_default=True, help="Pass over so many prompts.")
@click.option("--max-new-tokens", type=WHOLE, default=128, show_default=True, help="The most tokens of an answer.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="1 is the model's own distribution.")
@click.option("--seed", type=WHOLE, default=0, show_default=True, help="Seed of all answers.")
@click.option("--batch-size", type=WHOLE, default=64, show_default=True, help="Answers that are sampled at once.")
@click.option(
    "--precision",
    type=click.Choice(["no", "bf16"]),
    default="no",
    show_default=True,
    help="no: that of MODEL. bf16 is faster on a device with instructions for it.",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT, and what was kept of a stopped command.")
@cpu_option
def align_sample(**options: Any) -> None:
    """Sample answers of MODEL to prompts and score them: a preference set that `align fit` reads.

    MODEL is a local checkpoint, a GGUF file or a hub name. Prompts go through its chat template, if it has one. The
    answers to a prompt depend on the seed and the prompt, not on other prompts. An answer that ran into
    --max-new-tokens is marked (truncated) and ends with its last whole word. Each --scorer makes an objective.
    """
    _commands()
    from hyperdpo.alignment.sample_command import sample_command

    sample_command(**options)


@align.command("score")
@click.argument("source", metavar="FILE", type=PATH)
@scorer_option("none; at least one is needed")
@click.option("--out", type=PATH, required=True, help="JSONL file to write.")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
def align_score(**options: Any) -> None:
    """Score the answers of FILE again: the same groups, with the labels of these scorers instead of their own.

    FILE is in the layout `groups`, as `align sample` writes it.
    """
    _commands()
    from hyperdpo.alignment.sample_command import score_command

    score_command(**options)


@align.command("improve")
@click.argument("run_path", metavar="RUN", type=PATH)
@click.option(
    "--prompts-file",
    type=PATH,
    required=True,
    help="JSONL, JSON or Parquet with a prompt in each row, a text or messages; or .txt with one per line.",
)
@scorer_option("those of the objectives' names, where there are such")
@click.option(
    "--rounds",
    type=WholeRange(min=0),
    default=2,
    show_default=True,
    help="0 only measures RUN. More than there are goes on.",
)
@click.option("--out", type=PATH, required=True, help="Directory of the rounds; a stopped command is resumed.")
@click.option("--responses", type=WHOLE, default=4, show_default=True, help="Answers to each prompt in each round.")
@click.option(
    "--held-out",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of the prompts that are measured and not trained on.",
)
@click.option(
    "--weights-per",
    type=click.Choice(["answer", "prompt"]),
    default="answer",
    show_default=True,
    help="Each answer is sampled at a w of its own, or the answers to a prompt share one.",
)
@click.option(
    "--sample-from",
    type=click.Choice(["model", "base"]),
    default="model",
    show_default=True,
    help="base: as many answers of the base model instead, for comparison.",
)
@click.option("--data", type=PATH, help="Preferences to train on beside the answers; of RUN's own, the training part.")
@click.option("--system", metavar="TEXT", help="System message, for prompts that have none.")
@click.option("--prompt-column", metavar="NAME", help="The column that holds the prompt.")
@click.option("--limit", type=WholeRange(min=1), help="Only so many prompts.")
@click.option("--max-new-tokens", type=WHOLE, default=128, show_default=True, help="The most tokens of an answer.")
@click.option("--temperature", type=float, default=1.0, show_default=True, help="Of the answers.")
@click.option("--seed", type=WHOLE, default=0, show_default=True, help="Seed of all answers.")
@click.option("--batch-size", type=WHOLE, default=64, show_default=True, help="Answers that are sampled at once.")
@click.option("--points", type=WholeRange(min=2), default=5, show_default=True, help="Weightings measured.")
@click.option(
    "--samples",
    type=WholeRange(min=1),
    default=4,
    show_default=True,
    help="Texts of each held-out prompt at each weighting.",
)
@settings_option(
    "Settings of the trainings: training.learning_rate=1e-3. The others are those of RUN. With training.bf16, answers "
    "are sampled in bf16, too."
)
@click.option("--overwrite", is_flag=True, help="Remove the rounds in OUT.")
@model_option
@cpu_option
def align_improve(**options: Any) -> None:
    """Go on training RUN on answers of its own, in rounds: sample at drawn weights, score, train, measure.

    Each round answers the prompts with the model of the round before, scores the answers, and trains the adapter
    further on the answers of all rounds. The base stays. Every round is a run in OUT/round-K. A table and
    OUT/rounds.json hold what its texts on held-out prompts score: mean inner product, hypervolume, mean scores at each
    weighting.
    """
    _commands()
    from hyperdpo.alignment.improve_command import improve_command

    improve_command(overrides=take_settings(options, {}), **options)
