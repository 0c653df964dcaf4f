"""Every table and figure as a tiny instance, from nothing to JSON and a page."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator
from helpers import Killed, is_one_line, letor_text, raise_at, toy_table

from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.experiments.registry import EXPERIMENTS, LANGUAGE
from hyperdpo.experiments.running import run_experiment
from hyperdpo.ranking.oracle import oracle_front

KEYS = {
    "name",
    "title",
    "question",
    "paper_says",
    "small",
    "charts",
    "vary",
    "data",
    "metric",
    "points",
    "seeds",
    "temperatures",
    "settings",
    "cases",
    "versions",
    "seconds",
}
CASE_KEYS = {"name", "value", "objectives", "groups", "rows", "comparison"}
COMPARISON_KEYS = {"methods", "base", "weights", "temperatures", "repeats", "settings", "versions", "oracle"}
TOY_CONFIG = """
objectives:
  - {name: a, target: l1, column: "7"}
  - {name: b, target: softmax, column: "8"}
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all experiments: they share data and trainings."""
    return tmp_path_factory.mktemp("experiments")


def tiny(name: str, out: Path, **arguments: Any) -> dict[str, Any]:
    return run_experiment(name, out=out, small=True, cpu=True, **arguments)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, float):
        yield value


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in LANGUAGE])
def test_a_tiny_instance_of_every_experiment_writes_its_figures_and_a_page(
    name: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tiny(name, out)

    written = json.loads((out / f"{name}.json").read_text())
    assert written.keys() >= KEYS
    assert written["name"] == result["name"] == name
    assert all(math.isfinite(number) for number in numbers(written))
    for case in written["cases"]:
        assert case.keys() >= CASE_KEYS
        assert case["comparison"].keys() >= COMPARISON_KEYS
        assert [row["label"] for row in case["rows"]] == list(case["comparison"]["methods"])
    page = (out / f"{name}.html").read_text()
    assert written["title"] in page
    assert f'href="{name}.json"' in page
    shown = capsys.readouterr().out
    assert f"{name}.html" in shown
    assert "hypervolume" in shown
    assert "trainings" in shown


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in LANGUAGE])
def test_in_a_new_directory_every_experiment_gets_to_its_trainings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_at(monkeypatch, Accelerator, "backward", 1)
    with pytest.raises(Killed):
        tiny(name, tmp_path / "new" / "reports", queries=40)
    assert list((tmp_path / "new" / "reports" / "data").iterdir())


def test_the_page_is_complete_in_itself(out: Path) -> None:
    result = tiny("figure2a", out)
    page = (out / "figure2a.html").read_text()
    head = page[: page.index("plotly.js v")] + page[page.rindex("<script>") :]  # without plotly's own source

    assert not re.search(r"<(script|link|img|iframe)[^>]*\b(src|href)\s*=", head)
    assert not re.search(r"""(src|href)\s*=\s*["']?https?:""", head)
    assert "@import" not in head
    assert "url(" not in head
    assert "default-src 'none'" in head
    embedded = re.search(r'<script type="application/json" id="result">(.*?)</script>', page, re.DOTALL)
    assert embedded is not None
    assert json.loads(embedded[1])["cases"] == json.loads((out / "figure2a.json").read_text())["cases"]
    drawn = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL)
    assert drawn is not None
    names = [trace["name"] for trace in json.loads(drawn[1])[0]["figure"]["data"]]
    assert {*result["cases"][0]["comparison"]["methods"], "base", "oracle"} <= set(names)


def test_markup_in_a_name_stays_text(out: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TOY_CONFIG.replace("name: a", "name: '</script><b>a</b>'"))
    data = tmp_path / "toy.txt"
    data.write_text(letor_text(toy_table(30)))
    tiny("figure10a", out, data=data, config_file=config)
    assert "</script><b>" not in (out / "figure10a.html").read_text()


