"""What the page on the architecture says of files, names and imports is what the code has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "hyperdpo"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
#: `file.py`, `file.py::name` or `room/`.
NAMED = sorted(set(re.findall(r"`((?:[\w*]+/)*(?:[\w*]+\.py(?:::[\w.]+)?|\w+/))`", PAGE)))


@pytest.mark.parametrize("named", NAMED)
def test_what_the_page_names_is_there(named: str) -> None:
    file, _, name = named.partition("::")
    if "*" in file:
        assert list(PACKAGE.rglob(file)), file
        return
    path = ROOT / file if file.startswith("tests/") else PACKAGE / file
    assert path.exists(), file
    if name:
        assert name in defined(path), named


def defined(path: Path) -> set[str]:
    """Functions, classes, methods and constants of a file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if hasattr(node, "target") else []
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{one.name}" for one in node.body if isinstance(one, ast.FunctionDef)}
    return names


def test_a_wrong_name_would_be_noticed() -> None:
    assert "hypernet_loss" in defined(PACKAGE / "core" / "losses.py")
    assert "no_such_loss" not in defined(PACKAGE / "core" / "losses.py")
    assert len(NAMED) > 40


def imports(room: str) -> set[str]:
    """The rooms that the files of a room import, in functions too."""
    found: set[str] = set()
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {module.split(".")[1] for module in modules if module.startswith("hyperdpo.")}
    return (found & ROOMS) - {room}


def test_the_page_knows_every_room_and_every_arrow() -> None:
    rows = re.findall(r"^\| `(\w+)/` \|([^|\n]*)\|$", PAGE, re.MULTILINE)
    described, arrows = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert {room for room, _ in described} == ROOMS
    told = {room: set(re.findall(r"`(\w+)/`", text)) for room, text in arrows}
    assert told == {room: imports(room) for room in ROOMS}
