"""Settings that cannot be used: what pydantic says about them, as one line in plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from hyperdpo.errors import InputError, did_you_mean, shown

if TYPE_CHECKING:
    from pydantic import ValidationError

#: Kind of mistake: what was expected. Where pydantic has several words for a kind, it begins with them.
_EXPECTED = {
    "tuple": "a list, such as [a, b]",
    "list": "a list, such as [a, b]",
    "dict": "settings such as {name: value}",
    "mapping": "settings such as {name: value}",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
}
#: What settings of a kind look like.
_EXAMPLES = {
    "Objective": "{name: clicks}",
    "Label": "{name: relevance}",
    "TrainingConfig": "{epochs: 20}",
    "ScorerConfig": "{width: 64}",
    "SplitConfig": "{train: 0.8, validation: 0.1, test: 0.1}",
    "NdcgSettings": "{k: 10}",
}


def refusal(error: ValidationError, where: str, kind: Any, section: str = "") -> InputError:
    """The first mistake in settings, as one line.

    Args:
        where: the file or option that they are from.
        kind: the dataclass they are for.
        section: what the settings' names begin with, such as ``objectives.``.
    """
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    if first["type"] in ("unexpected_keyword_argument", "dataclass_exact_type"):
        return not_a_setting(where, section + ".".join(parts), kind, section)
    if first["type"] == "value_error":  # our own InputError, raised in __post_init__
        return InputError(f"{where}: {first['ctx']['error']}")
    if parts and not parts[-1].isdigit() and parts[-1] in ("int", "float"):  # of several types, the one tried first
        parts.pop()
    place = section + ".".join(part for part in parts if part.isidentifier() or part.isdigit()) or "top level"
    if first["type"] == "missing":
        return InputError(f"{where}: {place} is missing")
    return InputError(f"{where}: {place} is {shown(first['input'])}; expected {_expected(first)}")


def not_a_setting(where: str, name: str, kind: Any, section: str = "") -> InputError:
    """What to say about a name that is no setting of a dataclass: the nearest one."""
    near = did_you_mean(re.sub(r"\.\d+", "", name), setting_names(kind, section))
    return InputError(f"{where}: {name} is not a setting{near or '; see docs/ranking.md for the settings'}")


def _expected(error: Mapping[str, Any]) -> str:
    """The end of the line, after "expected"."""
    kind, context = error["type"], error.get("ctx") or {}
    if kind == "dataclass_type":
        return f"settings such as {_EXAMPLES.get(context['class_name'], '{name: value}')}"
    if kind == "literal_error":
        return str(context["expected"])
    if kind == "float_type" and isinstance(error["input"], list | tuple) and error["loc"][-1] == "float":
        return "a number, or a list of numbers"
    if kind != "finite_number" and (words := _EXPECTED.get(kind.split("_")[0])):
        return words
    return str(error["msg"]).replace("Input should be ", "", 1)


def setting_names(kind: Any, prefix: str = "") -> list[str]:
    """The names of all settings of a dataclass, those of a section as ``section.setting``."""
    found, kinds = [], get_type_hints(kind)
    for one in fields(kind):
        found.append(f"{prefix}{one.name}")
        for kind_of_one in (kinds[one.name], *get_args(kinds[one.name])):  # of lists, what they hold
            if is_dataclass(kind_of_one):
                found += setting_names(kind_of_one, f"{prefix}{one.name}.")
    return found
