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


# --- circles

MODULES = {
    ".".join(("hyperdpo", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imported(tree: ast.AST) -> set[str]:
    """The modules that a module imports, also inside functions; what only type checkers see is left out."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= named or {str(node.module)}
        found |= imported(node)
    return found & MODULES.keys()


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of modules each of which reaches all others of its set."""
    reached = {start: reachable(arrows, start) for start in arrows}
    found = {frozenset(other for other in reached[m] if m in reached[other]) for m in arrows if m in reached[m]}
    return [set(circle) for circle in found]


def reachable(arrows: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(arrows[start])
    while waiting:
        if (module := waiting.pop()) not in found:
            found.add(module)
            waiting += arrows[module]
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = {name: imported(ast.parse(path.read_text())) for name, path in MODULES.items()}
    assert circles(arrows) == []


def test_a_circle_would_be_noticed() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]
    assert imported(ast.parse("def f():\n    from hyperdpo.core import losses")) == {"hyperdpo.core.losses"}
    assert imported(ast.parse("if TYPE_CHECKING:\n    import hyperdpo.files")) == set()
