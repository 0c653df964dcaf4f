"""The documentation: links lead somewhere, the site builds, and what a page shows as a command or as Python runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for found in LINK.findall(text):
        if not re.match(r"[a-z]+:", found):
            yield found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            headings = [re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings_of(target)]
            assert anchor in headings, link


def headings_of(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"^#+ (.*)$", text, re.MULTILINE)


def test_every_page_is_reached_from_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        assert str(page.relative_to(ROOT / "docs")) in navigation, page
    for notebook in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        assert str(notebook.relative_to(ROOT / "docs")) in navigation, notebook


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        check=False,
        timeout=200,
    )
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img|iframe)[^>]*\b(?:src|href)=[\"']?(https?://[^\"'> ]+)", page.read_text()
        )
        assert not [address for address in loaded if "canonical" not in address], page.name
    reference = (tmp_path / "site" / "reference" / "rankers.html").read_text()
    for name in ("HyperRanker", "predict", "RankRun", "Objective"):
        assert name in reference
    shutil.rmtree(tmp_path / "site")
