"""Preferences that are a model's own answers to the prompts of a file, scored by measures of the text; in two parts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hyperdpo import hashing
from hyperdpo.alignment.answer_sets import (
    asked,
    conversations,
    partial_of,
    read_prompts,
    remove_partial,
    sample_groups,
    write_answers,
)
from hyperdpo.alignment.answers import Sampling
from hyperdpo.alignment.bases import load_base, tokenizer_of
from hyperdpo.alignment.data.preferences import read_preferences, write_preferences
from hyperdpo.alignment.model_settings import ModelSettings
from hyperdpo.alignment.run import versions
from hyperdpo.alignment.sampling import computing_in
from hyperdpo.checksums import file_digest
from hyperdpo.devices import best_device
from hyperdpo.errors import InputError, counted
from hyperdpo.files import written
from hyperdpo.scorers.registry import scorers_named
from hyperdpo.scorers.scorer import probed

#: The variable that names the place of data which are not part of the project.
PLACE = "HYPERDPO_DATA"
#: The part of the prompts that is trained on: 250 of 379.
TRAIN = 0.66


def data_file(given: Path | None, name: str, where: str, what: str) -> Path:
    """The file that an experiment reads where ``--data`` names none.

    Args:
        name: of the file, below the place that the variable ``HYPERDPO_DATA`` names.
        where: the experiment, for the message.
        what: what ``--data`` names, for the message.

    Raises:
        InputError: neither is there.
    """
    if given is not None:
        return given
    place = os.environ.get(PLACE)
    if not place:
        raise InputError(
            f"{where}: no data; expected --data with {what}, or {name} in the directory that {PLACE} names"
        )
    if not (found := Path(place) / name).is_file():
        raise InputError(f"{where}: {found}: no such file ({PLACE} is set); expected --data with {what}")
    return found


def answered(
    prompts_file: Path,
    model: str,
    out: Path,
    *,
    scorers: Sequence[str],
    answers: int,
    tokens: int,
    prompts: int | None = None,
    bf16: bool = False,
    model_settings: ModelSettings | None = None,
    cpu: bool = False,
) -> Path:
    """A directory with ``train.jsonl`` and ``test.jsonl``: answers that the model sampled, once for all experiments.

    Args:
        prompts_file: see :func:`~hyperdpo.alignment.answer_sets.read_prompts`.
        out: where the directory is made; an interrupted sampling is carried on there.
        scorers: of the answers; each makes a label.
        answers: of each prompt.
        tokens: the most of an answer.
        prompts: at most so many of the file; None: all.
        bf16: compute in bf16.
        model_settings: how the model is loaded; None: as it is.

    Raises:
        InputError: prompts, scorers or a model that cannot be used.
    """
    scorer, model_settings = scorers_named(scorers), model_settings or ModelSettings()
    found = read_prompts(prompts_file)[:prompts]
    how = Sampling(answers=answers, max_new_tokens=tokens)
    told: dict[str, Any] = {
        "model": model_print(model),
        "bf16": bf16,
        "scorers": list(scorers),
        "scored": probed(scorer, scorer.objectives, asked(found[0])),
        "prompts": found,
        "model_settings": model_settings.loading(),
        **asdict(how),
    }
    directory = out / f"answers-{Path(model).stem}-{hashing.fingerprint(told, 64)[:8]}"
    if directory.exists():
        return directory
    out.mkdir(parents=True, exist_ok=True)
    whole = directory.with_name(directory.name + ".jsonl")
    if not whole.exists():
        _sample(found, model, how, whole, scorer, told, model_settings, cpu)
    # One split for all seeds: rates are chosen on training prompts, which stay training prompts.
    parts = read_preferences(whole).split((TRAIN, 0.0, 1 - TRAIN), 0)
    with written(directory, directory=True) as temporary:
        for name, part in parts.items():
            if len(part):
                write_preferences(part, temporary / f"{name}.jsonl")
    return directory


def model_print(model: str) -> str:
    """A hash of a model's files, wherever they are; a name on the hub as it is."""
    place = Path(model)
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place] if place.is_file() else []
    return hashing.fingerprint([file_digest(file) for file in files] or model, 64)


def _sample(
    prompts: list[Any],
    model: str,
    how: Sampling,
    out: Path,
    scorer: Any,
    told: Mapping[str, Any],
    model_settings: ModelSettings,
    cpu: bool,
) -> None:
    device, tokenizer = best_device(cpu), tokenizer_of(model)
    chats = conversations(prompts, tokenizer)
    base = load_base(model, **model_settings.arguments()).to(device)
    # Not before: a model that cannot be loaded answers nothing.
    click.echo(f"{counted(len(prompts), 'prompt')}, {how.answers} answers to each, from {Path(model).name}: {out}")
    precision = "bf16" if told["bf16"] else "no"
    with computing_in(precision, base):
        groups = sample_groups(base, tokenizer, chats, how, partial_of(out), {"model": told["model"]})
    about = {
        "model": Path(model).name,
        "model_settings": model_settings.loading(),
        "precision": precision,
        "sampling": asdict(how),
        "scorers": told["scorers"],
        "versions": versions(),
    }
    counts = write_answers(groups, scorer, out, about)
    remove_partial(out)
    told_of = "".join(f", {counts[name]:,} {word}" for name, word in _WORDS.items() if counts[name])
    click.echo(f"{counted(counts['groups'], 'prompt')}, {counted(counts['answers'], 'answer')}{told_of}")


#: Counts of :func:`~hyperdpo.alignment.answer_sets.write_answers` in words.
_WORDS = {"truncated": "cut at the limit", "missing": "missing", "left_out": "prompts left out"}
