"""The notebooks run from top to bottom, smaller than they are shown."""

from __future__ import annotations

from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
#: What the cell tagged ``parameters`` holds here.
SMALL = {
    "ranking": "queries, epochs = 40, 1",
    "alignment": "prompts, steps, epochs = 40, 30, 0.5",
}


def test_every_notebook_has_its_small_settings() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    names = parameters.source.partition("=")[0]
    assert SMALL[name].startswith(names), "the same settings, with other values"
    parameters.source = SMALL[name]
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_kept_with_what_it_printed_and_drew_and_no_path_of_a_machine(name: str) -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    text = (NOTEBOOKS / f"{name}.ipynb").read_text()
    assert "/tmp/" not in text
    assert "/work/" not in text
