"""An experiment on a language model: its data, model and comparison."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from hyperdpo.alignment.bases import model_type_of
from hyperdpo.alignment.commands import disable_progress_bars_without_tty
from hyperdpo.alignment.data.preferences import write_preferences
from hyperdpo.alignment.gguf_models import described_origin
from hyperdpo.alignment.model_settings import ModelSettings
from hyperdpo.alignment.settings import AlignSettings, settings_of
from hyperdpo.comparison.align_settings import compared
from hyperdpo.devices import best_device, computes_bf16
from hyperdpo.errors import InputError, counted
from hyperdpo.experiments.experiment import SMALL_POINTS, Figures, Found
from hyperdpo.experiments.language import LanguageExperiment
from hyperdpo.experiments.language_rows import add_spans
from hyperdpo.experiments.own_answers import data_file, model_print
from hyperdpo.experiments.results import case_of, table_rows
from hyperdpo.threads import use_free_cores
from hyperdpo.validation import merged

#: Prompts of the generated data, of which three quarters are for training.
PROMPTS = 640
#: Answers of each prompt of a file.
ANSWERS = 4
#: What ``--data`` of an experiment with a file of its own names.
WANTED = {
    "answers": "a file of prompts, or a directory of preferences in parts",
    "labels": "preferences that people gave",
}
#: ``--small``: an instance that shows that everything runs, and nothing else.
SMALL_PROMPTS, SMALL_STEPS = 16, 100
SMALL: dict[str, Any] = {
    "training": {"num_train_epochs": 0.5, "per_device_train_batch_size": 4},
    "conditioning": {"prompt_hidden": 4, "gate_hidden": 4},
    "texts": {"prompts": 2, "samples": 1, "tokens": 4},
}
#: Of small models trained from their own stories; a user's --set comes after it.
GENERATED: dict[str, Any] = {
    "training": {"learning_rate": 3e-3},
    "split": {"train": 0.75, "validation": 0.0, "test": 0.25},
}
#: Of the model that is trained here, besides: learning rates (1e-2 for one w, 5e-3 conditioned) at which each kind had
#: the largest hypervolume on other stories of that model, see docs/results.md.
OWN_MODEL: dict[str, Any] = {"training": {"learning_rate": 1e-2}, "compare": {"learning_rate_factor": 0.5}}
PAPER_DATA = "PKU-SafeRLHF with GPT-2 or Alpaca-7B"


def find(
    experiment: LanguageExperiment,
    out: Path,
    *,
    data: Path | None = None,
    model: str | None = None,
    config_file: Path | None = None,
    objectives: Sequence[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    points: int | None = None,
    queries: int | None = None,
    small: bool = False,
    cpu: bool = False,
) -> Found:
    """Train and measure what an experiment compares.

    Args:
        data: preferences, see :mod:`hyperdpo.alignment.data`; None: stories that the model itself writes, scored by
            text measures. An experiment on a model's answers takes a file of prompts, or a directory of preferences
            in parts; its own file, as that of one on labels, if this is None.
        model: a causal LM; None: a small one is trained on the spot, for stories.
        seeds: repeats of every entry; None: the experiment's own number, and fewer of some entries.
        points: weightings of each front; None: the experiment's own number.
        queries: prompts of generated data, or of the file of prompts.

    Raises:
        InputError: no such data, model or setting.
    """
    disable_progress_bars_without_tty()
    if model is None and (data is not None or experiment.file):
        what = "--data" if data is not None else "real prompts or labels, such as an instruction-tuned model of 100M"
        raise InputError(f"--model: found none; expected a causal LM to fine-tune on {what}")
    chosen = objectives or experiment.objectives or None
    if points is not None and chosen and points < len(chosen):
        raise InputError(f"--points is {points}; expected at least {len(chosen)}, one for each of {', '.join(chosen)}")
    generated = data is None and not experiment.file
    settings: dict[str, Any] = merged(experiment.settings, GENERATED if generated else {})
    if generated and model is None:
        settings = merged(settings, OWN_MODEL)
    settings = merged(merged(settings, SMALL if small else {}), overrides or {})
    if experiment.file:
        data = data_file(data, experiment.file, experiment.name, WANTED[experiment.source])
    if model is not None:
        model_type_of(model)  # refused before anything is printed or sampled
    loaded = settings_of(config_file, settings).model_settings  # as asked for: the answers do not depend on the device
    if experiment.file:
        settings = fast_settings(settings, config_file, cpu)
    if generated:  # elsewhere the data are read first
        use_free_cores()
    if model is None:
        model = str(_demo_model(out / "data", small))
    if data is None:
        data = _stories(out / "data", model, queries or (SMALL_PROMPTS if small else PROMPTS))
    elif experiment.source == "answers" and not data.is_dir():
        queries = queries or (SMALL_PROMPTS if small else None)
        data = _answers(data, model, out / "data", queries, settings_of(config_file, settings), loaded, cpu)
    run = functools.partial(
        compared,
        data,
        model,
        out / "language",
        points=points or (SMALL_POINTS if small else experiment.points),
        objectives=chosen,
        config_file=config_file,
        overrides=settings,
        with_texts=experiment.texts,
        least_span=experiment.least_span,
        cpu=cpu,
    )
    if experiment.least_span:
        say_spans(run(experiment.entries[:1], seeds=1), experiment.least_span)
    entries = experiment.entries if seeds is None else [replace(one, repeats=None) for one in experiment.entries]
    comparison = run(entries, seeds=seeds or (1 if small else experiment.seeds))
    column, told = figures_of(experiment, model)
    rows = table_rows(comparison, column)
    add_spans(rows, comparison)
    groups = comparison["repeats"][0]["groups"]
    origin = described_origin(comparison["base"].get("gguf_origin"))
    named = f"{Path(model).name}{f' ({origin})' if origin else ''}"
    described = f"{data.name}, {named}: {groups['train']:,} train, {groups['test']:,} test prompts"
    differs = generated or "pku" not in data.name.lower()
    return Found(
        title=experiment.title,
        paper_says=experiment.paper_says + told,
        data={
            "source": data.name,
            "description": described,
            "groups": groups,
            "generated": generated,
            "differs": f"The paper has {PAPER_DATA}: compare orders and shapes, not values." if differs else None,
        },
        settings=comparison["settings"],
        cases=[case_of(comparison, rows)],
        trainings=out / "language",
    )


def fast_settings(settings: Mapping[str, Any], config_file: Path | None, cpu: bool) -> dict[str, Any]:
    """The settings, with what is fastest on this device where nothing else is asked for.

    That is bf16 in training, measuring and sampling where the device computes in it; and on a CPU, where PyTorch's
    fused attention has a slow backward pass, transformers' ``eager`` attention in training. Its memory grows with the
    square of the length of a text, which is short here.
    """
    asked = settings_of(config_file, settings)
    found = dict(settings)
    if not any(asked.training.get(name) is not None for name in ("bf16", "fp16")):
        half = computes_bf16(cpu)
        click.echo(f"precision: {'bf16 (of training, measures and sampling)' if half else 'that of the model'}")
        chosen = {"training": {"bf16": True}, "compare": {"training_precision": True}} if half else {}
        found = merged(found, chosen)
    model = asked.model_settings
    if best_device(cpu) == "cpu" and model.attn_implementation is model.training_attention is None:
        found = merged(found, {"model_settings": {"training_attention": "eager"}})
    return found


def say_spans(comparison: Mapping[str, Any], least: float) -> None:
    """Say how far apart the ends of the first entry are, before the others are trained: where they are the same,
    nothing can be controlled."""
    ((label, one),) = comparison["methods"].items()
    spans = one["control_span"]
    click.echo(f"{label}: control spans {', '.join(f'{name} {span:.3f}' for name, span in spans.items())} nats")
    for name, span in spans.items():
        if span < least:
            click.echo(f"{name}: below {least:g} nats there is nothing to control; no ratio of control is given")


def figures_of(experiment: LanguageExperiment, model: str) -> tuple[Mapping[str, Figures], str]:
    """The paper's figures of a model of the same architecture, and a sentence that says whose they are."""
    if not experiment.columns:
        return experiment.paper, ""
    kind = model_type_of(model)
    column = experiment.columns.get(kind)
    if column is None:
        known = " and ".join(one.model for one in experiment.columns.values())
        return {}, f" The paper has figures of {known}; none is of a model of this architecture ({kind})."
    return column.figures, f" In the table: its figures of {column.model}, a model of this architecture ({kind})."


