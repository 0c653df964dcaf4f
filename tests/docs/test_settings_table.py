"""The tables of settings in docs/ranking.md name every setting of a ranking run, with its default."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from hyperdpo.objectives import Objective
from hyperdpo.ranking.config import RankConfig

PAGE = (Path(__file__).parents[2] / "docs" / "ranking.md").read_text()
ROWS = dict(
    re.findall(r"^\| `([\w.*]+)` \| ([^|]*) \|", PAGE[PAGE.index("## Settings") : PAGE.index("## Compare")], re.M)
)
#: Defaults in words.
IN_WORDS = {"half the width": 32, "none": (), "1 (`--paper`: 1.75)": 1.0, "10,000": 10_000}
#: Sections that stand elsewhere on the page, or as one row with what differs from the ranker's.
ELSEWHERE = {"objectives", "main", "base_scorer", "base_training"}


def settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting by its dotted name."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if prefix or field.name not in ELSEWHERE:
            found |= settings(value, f"{field.name}.") if is_dataclass(value) else {prefix + field.name: value}
    return found


def value_of(text: str) -> Any:
    """What a cell says: in words, or in YAML (which reads 4e-3 as a text)."""
    if text in IN_WORDS:
        return IN_WORDS[text]
    value = yaml.safe_load(text.strip("`"))
    return tuple(value) if isinstance(value, list) else float(value) if re.fullmatch(r"[\d.]+e-\d+", text) else value


def test_the_tables_hold_every_setting_with_its_default() -> None:
    known = settings(RankConfig(objectives=(Objective(name="clicks"),)))
    told = {name: value_of(text) for name, text in ROWS.items() if not name.endswith("*")}
    assert told == known
    assert {name.removesuffix(".*") for name in ROWS if name.endswith("*")} == {"base_scorer", "base_training"}