def test_what_is_trained_already_is_not_trained_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny("figure2a", out)
    raise_at(monkeypatch, Accelerator, "backward", 1)
    assert tiny("figure2a", out)["cases"] == first["cases"]
    # The scales of Figure 10a are of the same models.
    tiny("figure10a", out)


def test_a_directory_of_folds_gives_one_repeat_per_fold_and_no_path_in_the_report(tmp_path: Path) -> None:
    data = tmp_path / "SMALL-WEB"
    for fold in (1, 2):
        for number, part in enumerate(("train", "vali", "test")):
            generate(data / f"Fold{fold}" / f"{part}.txt", 12, seed=10 * fold + number)
    result = tiny("figure11", tmp_path / "out", data=data, seeds=2)

    assert [repeat["name"] for repeat in result["cases"][0]["comparison"]["repeats"]] == [
        "seed-0-fold-1",
        "seed-1-fold-2",
    ]
    assert result["data"]["source"] == "SMALL-WEB"
    assert "2 folds" in result["data"]["description"]
    assert "MSLR-WEB10K" in result["data"]["differs"]
    assert str(tmp_path) not in (tmp_path / "out" / "figure11.html").read_text()


def test_other_data_take_the_first_two_objectives_of_their_configuration(tmp_path: Path) -> None:
    config, data = tmp_path / "config.yaml", tmp_path / "toy.txt"
    config.write_text(TOY_CONFIG)
    data.write_text(letor_text(toy_table(30)))

    result = tiny("figure2b", tmp_path, data=data, config_file=config)
    assert result["cases"][0]["objectives"] == ["a", "b"]
    assert "not the paper's" in result["data"]["differs"]
    table = tiny("table1", tmp_path, data=data, config_file=config)
    assert all(row["paper"] is None for row in table["cases"][0]["rows"])  # the paper's are of five objectives
    most = tiny("objectives", tmp_path, data=data, config_file=config)
    assert [case["value"] for case in most["cases"]] == [2]


def test_settings_reach_the_trainings(out: Path) -> None:
    result = tiny("figure9b", out, overrides={"training": {"epochs": 2, "sampling_factor": 1}})
    *papers, mixture = result["cases"][0]["rows"]
    assert {row["epochs"] for row in papers} == {4}, "the paper's setting takes 1.75 times as many"
    assert mixture["epochs"] == 1


def test_more_training_groups_contain_the_fewer_and_are_tested_on_the_same(out: Path) -> None:
    cases = tiny("groups", out)["cases"]
    few, many = (case["groups"] for case in cases)
    assert few["train"] < many["train"]
    assert (few["validation"], few["test"]) == (many["validation"], many["test"])
    assert all(0 < row["fraction"] < 1 for case in cases for row in case["rows"])


@pytest.mark.parametrize("name", ["oracle", "objectives", "groups"])
def test_lightgbm_is_among_the_methods_of_the_honest_looks(name: str, out: Path) -> None:
    pytest.importorskip("lightgbm")
    for case in tiny(name, out)["cases"]:
        one = case["comparison"]["methods"]["LightGBM-LS"]
        assert one["method"] == "lightgbm-ls"
        assert one["views"] == {}
        assert math.isfinite(one["hypervolume"])


