"""The data and objectives of the ``hyperdpo align`` commands: read, split and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperdpo.alignment.data.cells import Prompt
from hyperdpo.alignment.data.groups import VERSION, Preferences, Reading
from hyperdpo.alignment.data.preferences import read_preferences, read_splits
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.evaluation import check_measurable
from hyperdpo.alignment.gguf_models import gguf_file
from hyperdpo.alignment.run import fingerprint
from hyperdpo.alignment.settings import AlignSettings, AlignSplitConfig
from hyperdpo.errors import InputError
from hyperdpo.files import read_json
from hyperdpo.objectives import Objective

#: Prompts that run.json keeps, and their most characters.
KEPT_PROMPTS, KEPT_CHARACTERS = 4, 1000


def reading_of(
    settings: AlignSettings,
    format: str = "auto",
    prompt_column: str | None = None,
    ignore_columns: Sequence[str] | None = None,
    skip_invalid: bool = False,
) -> dict[str, Any]:
    """How the data are read: the command's options come before the configuration."""
    return {
        "format": settings.format if format == "auto" else format,
        "prompt_column": settings.prompt_column if prompt_column is None else prompt_column,
        "ignore_columns": list(settings.ignore_columns if ignore_columns is None else ignore_columns),
        "skip_invalid": skip_invalid or settings.skip_invalid,
    }


def base_of(settings: AlignSettings, model: Any = None) -> str:
    """The base model's name: the command's option comes before the configuration.

    Raises:
        InputError: neither names one; a GGUF file that is not there.
    """
    named = settings.model if model is None else model
    if named is None:
        raise InputError("no base model; expected --model, or model in the file of --config")
    file = gguf_file(named)
    return str(named if file is None else file)


def configured_objectives(settings: AlignSettings, names: Sequence[str] | None) -> tuple[Objective, ...] | None:
    """Those of the configuration that ``--objectives`` chooses; None where there are none."""
    return None if settings.objectives is None else _chosen(settings.objectives, names)


def columns_of(settings: AlignSettings, names: Sequence[str] | None) -> list[str] | None:
    """The labels to read: those of the objectives that will be trained on; None for all."""
    chosen = configured_objectives(settings, names)
    if chosen is None:
        return None if names is None else list(names)
    return list(dict.fromkeys(one.column for one in chosen))


def objectives_of(settings: AlignSettings, names: Sequence[str] | None, train: Preferences) -> tuple[Objective, ...]:
    """Those of the configuration, or one for each label; ``--objectives`` chooses among them."""
    if settings.objectives is not None:
        return _chosen(settings.objectives, names)
    beta = settings.beta
    return _chosen(tuple(replace(one, beta=beta) for one in default_objectives(train)), names)


def _chosen(known: tuple[Objective, ...], names: Sequence[str] | None) -> tuple[Objective, ...]:
    by_name = {o.name: o for o in known}
    for name in names or ():
        if name not in by_name:
            raise InputError(f"--objectives: no objective {name!r}; expected some of {', '.join(by_name)}")
    return known if names is None else tuple(by_name[name] for name in names)


def parts_of(
    source: Path, objectives: Sequence[str] | None, reading: Mapping[str, Any], split: AlignSplitConfig
) -> tuple[dict[str, Preferences], dict[str, Any]]:
    """The splits, and what run.json says about them."""
    if source.is_dir():
        parts = read = dict(read_splits(source, objectives=objectives, **reading))
        described: dict[str, Any] = {"fingerprint": fingerprint(parts["train"])}
    else:
        preferences = read_preferences(source, objectives=objectives, **reading)
        read = {"all": preferences}
        seed = split.seed or 0
        parts = dict(preferences.split(split.parts, seed))
        described = {
            "fingerprint": fingerprint(preferences),
            "fractions": list(split.parts),
            "split_seed": seed,
        }
    described |= {
        "source": source.name,
        "groups": {name: len(part) for name, part in parts.items()},
        "reading": {**reading, "version": VERSION},
        "read": {name: told(part.reading) for name, part in read.items() if part.reading is not None},
        "conversations": not all(isinstance(group.prompt, str) for group in parts["train"].groups),
        "prompts": kept_prompts(parts),
    }
    return parts, described


def kept_prompts(parts: Mapping[str, Preferences]) -> list[Prompt]:
    """The first prompts of moderate length that were held out, or of the training part where none were.

    They are what exports are tried on.
    """
    held_out = next((parts[name] for name in ("validation", "test", "train") if parts.get(name)), None)
    prompts = (group.prompt for group in (() if held_out is None else held_out.groups))
    short = (prompt for prompt in prompts if len(json.dumps(prompt)) <= KEPT_CHARACTERS)
    return list(islice(short, KEPT_PROMPTS))


class Prepared(NamedTuple):
    """What a fit trains and measures on."""

    parts: dict[str, Preferences]
    described: dict[str, Any]
    """What run.json says about them."""
    objectives: tuple[Objective, ...]
    fitted: tuple[Objective, ...]
    """The objectives, fitted to the training part."""


def prepared(
    source: Path, settings: AlignSettings, names: Sequence[str] | None, reading: Mapping[str, Any]
) -> Prepared:
    """Data and objectives of ``align fit``.

    Args:
        names: objectives that the command line names.
        reading: of :func:`reading_of`.

    Raises:
        InputError: data that cannot be read, trained on or measured on, with the first reason.
    """
    parts, described = parts_of(source, columns_of(settings, names), reading, settings.split)
    chosen = objectives_of(settings, names, parts["train"])
    fitted = fit_objectives(parts["train"], chosen)
    for name, part in parts.items():
        targets = to_targets(part, fitted)
        if name == "test" and targets:
            check_measurable([o.name for o in chosen], np.stack([one.signal for one in targets]))
    return Prepared(parts, described, chosen, fitted)


def told(reading: Reading) -> dict[str, Any]:
    """What run.json says about a source: its layout, what was left out and why, what was not used."""
    return {
        "layout": reading.layout,
        "rows": reading.rows,
        "left_out": {reason: count for reason, (count, _) in reading.invalid.items()},
        "prompts_with_one_response": reading.single[0],
        "repeated_prompts": reading.repeated,
        "pairs_without_preference": reading.undecided,
        "unused_columns": list(reading.unused),
    }


def refuse_other_settings(path: Path, told: Mapping[str, Any]) -> None:
    """Refuse to resume a training with other settings.

    Raises:
        InputError: it was another one.
    """
    if not path.exists():
        return
    before, now = read_json(path), json.loads(json.dumps(told))
    for part, value in now.items():
        found = before.get(part) if isinstance(before, dict) else None
        if found != value:
            names = [k for k in value if found.get(k) != value[k]] if isinstance(value, dict) and found else []
            what = f"{part}.{names[0]}" if names else part
            raise InputError(
                f"{path.parent.parent}: holds an unfinished training with another {what}; expected the same command, "
                "another directory, or --overwrite"
            )
