"""Settings of the ``hyperdpo align`` commands, from options and a configuration file, and the data that they name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hyperdpo.alignment.data.groups import VERSION, Preferences, Reading
from hyperdpo.alignment.data.preferences import read_preferences, read_splits
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.evaluation import check_measurable
from hyperdpo.alignment.run import fingerprint, parse_objectives
from hyperdpo.errors import InputError, did_you_mean
from hyperdpo.files import read_json, read_yaml
from hyperdpo.objectives import Objective

#: How the data are read; also settings of a configuration file.
READING = ("format", "prompt_column", "ignore_columns", "skip_invalid")
#: Sections of a configuration file.
SECTIONS = ("objectives", "conditioning", "training", "split", "compare", *READING)
SPLIT = {"train": 0.8, "validation": 0.0, "test": 0.2, "seed": 0}


def settings_of(config_file: Path | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a configuration file, under those of the command line.

    Raises:
        InputError: an unknown section, or one of another form.
    """
    settings = {} if config_file is None else read_yaml(config_file)
    for name, value in overrides.items():
        both = isinstance(value, Mapping) and isinstance(settings.get(name), Mapping)
        settings[name] = {**settings[name], **value} if both else value
    where = str(config_file) if config_file is not None else "--set"
    for name, value in settings.items():
        if name not in SECTIONS:
            near = did_you_mean(str(name), SECTIONS) or f"; expected some of {', '.join(SECTIONS)}"
            raise InputError(f"{where}: {name} is not a setting{near}")
        if name in ("conditioning", "training", "split", "compare") and not isinstance(value, Mapping):
            raise InputError(f"{where}: {name} is {value!r}; expected settings as `name: value`")
    settings["training"] = dict(settings.get("training", {}))
    return settings


def reading_of(
    settings: Mapping[str, Any],
    format: str,
    prompt_column: str | None,
    ignore_columns: Sequence[str] | None,
    skip_invalid: bool,
) -> dict[str, Any]:
    """How the data are read: what the command says comes before the configuration."""
    ignored = settings.get("ignore_columns", ()) if ignore_columns is None else ignore_columns
    ignored = ignored.split(",") if isinstance(ignored, str) else ignored
    skip = settings.get("skip_invalid", False)
    if not isinstance(skip, bool):
        raise InputError(f"skip_invalid is {skip!r}; expected true or false")
    return {
        "format": settings.get("format", "auto") if format == "auto" else format,
        "prompt_column": settings.get("prompt_column") if prompt_column is None else prompt_column,
        "ignore_columns": [str(one) for one in ignored or ()],
        "skip_invalid": skip_invalid or skip,
    }