def _demo_model(directory: Path, small: bool) -> Path:
    from hyperdpo.stories.language_model import STEPS, train_demo_lm

    path = directory / ("demo-lm-small" if small else "demo-lm")
    if not (path / "config.json").exists():
        click.echo(f"a small language model: {path}")
        train_demo_lm(path, steps=SMALL_STEPS if small else STEPS)
    return path


def _stories(directory: Path, model: str, prompts: int) -> Path:
    from hyperdpo.alignment.bases import load_base
    from hyperdpo.alignment.trainer import tokenizer_of
    from hyperdpo.stories.preferences import sample_preferences

    path = directory / f"stories-{Path(model).name}-{model_print(model)[:8]}-{prompts}.jsonl"
    if not path.exists():
        click.echo(f"{counted(prompts, 'prompt')} and 4 responses to each, from {Path(model).name}: {path}")
        directory.mkdir(parents=True, exist_ok=True)  # now, not after the sampling
        write_preferences(sample_preferences(load_base(model), tokenizer_of(model), prompts=prompts), path)
    return path


def _answers(
    prompts_file: Path,
    model: str,
    directory: Path,
    prompts: int | None,
    settings: AlignSettings,
    loaded: ModelSettings,
    cpu: bool,
) -> Path:
    from hyperdpo.experiments.own_answers import answered
    from hyperdpo.experiments.real import SCORERS

    return answered(
        prompts_file,
        model,
        directory,
        scorers=SCORERS,
        answers=ANSWERS,
        tokens=settings.texts.tokens,
        prompts=prompts,
        bf16=bool(settings.training.get("bf16")),
        model_settings=loaded,
        cpu=cpu,
    )
