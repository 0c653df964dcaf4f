"""From data, a model and settings to a comparison of language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hyperdpo.alignment.bases import attending_by, load_base
from hyperdpo.alignment.commands import disable_progress_bars_without_tty
from hyperdpo.alignment.data.targets import fit_objectives
from hyperdpo.alignment.gguf_models import origin_of
from hyperdpo.alignment.settings import TRAINING, settings_of
from hyperdpo.alignment.sources import base_of, objectives_of, reading_of
from hyperdpo.alignment.trainer import tokenizer_of
from hyperdpo.alignment.training_config import training_arguments
from hyperdpo.comparison.align import Settings
from hyperdpo.comparison.align_measures import compare
from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.repeats import AlignRepeat, align_repeats, check_seeds
from hyperdpo.comparison.sampled_texts import Texts
from hyperdpo.files import check_writable
from hyperdpo.scorers.registry import scorer_of
from hyperdpo.threads import use_free_cores

#: Passes over the data of models for one w; conditioned ones train for ``sampling_factor`` times as many.
EPOCHS = 3


def compared(
    source: Path,
    model: str | None,
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
    scorers: Sequence[str] = (),
    with_texts: bool = True,
    least_span: float = 0.0,
    cpu: bool = False,
) -> dict[str, Any]:
    """Read data, base and settings, and compare.

    Args:
        scorers: see :func:`~hyperdpo.scorers.registry.scorer_of`.
        with_texts: sample texts where a scorer is known.
        least_span: see :func:`~hyperdpo.comparison.spans.span_ratios`.

    Returns:
        The content of ``compare.json``.

    Raises:
        InputError: data, settings or model that do not fit.
    """
    disable_progress_bars_without_tty()
    check_seeds(seeds)
    check_writable(out)
    settings = settings_of(config_file, overrides or {})
    name = base_of(settings, model)
    training = {k: v for k, v in {**TRAINING, **settings.training}.items() if not k.startswith("save_")}
    if "num_train_epochs" not in settings.training:
        training["num_train_epochs"] = EPOCHS
    training.pop("seed", None)
    reading = reading_of(settings, format, prompt_column, ignore_columns, skip_invalid)
    if reading["skip_invalid"]:
        training["skip_invalid"] = True
    repeats = align_repeats(source, settings, objectives, reading, seeds=seeds)
    chosen = {repeat.seed: objectives_of(settings, objectives, repeat.train) for repeat in repeats}
    columns = [o.column for o in chosen[repeats[0].seed]]
    # Now, not after the base has been measured: the trainings come later.
    training_arguments(out, {**training, "use_cpu": cpu})
    found = scorer_of(scorers, columns) if with_texts else None
    texts = None if found is None else Texts(found.score, found.name, **asdict(settings.texts))
    base, tokenizer = load_base(name, **settings.model_settings.arguments()), tokenizer_of(name)
    attention = settings.model_settings.training_attention
    with attending_by(attention, base):  # refused now, not after the base has been measured
        pass
    use_free_cores()

    def shared(repeat: AlignRepeat) -> Settings:
        fitted = fit_objectives(repeat.train, chosen[repeat.seed])
        more = {**asdict(settings.compare), "training_attention": attention}
        return Settings(name, fitted, training, settings.conditioning, seed=repeat.seed, **more)

    how: dict[str, Any] = {"points": points, "texts": texts, "least_span": least_span, "cpu": cpu, "say": click.echo}
    result = compare(shared, repeats, entries, base, tokenizer, out, **how)
    result["data"] = {"source": source.name, "reading": reading}
    if origin_of(base):
        result["base"]["gguf_origin"] = origin_of(base)
    return result
