"""``make audit``: what it says of pip-audit's report."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[1] / "tools" / "audit.py"
FINE = {"name": "a", "version": "1", "vulns": []}
WEAK = {
    "name": "b",
    "version": "2",
    "vulns": [{"id": "CVE-1", "fix_versions": ["3", "2.1"]}, {"id": "X", "fix_versions": []}],
}
UNKNOWN = {"name": "c", "skip_reason": "not found"}
NOTHING = "audit: nothing was looked up, because the service cannot be reached or knows none of the packages"


@pytest.mark.parametrize(
    ("packages", "code", "lines"),
    [
        (None, 2, [NOTHING]),
        ([UNKNOWN, UNKNOWN], 2, [NOTHING]),
        ([FINE], 0, ["audit: 0 known weaknesses in 1 packages"]),
        (
            [FINE, WEAK, UNKNOWN],
            1,
            [
                "b 2: CVE-1, fixed in 3, 2.1",
                "b 2: X, fixed in none",
                "audit: 2 known weaknesses in 2 packages; 1 could not be looked up",
            ],
        ),
    ],
)
def test_packages_that_nobody_looked_up_are_not_called_safe(packages: Any, code: int, lines: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("audit", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    report = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    assert module.summary(report) == (code, lines)
