"""From data, a model and settings to a comparison of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hyperdpo.alignment.arguments import training_arguments
from hyperdpo.alignment.bases import load_base
from hyperdpo.alignment.commands import TRAINING, disable_progress_bars_without_tty
from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data.targets import fit_objectives
from hyperdpo.alignment.settings import beta_of, columns_of, objectives_of, reading_of, seed_of, settings_of
from hyperdpo.alignment.trainer import tokenizer_of
from hyperdpo.comparison.align import Settings
from hyperdpo.comparison.align_measures import Texts, compare
from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.repeats import AlignRepeat, align_repeats, check_seeds
from hyperdpo.errors import InputError
from hyperdpo.files import check_writable
from hyperdpo.stories.text_scorers import scorer_of
from hyperdpo.threads import use_free_cores

#: Passes over the data of models for one w; conditioned ones train for ``sampling_factor`` times as many.
EPOCHS = 3
#: The learning rate of conditioned models is a multiple of the others'. Each part of a conditioned adapter works at
#: some w only; models for one w do not get better by a higher rate, see docs/alignment.md.
FACTORS = {"sampling_factor": 4 / 3, "learning_rate_factor": 5 / 3}


def compared(
    source: Path,
    model: str,
    out: Path,
    entries: Sequence[Entry],
    *,
    points: int = 11,
    seeds: int = 3,
    objectives: Sequence[str] | None = None,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: Sequence[str] | None = None,
    skip_invalid: bool = False,
    scorer: str | None = None,
    sizes: Mapping[str, int] | None = None,
    with_texts: bool = True,
    cpu: bool = False,
) -> dict[str, Any]:
    """Read data, base and settings, and compare.

    Args:
        scorer: see :func:`~hyperdpo.stories.text_scorers.scorer_of`.
        sizes: of the sampled texts: ``prompts``, ``samples``, ``tokens``.
        with_texts: sample texts where a scorer is known.

    Returns:
        The content of ``compare.json``.

    Raises:
        InputError: data, settings or model that do not fit.
    """
    disable_progress_bars_without_tty()
    check_seeds(seeds)
    check_writable(out)
    settings = settings_of(config_file, overrides or {})
    factors = _factors(settings.get("compare", {}))
    training = {k: v for k, v in {**TRAINING, **settings["training"]}.items() if not k.startswith("save_")}
    if "num_train_epochs" not in settings["training"]:
        training["num_train_epochs"] = EPOCHS
    first = seed_of("training.seed", training.pop("seed", 0))
    reading = reading_of(settings, format, prompt_column, ignore_columns, skip_invalid)
    if reading["skip_invalid"]:
        training["skip_invalid"] = True
    configured, beta = settings.get("objectives"), beta_of(training)
    split = {"seed": first} | dict(settings.get("split", {}))
    columns = columns_of(configured, objectives, beta)
    repeats = align_repeats(source, columns, reading, split, first=first, seeds=seeds)
    chosen = {repeat.seed: objectives_of(configured, objectives, repeat.train, beta) for repeat in repeats}
    # Now, not after the base has been measured: the trainings come later.
    training_arguments(out, {**training, "use_cpu": cpu})
    conditioning = dict(settings.get("conditioning", {}))
    ConditioningConfig.from_dict({**conditioning, "objectives": tuple(o.name for o in chosen[first])})
    found = scorer_of(scorer, [o.column for o in chosen[first]]) if with_texts else None
    texts = None if found is None else Texts(found[1], found[0], **(sizes or {}))
    base, tokenizer = load_base(model), tokenizer_of(model)
    use_free_cores()

    def shared(repeat: AlignRepeat) -> Settings:
        fitted = fit_objectives(repeat.train, chosen[repeat.seed])
        return Settings(model, fitted, training, conditioning, seed=repeat.seed, **factors)

    result = compare(
        shared, repeats, entries, base, tokenizer, out, points=points, texts=texts, cpu=cpu, say=click.echo
    )
    result["data"] = {"source": source.name, "reading": reading}
    return result


def _factors(configured: Mapping[str, Any]) -> dict[str, float]:
    """The section ``compare`` of a configuration.

    Raises:
        InputError: another setting, or no number above 0.
    """
    for name, value in configured.items():
        if name not in FACTORS:
            raise InputError(f"compare: {name} is not a setting; expected some of {', '.join(FACTORS)}")
        if not isinstance(value, int | float) or not value > 0:
            raise InputError(f"compare: {name} is {value!r}; expected a number above 0")
    return FACTORS | {name: float(value) for name, value in configured.items()}
