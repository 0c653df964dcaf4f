"""Tiny instances of the experiments on language models, and what they may be given."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import transformers
from helpers import Killed, is_one_line, raise_at
from transformers import AutoConfig

from hyperdpo.errors import InputError
from hyperdpo.experiments import running_language
from hyperdpo.experiments.language_charts import language_charts
from hyperdpo.experiments.registry import LANGUAGE, load
from hyperdpo.experiments.running import run_experiment
from hyperdpo.experiments.running_language import SMALL_STEPS, add_spans, figures_of
from hyperdpo.stories.language_model import train_demo_lm

#: Those for which a model may be trained on the spot.
UNASKED = [name for name in LANGUAGE if load(name).source == "stories"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory: data, model and trainings are shared."""
    return tmp_path_factory.mktemp("language")


@pytest.mark.parametrize("name", UNASKED)
def test_a_tiny_instance_writes_its_figures_and_a_page(name: str, out: Path, capsys: Any) -> None:
    result = run_experiment(name, out=out, small=True, cpu=True)
    written = json.loads((out / f"{name}.json").read_text())
    assert written["name"] == result["name"] == name
    (case,) = written["cases"]
    assert [row["label"] for row in case["rows"]] == list(case["comparison"]["methods"])
    for row in case["rows"]:
        assert math.isfinite(row["hypervolume"])
        assert (row.get("texts") is not None) == (name == "stories")
    page = (out / f"{name}.html").read_text()
    assert written["title"] in page
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", page[page.rindex("<script>") :])
    shown = capsys.readouterr().out
    assert f"{name}.html" in shown
    assert "compare orders and shapes" in shown
    drawn = language_charts(result)
    titles = [chart["title"] for chart in drawn]
    assert ("spans" in result["charts"]) == ("Control, cross-entropy error" in titles)
    assert len(drawn) >= len(result["charts"]), "every chart that is declared is drawn"
    for chart in drawn:
        go.Figure(chart["figure"])  # raises where plotly does not know something


@pytest.fixture(scope="module")
def model(out: Path) -> Path:
    """A language model of the user's own: that of the instances which train one, where they find it."""
    path = out / "data" / "demo-lm-small"
    return path if path.exists() else train_demo_lm(path, steps=SMALL_STEPS)


@pytest.mark.parametrize("name", UNASKED)
def test_in_a_new_directory_an_experiment_on_a_given_model_gets_to_its_trainings(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_at(monkeypatch, transformers.Trainer, "training_step", 1)
    out = tmp_path / "new" / "reports"
    with pytest.raises(Killed):
        run_experiment(name, out=out, model=str(model), queries=8, small=True, cpu=True)
    (data,) = (out / "data").glob("*.jsonl")
    assert len(data.read_text().splitlines()) == 8


@pytest.mark.parametrize(("kind", "figure"), [("gpt2", 0.19424), ("llama", 0.16885), ("qwen3", None)])
def test_a_model_stands_beside_the_papers_figures_of_its_own_architecture(
    kind: str, figure: float | None, tmp_path: Path
) -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    figures, told = figures_of(load("table2"), str(tmp_path))
    assert kind in told
    assert figures.get("HyperDPO (paper)", {}).get("hypervolume") == figure


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_sampled(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        run_experiment("table2", out=tmp_path / "file" / "reports", model=str(model), small=True)
    assert is_one_line(error.value, "file", "expected a directory")


def test_control_is_that_of_dpo_ls_in_units_of_itself_or_there_is_a_reason(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for error in (0.0, 1e9):  # clearly above 0, or not, whatever these tiny models learn

        def set_errors(comparison: Any, rows: Any, error: float = error) -> Any:
            for one in comparison["methods"].values():
                for seed in one["seeds"]:
                    for found in (seed, seed["generated"]):
                        found["control_span"] = {name: abs(x) + 0.1 for name, x in found["control_span"].items()}
                        found["control_span_error"] = dict.fromkeys(found["control_span"], error)
            return add_spans(rows, comparison)

        monkeypatch.setattr(running_language, "add_spans", lambda rows, comparison: set_errors(comparison, rows))
        capsys.readouterr()
        result = run_experiment("stories", out=out, small=True, cpu=True)
        rows = {row["label"]: row for row in result["cases"][0]["rows"]}
        shown, page = capsys.readouterr().out, (out / "stories.html").read_text()
        written = json.loads((out / "stories.json").read_text())["cases"][0]["rows"]
        if error == 0:
            assert rows["DPO-LS"]["span_ratio"] == pytest.approx(1)
            (own,) = result["cases"][0]["comparison"]["methods"]["HyperDPO"]["seeds"]
            (other,) = result["cases"][0]["comparison"]["methods"]["DPO-LS"]["seeds"]
            ratios = [own["control_span"][n] / other["control_span"][n] for n in own["control_span"]]
            assert rows["HyperDPO"]["span_ratio"] == pytest.approx(sum(ratios) / len(ratios))
            assert "No ratio of control spans" not in page
        else:
            assert {row["span_ratio"] for row in written} == {None}
            assert all("not clearly above 0" in row["span_ratio_reason"] for row in written)
            assert "DPO-LS's own span" in shown
            assert "DPO-LS&#39;s own span" in page
        titles = [chart["title"] for chart in language_charts(result)]
        assert {"Control, cross-entropy error", "Control, texts"} <= set(titles)
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": Path("somewhere.jsonl")}, ["--model", "expected a causal LM"]),
        ({"data": Path("somewhere.jsonl"), "queries": 9}, ["--queries"]),
    ],
)
def test_what_does_not_fit_gets_one_line(settings: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        run_experiment("table2", out=tmp_path, small=True, **settings)
    assert is_one_line(error.value, *words), str(error.value)


def test_the_command_keeps_options_of_rankers_and_language_models_apart(command: Any, tmp_path: Path) -> None:
    assert command("experiment", "table2", "--folds", "3", "--out", tmp_path).refused("--folds", "language model")
    for option, value in (("--model", "m"), ("--points", 5)):
        assert command("experiment", "table1", option, value, "--out", tmp_path).refused(option, "rankers")
