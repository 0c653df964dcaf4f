"""docs/settings.md is what its script makes, and names every setting."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from hyperdpo.alignment.settings import AlignSettings
from hyperdpo.ranking.config import RankConfig
from hyperdpo.validation import setting_names

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "settings.md").read_text()


def test_the_page_is_what_the_script_makes() -> None:
    spec = importlib.util.spec_from_file_location("settings_page", DOCS / "settings_page.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.page() == PAGE, "run: python docs/settings_page.py"


@pytest.mark.parametrize(
    ("kind", "start", "end"),
    [(RankConfig, "## Rankers", "## Language models"), (AlignSettings, "## Language models", "")],
)
def test_every_setting_has_a_row_or_a_heading(kind: type, start: str, end: str) -> None:
    part = PAGE[PAGE.index(start) : PAGE.index(end) if end else None]
    told = set(re.findall(r"^\| `([\w.]+)` \|", part, re.M))
    headings = " ".join(re.findall(r"^### \w+: (.*)$", part, re.M))
    for name in setting_names(kind):
        section, _, last = name.rpartition(".")
        of_another = section in ("objectives", "main") or section.startswith("base_")  # their settings stand once
        assert name in told or of_another or (not section and last in headings), name


def test_the_pages_that_explain_settings_name_settings_that_exist() -> None:
    """``section.setting`` in code spans of the guides."""
    known = {*setting_names(RankConfig), *setting_names(AlignSettings)}
    sections = {name.partition(".")[0] for name in known if "." in name} - {"training"}  # TrainingArguments has more
    for page in ("ranking.md", "alignment.md", "how-it-works.md", "results.md"):
        for name in re.findall(r"`(\w+\.\w+)[`:=]", (DOCS / page).read_text()):
            if name.partition(".")[0] in sections and not name.endswith((".json", ".png")):
                assert name in known, (page, name)
