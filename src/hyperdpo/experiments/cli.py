"""``hyperdpo experiment``: its options. What it does is in :mod:`hyperdpo.experiments.running`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hyperdpo.errors import InputError
from hyperdpo.extras import require
from hyperdpo.options import PATH, WHOLE, WholeRange, ranker_data_options, settings_option, take_settings

#: Options that are settings of a ranker's configuration, and which.
RANKER_SETTINGS = {"sort": ("sort",), "features_from_zero": ("features_from_zero",)}
#: Options that a language model has no use for, and those that rankers have no use for.
RANKER_ONLY = ("folds", "oracle", "preset", "base_scores", "sort", "features_from_zero")
LANGUAGE_ONLY = ("model", "points")


@click.command("experiment")
@click.argument("name", required=False)
@click.option(
    "--data",
    type=PATH,
    help="Rankers: a file, a fold directory, or a directory of Fold1..5. Language models: preferences; real, "
    "real-pair2 and real-triple also take prompts. If left out, data are generated; real* read a file below "
    "HYPERDPO_DATA.",
)
@click.option("--out", type=PATH, default=Path("experiments"), show_default=True, help="Reports, JSON and trainings.")
@click.option(
    "--seeds", type=WHOLE, help="Repeats.  [default: 3, or one for each fold; of real 2, of the other real* 1]"
)
@click.option(
    "--points",
    type=WholeRange(min=2),
    help="Language model: weightings on each front.  [default: 11; of real 3, of real-triple 6]",
)
@click.option("--folds", type=WHOLE, default=0, metavar="K", help="Cross-validation over the groups of a file.")
@click.option(
    "--queries",
    type=WHOLE,
    help="Size of the generated data; prompts, for a language model. real*: at most so many prompts of the file.",
)
@click.option("--oracle", type=PATH, help="Oracle file of generated data.")
@click.option(
    "--model",
    help="Language model: a checkpoint, a GGUF file or a hub name; real* need one. Left out, a small one is trained.",
)
@click.option("--small", is_flag=True, help="A tiny instance, to see that it runs.")
@settings_option("Any setting, of all methods.")
@ranker_data_options
def experiment(name: str | None, **options: Any) -> None:
    """Run the experiment NAME: a table or figure of the paper, or a look beyond it. Without NAME, list them."""
    from hyperdpo.experiments.registry import EXPERIMENTS, LANGUAGE

    if name is None or name == "list":
        for known, (_, what) in EXPERIMENTS.items():
            click.echo(f"{known:<12}{what}")
        return
    if name in LANGUAGE:
        require("align")
        for option in RANKER_ONLY:
            if options.pop(option):
                said = f"--{option.replace('_', '-')}"
                raise InputError(f"{said}: {name} is about a language model, which has none; leave it out")
    else:
        for option in LANGUAGE_ONLY:
            if options.pop(option) is not None:
                raise InputError(f"--{option}: {name} is about rankers; leave it out")
        options["overrides"] = take_settings(options, RANKER_SETTINGS)
    from hyperdpo.experiments.running import run_experiment

    run_experiment(name, **options)
