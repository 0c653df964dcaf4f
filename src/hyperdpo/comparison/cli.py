"""``hyperdpo rank compare`` and ``align compare``: their options. What they do is in
:mod:`hyperdpo.comparison.commands`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hyperdpo.alignment.cli import SEED, TEXTS, data_options
from hyperdpo.comparison.entries import ALIGN_VARIANTS, RANK_VARIANTS, Variants, listed
from hyperdpo.extras import require
from hyperdpo.options import (
    PATH,
    WHOLE,
    WholeRange,
    cpu_option,
    names_of,
    ranker_data_options,
    scorer_option,
    setting,
    settings_option,
    take_settings,
)
from hyperdpo.ranking.cli import SETTINGS, config_of, paper_option

out_option = click.option(
    "--out",
    type=PATH,
    required=True,
    help="Directory for trainings, compare.json and compare.png; what it holds is not repeated.",
)


def methods_option(default: str, variants: Variants, *, example: str, page: str) -> Callable[..., Any]:
    """``--methods``."""
    return click.option(
        "--methods",
        callback=names_of,
        default=default,
        show_default=True,
        metavar="A,B",
        help=f"Some of {listed(variants)}; with a variant as {example}. See {page}.",
    )


@click.command("compare")
@click.argument("source", metavar="DATA", type=PATH)
@methods_option("hyperdpo,dpo-ls,dpo-soup,mo-dpo", RANK_VARIANTS, example="hyperdpo:paper", page="docs/ranking.md")
@out_option
@click.option("--points", type=WHOLE, default=11, show_default=True, help="Weightings on each front.")
@click.option(
    "--seeds", type=WHOLE, help="Repeats, each with a seed of its own.  [default: one per fold; 3 of one split]"
)
@click.option("--folds", type=WHOLE, default=0, metavar="K", help="Cross-validation over the groups of a file.")
@click.option(
    "--main-levels",
    type=WholeRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Also compare at N equal mean main scores, to each of which every method is moved by its share or scale.",
)
@click.option(
    "--main-share",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="L",
    help="λ, the main label's share, of expected gains and of lightgbm-ls.  [default: chosen on validation groups]",
)
@click.option("--oracle", type=PATH, help="Oracle file of generated data: report the fraction attained.")
@click.option("--seed", type=WHOLE, help="The first seed.")
@settings_option("Any setting, of all methods but those that have it of their own (a note says so).")
@paper_option
@ranker_data_options
def rank_compare(**options: Any) -> None:
    """Train and measure methods side by side on DATA: same split, base, weights, temperatures.

    DATA is a file, a directory with train, vali and test files, or one of Fold1 to Fold5. A finished training is kept
    in OUT and never run again. --base-scores lightgbm trains a LambdaMART on the main label as the base. On click data,
    hyperdpo:gain:uncorrected (or another variant of hyperdpo) is trained on clicks as they were logged.
    """
    from hyperdpo.comparison.commands import rank_compare_command

    given = take_settings(options, SETTINGS)
    config = config_of(options, given)
    rank_compare_command(config=config, given=given, **options)


@click.command("compare")
@click.argument("source", metavar="DATA", type=PATH)
@click.option("--model", help="A local checkpoint, a GGUF file or a hub name.  [default: `model` of --config]")
@methods_option(
    "hyperdpo,dpo-ls,dpo-soup,mo-dpo,logit-mixing", ALIGN_VARIANTS, example="hyperdpo:prompt", page="docs/alignment.md"
)
@out_option
@click.option("--points", type=WholeRange(min=2), default=11, show_default=True, help="Weightings on each front.")
@click.option(
    "--seeds", type=WHOLE, default=3, show_default=True, help="Repeats; each has a seed and split of its own."
)
@click.option("--seed", type=WHOLE, help="The first seed.  [default: 0]")
@scorer_option("scorers of the objectives' names, where each has one")
@setting("--prompts", int, "alignment.settings:TextsConfig.prompts", "At most so many prompts are continued.")
@setting("--samples", int, "alignment.settings:TextsConfig.samples", "Texts of each prompt.")
@setting("--tokens", int, "alignment.settings:TextsConfig.tokens", "Length of a text.")
@click.option("--config", "config_file", type=PATH, help="YAML file; see docs/settings.md.")
@click.option("--objectives", callback=names_of, metavar="A,B", help="Only these objectives, in this order.")
@settings_option("Any setting, of all methods.")
@data_options
@cpu_option
def align_compare(**options: Any) -> None:
    """Train and measure methods side by side on DATA: same base, splits, weights, temperatures.

    A finished training is kept in OUT and never run again.
    """
    require("align")
    from hyperdpo.comparison.commands import align_compare_command

    overrides = take_settings(options, {**SEED, **TEXTS})
    align_compare_command(overrides=overrides, **options)
