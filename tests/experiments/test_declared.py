"""What the experiments declare: names, the paper's figures, and pictures that plotly accepts."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import pytest

from hyperdpo.comparison.entries import ALIGN_VARIANTS
from hyperdpo.experiments import EXPERIMENTS, load
from hyperdpo.experiments.charts import charts
from hyperdpo.experiments.experiment import Experiment
from hyperdpo.experiments.figures import dots
from hyperdpo.experiments.language import LanguageExperiment
from hyperdpo.experiments.language_charts import CHARTS
from hyperdpo.experiments.registry import LANGUAGE
from hyperdpo.experiments.results import figure, meeting_gap, ratio_text, spread, table_rows
from hyperdpo.ranking.config import PAPER, ScorerConfig, build_config, with_overrides
from hyperdpo.ranking.parametrizations import Ranker

MSLR = build_config(preset="mslr")


def test_there_is_an_experiment_for_every_table_and_figure_of_the_paper() -> None:
    ranking = ("2a", "2b", "6a", "6b", "6c", "9a", "9b", "10a", "10b", "11", "12", "13")
    real = ("real", "real-pair2", "real-triple", "real-labels")
    language = ("table2", "figure4", "figure5", "figure7", "stories", *real)
    assert language == LANGUAGE
    assert set(EXPERIMENTS) == {*(f"figure{n}" for n in ranking), "table1", "oracle", "objectives", "groups", *language}


@pytest.mark.parametrize("name", LANGUAGE)
def test_every_experiment_on_a_language_model_is_one_that_can_be_run(name: str) -> None:
    experiment = load(name)
    assert isinstance(experiment, LanguageExperiment)
    assert experiment.name == name
    labels = [entry.label for entry in experiment.entries]
    assert len(set(labels)) == len(labels)
    assert all(set(column.figures) <= set(labels) for column in experiment.columns.values())
    assert set(experiment.charts) <= set(CHARTS)


def test_the_main_methods_of_a_real_model_have_two_seeds() -> None:
    real = load("real")
    assert isinstance(real, LanguageExperiment)
    assert real.seeds == 2
    repeated = [entry.label for entry in real.entries if entry.repeats is None]
    assert repeated == ["DPO-LS", "DPO Soup", "HyperDPO", "HyperDPO, network of gates", "logit mixing"]


def test_table_2_says_what_the_paper_says() -> None:
    """One model, two experts and eleven models, of about the same time each; HyperDPO has the largest hypervolume."""
    columns = load("table2").columns
    assert {kind: column.model for kind, column in columns.items()} == {"gpt2": "GPT-2", "llama": "Alpaca-7B"}
    for column in columns.values():
        own, others = column.figures["HyperDPO (paper)"], {"DPO-LS": 11, "DPO Soup": 2}
        assert set(column.figures) == {"HyperDPO (paper)", *others}
        for label, models in others.items():
            figures = column.figures[label]
            assert figures["train_seconds"] / own["train_seconds"] == pytest.approx(models, rel=0.02)
            assert figures["hypervolume"] < own["hypervolume"]


def test_figure_7_varies_alpha_alone_in_the_papers_setting_beside_dpo_ls() -> None:
    *swept, reference = load("figure7").entries
    assert reference.method == "dpo-ls"
    paper = ALIGN_VARIANTS["hyperdpo"]["paper"]
    assert [entry.overrides["training"]["alpha"] for entry in swept] == [0.2, 0.4, 0.6, 0.8, 1.0]
    for entry in swept:
        training = {name: value for name, value in entry.overrides["training"].items() if name != "alpha"}
        assert {**entry.overrides, "training": training} == paper


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in LANGUAGE])
def test_every_experiment_is_one_that_can_be_run(name: str) -> None:
    experiment = load(name)
    assert isinstance(experiment, Experiment)
    assert experiment.name == name
    labels = [entry.label for entry in experiment.entries]
    assert len(set(labels)) == len(labels)
    assert set(experiment.paper) <= set(labels)
    names = [MSLR.names[j] for j in experiment.positions or range(5)]
    for entry in experiment.entries:
        with_overrides(MSLR.selecting(names), entry.overrides)


@pytest.mark.parametrize(
    ("name", "objectives"),
    [("figure2a", ["query_url_clicks", "url_clicks"]), ("figure2b", ["quality", "quality2"])],
)
def test_the_pairs_are_the_papers(name: str, objectives: list[str]) -> None:
    positions = load(name).positions
    assert positions is not None
    assert [MSLR.names[j] for j in positions] == objectives


def test_table_1_says_what_the_paper_says() -> None:
    """The conditioned model is best in all columns; the others are 11 models, 5 and 16, of one size."""
    paper = load("table1").paper
    own = paper["HyperDPO (paper)"]
    for figures in (figures for label, figures in paper.items() if label != "HyperDPO (paper)"):
        for name, sign in (("hypervolume", 1), ("main_mean", 1), ("train_seconds", -1), ("parameters", -1)):
            assert sign * own[name] > sign * figures[name]
    network = ScorerConfig(width=64, layers=2, conditioning="input")
    single, conditioned = (Ranker(network, 131, weights).num_parameters() for weights in (0, 5))
    assert own["parameters"] == conditioned
    for label, models in (("DPO-LS", 11), ("DPO Soup", 5), ("MO-DPO", 16)):
        assert paper[label]["parameters"] == pytest.approx(models * single, rel=1e-3)  # 55 more in print for the soup


def test_figure_6_varies_alpha_which_matters_little() -> None:
    for name in ("figure6a", "figure6b", "figure6c"):
        experiment = load(name)
        values = [figures["hypervolume"] for figures in experiment.paper.values()]
        assert len(values) == 5
        assert max(values) < 1.025 * min(values)
        for entry in experiment.entries[:5]:
            assert entry.label in experiment.paper
            a, b = entry.overrides["training"]["alpha"]
            assert entry.label == f"α = ({a:g}, {b:g})"


def test_the_papers_settings_are_kept_where_one_is_varied() -> None:
    for entry in load("figure9a").entries[:-1]:
        assert entry.overrides["training"] == PAPER["training"]
        assert entry.overrides["parametrization"] == "scratch"
    deepest = load("figure11").entries[0].overrides
    assert deepest["scorer"] == {**PAPER["scorer"], "layers": 5}
    assert deepest["temperatures"] == {"low": 0.67, "high": 1.5, "parametrization": "augmentation"}


def a_point(w: list[float], x: float, y: float, betas: tuple[float, ...] = (1.0, 1.0), scale: float = 1) -> Any:
    return {
        "weights": w,
        "scale": scale,
        "temperature": list(betas),
        "metrics": {"<x>": x, "y": y},
        "metrics_sd": {"<x>": 0.01, "y": None},
        "main": 0.5 + x / 10,
        "main_sd": 0.0,
    }


def a_front(shift: float = 0.0, **how: Any) -> list[Any]:
    return [a_point([1.0, 0.0], 0.6 + shift, 0.1, **how), a_point([0.0, 1.0], 0.1, 0.6 + shift, **how)]


def a_method(method: str, hypervolume: float, **views: Any) -> dict[str, Any]:
    taken = ("hypervolume", "hypervolume_with_main", "main_mean", "train_seconds")
    return {
        "method": method,
        "objectives": ["<x>", "y"],
        **dict.fromkeys(taken, hypervolume),
        **{f"{key}_sd": 0.001 for key in taken},
        "main_sd": 0.1,
        "models": 1.0,
        "parameters": 100.0,
        "epochs": 3.0,
        "points": a_front(),
        "views": {name: {"points": points, "hypervolume": hypervolume} for name, points in views.items()},
        "seeds": [{}, {}],
    }


def a_comparison() -> dict[str, Any]:
    one_shot = a_method(
        "hyperdpo",
        0.3,
        **{"scales": a_front() + a_front(scale=2), "dense": a_front(), "temperature 1,2": a_front(betas=(1.0, 2.0))},
    )
    base = {"metrics": {"<x>": 0.2, "y": 0.2}, "main": 0.6}
    return {"methods": {"ours": one_shot, "DPO-LS": a_method("dpo-ls", 0.2)}, "base": base}


def test_ratios_are_to_dpo_ls_here_and_in_the_paper() -> None:
    rows = table_rows(a_comparison(), {"ours": {"hypervolume": 2.0}, "DPO-LS": {"hypervolume": 1.6}})
    assert [row["ratio"] for row in rows] == pytest.approx([1.5, 1.0])
    assert [row["paper"]["ratio"] for row in rows] == pytest.approx([1.25, 1.0])
    assert [row["dense"] for row in rows] == [0.3, None]
    alone = a_comparison()
    del alone["methods"]["DPO-LS"]
    assert table_rows(alone, {})[0]["ratio"] is None


def test_fronts_that_share_a_temperature_should_meet_at_its_vertex() -> None:
    method = a_comparison()["methods"]["ours"]
    assert meeting_gap(method) == 0
    method["views"]["temperature 1,2"]["points"] = a_front(shift=0.05, betas=(1.0, 2.0))
    assert meeting_gap(method) == pytest.approx(0.05)  # only β of the first objective is shared
    assert meeting_gap(a_method("dpo-ls", 0.2)) is None


def test_pictures_are_such_that_plotly_takes_them_and_hover_tells_all() -> None:
    comparison = a_comparison()
    case = {
        "name": "",
        "value": 2,
        "objectives": ["<x>", "y"],
        "comparison": comparison,
        "rows": table_rows(comparison, {"ours": {"hypervolume": 0.1}}),
        "oracle": a_front(0.2),
    }
    names = ["front", "hypervolumes", "relative", "scales", "temperatures", "sweep"]
    drawn = charts({"charts": names, "cases": [case], "vary": "objectives"})
    for chart in drawn:
        go.Figure(chart["figure"])
    assert len({chart["id"] for chart in drawn}) == len(drawn)
    hover = drawn[0]["figure"]["data"][0]["text"][0]
    for words in ("w = (1, 0)", "c = 1", "β = (1, 1)", "0.6000 ± 0.0100", "main: 0.5600"):
        assert words in hover


def test_one_repeat_is_drawn_without_a_deviation() -> None:
    (one,) = dots("t", "", ["a"], [0.5], [None])["figure"]["data"]
    (several,) = dots("t", "", ["a"], [0.5], [0.01])["figure"]["data"]
    assert ("±" in one["text"][0], "±" in several["text"][0]) == (False, True)
    assert one["error_x"]["array"] == [0]


def test_figures_are_written_to_the_digits_that_say_something() -> None:
    assert (figure(0.19), figure(0.012, 3), figure(None)) == ("0.1900", "0.0120", "-")
    assert spread(0.14712, 0.0021) == "0.1471 ± 0.0021"
    assert spread(0.0020391, None) == "0.002039"
    assert spread(None, None) == "-"
    assert spread(0.0, 0.0) == "0.0000 ± 0.0000"
    assert ratio_text(1) == "1.000"