def test_without_lightgbm_one_line_says_that_it_is_left_out(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("hyperdpo.extras.find_spec", lambda name: None if name == "lightgbm" else name)
    methods = tiny("oracle", out)["cases"][0]["comparison"]["methods"]
    assert "LightGBM-LS" not in methods
    assert len(methods) == 6
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert len(said) == 1
    assert "LightGBM-LS" in said[0]
    assert "hyperdpo[gbdt]" in said[0]
    tiny("figure10a", out)
    assert "left out" not in capsys.readouterr().out


def test_the_front_of_the_oracle_is_computed_once_per_repeat(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def spy(*arguments: Any) -> Any:
        asked.append(arguments)
        return oracle_front(*arguments)

    monkeypatch.setattr("hyperdpo.comparison.rank_measures.oracle_front", spy)
    result = tiny("figure2a", out, seeds=2)
    assert len(asked) == 2
    assert result["cases"][0]["oracle"] == result["cases"][0]["comparison"]["oracle"]


def test_several_processes_are_refused_before_data_are_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = SimpleNamespace(num_processes=2)
    monkeypatch.setattr("hyperdpo.experiments.running_rankers.make_accelerator", lambda *_, **__: several)
    with pytest.raises(InputError) as error:
        tiny("figure2a", tmp_path)
    assert is_one_line(error.value, "one process", "accelerate launch")
    assert not list(tmp_path.iterdir())


def test_regret_and_fractions_of_a_report_are_those_of_its_points(out: Path) -> None:
    """From the points of the JSON alone, written out for two objectives."""
    case = tiny("oracle", out)["cases"][0]
    grid = weight_grid(2, 3).tolist()
    assert [point["weights"] for point in case["oracle"]] == grid
    names = case["objectives"]

    def area(points: list[dict[str, Any]]) -> float:
        corners = sorted(([p["metrics"][name] for name in names] for p in points), reverse=True)
        total = top = 0.0
        for x, y in corners:
            total += x * max(y - top, 0)
            top = max(top, y)
        return total

    for row in case["rows"]:
        points = case["comparison"]["methods"][row["label"]]["points"]
        lost = [
            sum(w * (best["metrics"][name] - own["metrics"][name]) for w, name in zip(p, names, strict=True))
            for p, best, own in zip(grid, case["oracle"], points, strict=True)
        ]
        assert row["regret"] == pytest.approx(sum(lost) / len(lost), abs=1e-9)
        assert row["fraction"] == pytest.approx(area(points) / area(case["oracle"]), rel=1e-9)


def test_the_papers_figures_stand_beside_its_own_objectives_only(out: Path) -> None:
    own = tiny("figure6a", out)
    assert any(row["paper"] for row in own["cases"][0]["rows"])
    assert "here:" not in own["title"]
    other = tiny("figure6a", out, objectives=["quality", "quality2"])
    assert all(row["paper"] is None for row in other["cases"][0]["rows"])
    assert other["title"].endswith("here: quality, quality2")


def test_settings_that_an_entry_keeps_are_named(out: Path) -> None:
    with pytest.warns(UserWarning, match=r"HyperDPO \(paper\) keeps its own training.alpha=0.5"):
        tiny("figure2a", out, overrides={"training": {"alpha": 3.0}})


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("figure99", {}, ("figure99", "figure2a", "groups")),
        ("figure2a", {"data": Path("nowhere.txt")}, ("nowhere.txt", "no such file")),
        ("figure2a", {"data": Path("nowhere.txt"), "queries": 5}, ("--queries", "--data")),
        ("figure2a", {"objectives": ["quality"]}, ("--objectives", "figure2a expects 2")),
        ("table1", {"objectives": ["quality"]}, ("table1", "at least 2")),
        ("figure2a", {"overrides": {"training": {"epoch": 1}}}, ("training.epoch", "not a setting")),
    ],
)
def test_a_users_mistake_is_one_line(
    name: str, arguments: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        tiny(name, tmp_path, **arguments)
    assert is_one_line(error.value, *words)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        tiny("figure2a", tmp_path / "file")
    assert is_one_line(error.value, "file", "expected a directory")


def test_a_broken_training_file_is_named(tmp_path: Path) -> None:
    tiny("figure10a", tmp_path)
    shutil.rmtree(tmp_path / "data")
    model = next((tmp_path / "trainings").glob("*/*/models/*.safetensors"))
    model.write_bytes(b"not a model")
    with pytest.raises(InputError) as error:
        tiny("figure10a", tmp_path)
    assert is_one_line(error.value, model.name)