def seed_of(name: str, value: Any) -> int:
    """A seed.

    Raises:
        InputError: no integer of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise InputError(f"{name} is {value!r}; expected an integer of at least 0")
    return int(value)


def beta_of(training: Mapping[str, Any]) -> float:
    """The temperature of objectives without one of their own.

    Raises:
        InputError: no number above 0.
    """
    value = training.get("beta", 0.1)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"training.beta is {value!r}; expected a number above 0")
    return float(value)


def columns_of(configured: Any, names: Sequence[str] | None, beta: float) -> list[str] | None:
    """The labels to read: those of the objectives that will be trained on; None for all."""
    if configured is None:
        return None if names is None else list(names)
    return _columns(_chosen(_configured(configured, beta), names))


def configured_objectives(
    settings: Mapping[str, Any], names: Sequence[str] | None
) -> tuple[tuple[Objective, ...] | None, list[str] | None]:
    """The objectives of a configuration, None without, and the labels to read as :func:`columns_of` has them."""
    beta, configured = beta_of(settings["training"]), settings.get("objectives")
    if configured is None:
        return None, columns_of(None, names, beta)
    chosen = _chosen(_configured(configured, beta), names)
    return chosen, _columns(chosen)


def _columns(objectives: Sequence[Objective]) -> list[str]:
    return list(dict.fromkeys(objective.column for objective in objectives))


def _configured(configured: Any, beta: float) -> tuple[Objective, ...]:
    if not isinstance(configured, Sequence) or not all(isinstance(o, Mapping) for o in configured):
        raise InputError("objectives: expected a list of settings, each with a name")
    return parse_objectives([{"beta": beta, **o} for o in configured], "configuration")


def objectives_of(
    configured: Any, names: Sequence[str] | None, train: Preferences, beta: float
) -> tuple[Objective, ...]:
    """Those of the configuration, or one for each label; --objectives chooses among them."""
    if configured is None:
        return _chosen(tuple(replace(o, beta=beta) for o in default_objectives(train)), names)
    return _chosen(_configured(configured, beta), names)


def _chosen(known: tuple[Objective, ...], names: Sequence[str] | None) -> tuple[Objective, ...]:
    by_name = {o.name: o for o in known}
    for name in names or ():
        if name not in by_name:
            raise InputError(f"--objectives: no objective {name!r}; expected some of {', '.join(by_name)}")
    return known if names is None else tuple(by_name[name] for name in names)


def parts_of(
    source: Path, objectives: Sequence[str] | None, reading: Mapping[str, Any], split: Mapping[str, Any]
) -> tuple[dict[str, Preferences], dict[str, Any]]:
    """The splits, and what run.json says about them."""
    if source.is_dir():
        parts = read = dict(read_splits(source, objectives=objectives, **reading))
        described: dict[str, Any] = {"fingerprint": fingerprint(parts["train"])}
    else:
        preferences = read_preferences(source, objectives=objectives, **reading)
        read = {"all": preferences}
        found = SPLIT | dict(split)
        for name in ("train", "validation", "test"):
            if isinstance(found[name], bool) or not isinstance(found[name], int | float):
                raise InputError(f"split.{name} is {found[name]!r}; expected a part of the groups, from 0 to 1")
        fractions = (float(found["train"]), float(found["validation"]), float(found["test"]))
        if min(fractions) < 0 or not fractions[0] or abs(sum(fractions) - 1) > 1e-6:
            raise InputError(f"split: the parts are {fractions}; expected numbers of at least 0 that sum to 1")
        seed = seed_of("split.seed", found["seed"])
        parts = dict(preferences.split(fractions, seed))
        described = {
            "fingerprint": fingerprint(preferences),
            "fractions": list(fractions),
            "split_seed": seed,
        }
    described |= {
        "source": source.name,
        "groups": {name: len(part) for name, part in parts.items()},
        "reading": {**reading, "version": VERSION},
        "read": {name: told(part.reading) for name, part in read.items() if part.reading is not None},
        "conversations": not all(isinstance(group.prompt, str) for group in parts["train"].groups),
    }
    return parts, described


class Prepared(NamedTuple):
    """What a fit trains and measures on."""

    parts: dict[str, Preferences]
    described: dict[str, Any]
    """What run.json says about them."""
    objectives: tuple[Objective, ...]
    fitted: tuple[Objective, ...]
    """The objectives, fitted to the training part."""


def prepared(
    source: Path, settings: Mapping[str, Any], names: Sequence[str] | None, reading: Mapping[str, Any]
) -> Prepared:
    """Data and objectives of ``align fit``.

    Args:
        settings: of :func:`settings_of`.
        names: objectives that the command line names.
        reading: of :func:`reading_of`.

    Raises:
        InputError: data that cannot be read, trained on or measured on, with the first reason.
    """
    beta = beta_of(settings["training"])
    columns = columns_of(settings.get("objectives"), names, beta)
    parts, described = parts_of(source, columns, reading, settings.get("split", {}))
    chosen = objectives_of(settings.get("objectives"), names, parts["train"], beta)
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
    """An interrupted training goes on only as what it was.

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
