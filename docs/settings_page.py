"""Writes docs/settings.md: every setting, from the dataclasses that check it. Run it after changing one:

python docs/settings_page.py
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from hyperdpo.alignment.settings import TRAINING, AlignSettings, ConditioningConfig
from hyperdpo.alignment.training_config import BOUNDS, WITHOUT_EFFECT, HyperDPOConfig
from hyperdpo.comparison.align_settings import EPOCHS
from hyperdpo.objectives import Objective
from hyperdpo.ranking.config import RankConfig
from hyperdpo.validation import allowed

PAGE = Path(__file__).parent / "settings.md"

START = """\
# Settings

`python docs/settings_page.py` makes this page from the dataclasses that check the settings.

A setting is given in the YAML file of `--config`, or by its name: `--set training.epochs=20 --set scorer.kind=mlp`.
Where several say something, the later one counts: preset, file, `--paper`, `--set` (and options such as `--seed`,
which are short for a `--set`). Sections are merged at every depth; lists are replaced. A name that is not a setting,
a wrong type and a value that is not allowed are refused in one line.

`null` means that nothing is set.
"""
RANKERS = """\
## Rankers

Settings of `hyperdpo rank`, of `data check`, and of [`HyperRanker`](reference/rankers.md). [Ranking](ranking.md)
explains them.
"""
LANGUAGE_MODELS = """\
## Language models

Settings of `hyperdpo align`. [Aligning a language model](alignment.md) explains them.
"""
RANK_OBJECTIVES = """\
### rank: objectives and main

`objectives` is a list with these settings for each objective. `main`, the label that the base ranker is good at, has
the same ones except `beta`. `main: null` means that there is none; left out, it is the column `relevance` with a
softmax target and no transform.
"""
ALIGN_OBJECTIVES = """\
### align: objectives

The same as [for rankers](#rank-objectives-and-main), with `training.beta` as the default of `beta`, and without those
of click data. Left out, every
label of the data is an objective.
"""
CONDITIONING = """\
### align: conditioning

How the model depends on w.
"""
TRAINING_NOTE = """\
### align: training

These are the settings of [`HyperDPOConfig`](reference/language-models.md) that `transformers.TrainingArguments` does
not have, or has with another default. All others of `TrainingArguments` may be given too, except those that would
have no effect here: {without}.
"""


class Row(NamedTuple):
    """One setting."""

    name: str
    default: str
    allowed: str
    meaning: str


def meanings(kind: type) -> dict[str, str]:
    """The docstring below each attribute of a class and its bases, on one line."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(one))).body[0].body  # type: ignore[attr-defined]
        for statement, following in itertools.pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                found[ast.unparse(statement.target)] = in_markdown(ast.literal_eval(following.value))
    return found


def in_markdown(text: str) -> str:
    """A docstring as a cell of a table."""
    text = re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|")


def in_yaml(value: Any) -> str:
    """A default as it would stand in a file."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_yaml, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value) or '""'


def default_of(one: Field[Any]) -> Any:
    """The value of a field that is not given."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def rows(kind: type, prefix: str = "", given: Any = None, leave_out: Iterable[str] = ()) -> list[Row]:
    """The settings of a class, a row each.

    Args:
        given: an instance whose values are the defaults.
    """
    said, hints = meanings(kind), get_type_hints(kind, include_extras=True)
    found = []
    for one in fields(kind):  # type: ignore[arg-type]
        if one.name in leave_out:
            continue
        value = default_of(one) if given is None else getattr(given, one.name)
        default = "required" if value is MISSING else f"`{in_yaml(value)}`"
        found.append(Row(f"`{prefix}{one.name}`", default, allowed(hints[one.name]), said[one.name]))
    return found


def table(found: Iterable[Row]) -> str:
    """A Markdown table."""
    head = ["| setting | default | allowed | what it does |", "|---|---|---|---|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in found)]) + "\n"


def sections(command: str, kind: type, names: Iterable[str]) -> list[str]:
    """Tables of some sections of a class, under headings, with the defaults that they have there."""
    defaults = {one.name: default_of(one) for one in fields(kind)}  # type: ignore[arg-type]
    said, found = meanings(kind), []
    for name in names:
        shown, text = rows(type(defaults[name]), f"{name}.", defaults[name]), said[name]
        if (other := name.removeprefix("base_")) != name:
            usual = rows(type(defaults[name]), f"{name}.", defaults[other])
            shown = [row for row in shown if row not in usual]
            text += f" It has the same settings as `{other}`, with these defaults of its own:"
        found.append(f"### {command}: {name}\n\n{text}\n\n{table(shown)}")
    return found


def training_rows() -> list[Row]:
    """HyperDPOConfig's own settings."""
    hints, found = get_type_hints(HyperDPOConfig), []
    for one in fields(HyperDPOConfig):
        if one.name in HyperDPOConfig.__annotations__ and one.name not in WITHOUT_EFFECT:
            hint = BOUNDS.get(one.name, hints[one.name])
            meaning = in_markdown(str(one.metadata["help"]))
            found.append(Row(f"`training.{one.name}`", f"`{in_yaml(default_of(one))}`", allowed(hint), meaning))
    return found


def page() -> str:
    """The page."""
    of_rankers = ["scorer", "base_scorer", "training", "base_training", "mixture", "temperatures"]
    of_rankers += ["metric", "split", "gbdt"]
    of_models = ["model_settings", "split", "compare", "texts"]
    without = ", ".join(f"`{name}`" for name in sorted(WITHOUT_EFFECT))
    given = ", ".join(f"`{name}: {in_yaml(value)}`" for name, value in TRAINING.items())
    parts = [
        START,
        RANKERS,
        table(rows(RankConfig, leave_out=["objectives", "main", *of_rankers])),
        RANK_OBJECTIVES,
        table(rows(Objective)),
        *sections("rank", RankConfig, of_rankers),
        LANGUAGE_MODELS,
        table(rows(AlignSettings, leave_out=["objectives", "conditioning", "training", *of_models])),
        ALIGN_OBJECTIVES,
        CONDITIONING,
        table(rows(ConditioningConfig, "conditioning.", leave_out=["objectives"])),
        TRAINING_NOTE.format(without=without),
        table(training_rows()),
        f"`align fit` also sets these, unless they are given: {given}. `align compare` trains models for one w for "
        f"{EPOCHS} epochs.\n",
        *sections("align", AlignSettings, of_models),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
