"""Methods side by side: the same split, base, weights and temperatures; each training once; the figures' meaning."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import Accelerator
from helpers import (
    CLICKS,
    TINY_OPTIONS,
    Killed,
    cpu,
    is_one_line,
    raise_at,
    raise_when,
    read,
    toy_config,
    toy_table,
)

from hyperdpo.comparison.entries import RANK_VARIANTS, Entry
from hyperdpo.comparison.entries import parse_entry as parse
from hyperdpo.comparison.methods import METHODS, Conditioned, Fixed, Margin, jobs_of
from hyperdpo.comparison.rank import RankTrainings, few_weightings
from hyperdpo.comparison.rank_measures import SCALES, compare
from hyperdpo.comparison.rank_trees import lightgbm_base
from hyperdpo.comparison.repeats import RankRepeat
from hyperdpo.comparison.summary import mean_and_sd
from hyperdpo.comparison.tables import print_rankers
from hyperdpo.core.losses import listnet_loss
from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.plots import plot_fronts
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.clicks import fit_position_power
from hyperdpo.ranking.evaluation import evaluate_front
from hyperdpo.ranking.fitting import split_table
from hyperdpo.ranking.oracle import attained


def parse_entry(text: str) -> Entry:
    return parse(text, RANK_VARIANTS)


METHOD_NAMES = ["hyperdpo:mixture", "hyperdpo:scratch", "dpo-ls", "dpo-soup", "mo-dpo"]


def repeats(count: int = 2) -> list[RankRepeat]:
    table = toy_table()
    return [RankRepeat(f"seed-{s}", s, split_table(table, toy_config())) for s in range(count)]


def run(
    out: Path, methods: list[str] = METHOD_NAMES, *, count: int = 2, points: int = 3, **settings: Any
) -> dict[str, Any]:
    entries = [parse_entry(method) for method in methods]
    return compare(toy_config(**settings), repeats(count), entries, cpu(), out, points=points)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def result(directory: Path) -> dict[str, Any]:
    return run(directory)


@pytest.fixture(scope="module")
def bench(directory: Path, result: dict[str, Any]) -> RankTrainings:
    return RankTrainings(repeats()[0], toy_config(), directory / "seed-0", cpu())


def test_every_method_is_measured_at_the_same_weights(result):
    grids = [[p["weights"] for p in one["points"]] for one in result["methods"].values()]
    assert all(grid == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]] for grid in grids)


def test_models_parameters_and_seconds_are_counted_over_all_trainings(result):
    methods = result["methods"]
    assert {name: one["models"] for name, one in methods.items()} == {
        "hyperdpo:mixture": 1, "hyperdpo:scratch": 1, "dpo-ls": 3, "dpo-soup": 2, "mo-dpo": 3,
    }  # fmt: skip
    assert methods["dpo-ls"]["parameters"] == 1.5 * methods["dpo-soup"]["parameters"]
    for one in methods.values():
        assert one["train_seconds"] > 0
        assert len(one["seeds"]) == 2


def test_a_mean_over_repeats_is_that_of_the_repeats(result):
    for one in result["methods"].values():
        for name in ("hypervolume", "hypervolume_with_main", "train_seconds"):
            values = [seed[name] for seed in one["seeds"]]
            assert one[name] == pytest.approx(np.mean(values))
            assert one[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1))
        first = [seed["points"][0]["metrics"]["a"] for seed in one["seeds"]]
        assert one["points"][0]["metrics"]["a"] == pytest.approx(np.mean(first))


def test_the_result_is_json_without_nan(result):
    json.dumps(result, allow_nan=False)


def test_the_result_holds_the_settings_and_the_epochs_that_were_allowed(result):
    assert result["settings"] == toy_config().to_dict()
    allowed = {name: one["epochs_allowed"] for name, one in result["methods"].items()}
    assert allowed == dict.fromkeys(METHOD_NAMES, 2) | {"hyperdpo:mixture": 1}
    for name, one in result["methods"].items():
        assert all(seed["epochs_allowed"] == allowed[name] >= max(seed["epochs"]) for seed in one["seeds"])


def test_the_table_tells_deviations_over_seeds_from_those_over_points_and_epochs_run_from_those_allowed(result, capsys):
    print_rankers(result)
    lines = capsys.readouterr().out.splitlines()
    for name, one in result["methods"].items():
        (row,) = (line for line in lines if line.startswith(f"│ {name} "))
        cells = [cell.strip() for cell in row.split("│")[2:-1]]
        assert cells[2] == f"{one['main_mean']:.4f} ± {one['main_mean_sd']:.4f}"
        assert cells[3] == f"± {one['main_sd']:.4f}"
        assert cells[6] == f"{one['epochs']:.3g} / {one['epochs_allowed']}"


def test_one_repeat_is_written_and_printed_without_a_deviation_over_repeats(directory, result, capsys):
    """Its trainings are there already, from the comparison of two."""
    config, entries = toy_config(), [parse_entry("dpo-ls")]
    one = compare(config, repeats(1), entries, cpu(), directory, points=3)
    found = one["methods"]["dpo-ls"]
    assert found["hypervolume_sd"] is found["train_seconds_sd"] is found["points"][0]["main_sd"] is None
    print_rankers(one)
    text = capsys.readouterr().out
    assert ", 1 repeat, " in text
    assert text.count("±") == 1  # over the points of the front


def test_a_model_from_its_file_is_on_the_accelerators_device(directory, result):
    again = RankTrainings(repeats()[0], toy_config(), directory / "seed-0", cpu())
    again.accelerator = SimpleNamespace(device=torch.device("meta"))  # any other than where files are read to
    for name, job in (("dpo-ls", Fixed((1.0, 0.0))), ("hyperdpo:mixture", Conditioned())):
        ranker = again.trained(job, parse_entry(name)).model
        assert {tensor.device.type for tensor in ranker.state_dict().values()} == {"meta"}


def test_all_models_of_mo_dpo_are_counted_where_the_others_augment_the_base(tmp_path):
    """Its experts are from scratch as its own models are: no training that is not in the table."""
    config = toy_config(parametrization="augmentation")
    found = compare(config, repeats(1), [parse_entry("mo-dpo")], cpu(), tmp_path, points=3)
    files = list((tmp_path / "seed-0" / "models").glob("*.safetensors"))
    assert len(files) == found["methods"]["mo-dpo"]["models"] == 3


@pytest.mark.parametrize("several", [2, 8])
def test_several_processes_are_refused(tmp_path, several):
    with pytest.raises(InputError) as error:
        compare(toy_config(), repeats(1), [parse_entry("dpo-ls")], SimpleNamespace(num_processes=several), tmp_path)
    assert is_one_line(error.value, "one process", str(several), "accelerate launch")
    assert not list(tmp_path.iterdir())


def test_the_fronts_of_the_means_can_be_drawn(result, tmp_path):
    plot_fronts(result["methods"], tmp_path / "means.png", result["base"])
    assert (tmp_path / "means.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_comparison_trains_nothing_again(result, directory, monkeypatch):
    raise_at(monkeypatch, Accelerator, "backward", 1)
    again = run(directory)
    for name, one in again["methods"].items():
        assert one["hypervolume"] == result["methods"][name]["hypervolume"]
        assert one["train_seconds"] == result["methods"][name]["train_seconds"]


def test_a_killed_comparison_goes_on_to_the_same_figures(result, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        raise_when(patch, Accelerator, "backward", lambda: len(list(tmp_path.rglob("models/*.safetensors"))) == 2)
        with pytest.raises(Killed):
            run(tmp_path)
    done = {file: file.read_bytes() for file in tmp_path.rglob("models/*.safetensors")}
    again = run(tmp_path)
    assert len(done) == 2
    assert all(file.read_bytes() == content for file, content in done.items())
    for name, one in again["methods"].items():
        assert one["points"] == result["methods"][name]["points"]


def test_methods_share_the_trainings_that_they_have_in_common(directory, result):
    """Three fixed models serve DPO-LS, the soup and MO-DPO; one more has the margin; two are conditioned."""
    names = sorted(p.name.rsplit("-", 1)[0] for p in (directory / "seed-0" / "models").glob("*.safetensors"))
    assert names == ["conditioned", "conditioned", "fixed-0-1", "fixed-0.5-0.5", "fixed-1-0", "margin-0.5-0.5"]


def test_a_soup_has_the_average_of_the_experts_parameters(bench):
    entry = parse_entry("dpo-soup")
    (recipe,) = METHODS["dpo-soup"](np.array([[0.3, 0.7]]))
    first, second = (bench.trained(Fixed(w), entry).model.state_dict() for w in ((1.0, 0.0), (0.0, 1.0)))
    for name, tensor in bench.answering(recipe, entry).state_dict().items():
        torch.testing.assert_close(tensor, 0.3 * first[name] + 0.7 * second[name])
    start = [bench.start(Fixed(w), entry).ranker.state_dict() for w in ((1.0, 0.0), (0.0, 1.0))]
    assert all(torch.equal(start[0][name], start[1][name]) for name in start[0]), "the same initialisation"


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> RankTrainings:
    """Three objectives at temperatures 0.5, 2 and 1."""
    table = toy_table()
    third = np.maximum(np.round(3 + 2 * table.column("f2") - table.column("f0")), 0)
    table = replace(table, values=np.column_stack([table.values, third]), columns=(*table.columns, "c"))
    objectives = [{"name": "a", "target": "l1", "beta": 0.5}, {"name": "b", "beta": 2.0}, {"name": "c", "beta": 1.0}]
    parts = split_table(table, toy_config())
    given = dict.fromkeys(parts, 2 * table.column("f1"))
    repeat = RankRepeat("three", 0, parts, BaseSource("given"), given)
    return RankTrainings(repeat, toy_config(objectives=objectives), tmp_path_factory.mktemp("three"), cpu())


@pytest.mark.parametrize(
    ("which", "w"),
    [("bench", (0.3, 0.7)), ("three", (0.3, 0.5, 0.2)), ("three", (0.4, 0.6, 0.0)), ("three", (0.5, 0.1, 0.4))],
)
def test_the_loss_with_a_margin_is_that_of_the_paper(which, w, request):
    """Eq. (18) written out, against the training job's own base scores and temperature."""
    bench = request.getfixturevalue(which)
    m, i = len(w), int(np.argmax(w))
    entry = parse_entry("mo-dpo")
    job = next(j for j in jobs_of(METHODS["mo-dpo"](np.array([w]))) if isinstance(j, Margin))
    training = bench.on_margin(bench.start(job, entry), job, entry)
    plain = bench.prepared.examples["train"]
    experts = [bench.expert_scores(Fixed(tuple(row)), entry) for row in np.eye(m).tolist()]
    rng = np.random.default_rng(0)
    for group_batch in training.train.batches()[:2]:
        batch, own = training.train.batch(group_batch), plain.batch(group_batch)
        scores = torch.from_numpy(rng.normal(size=batch.mask.shape)).float()
        rows, mask = plain.index(group_batch)
        reward = scores - own.base_scores
        for j in range(m):
            if j != i:
                expert = torch.from_numpy(np.where(mask, experts[j][rows], 0)).float()
                reward = reward - w[j] * (expert - own.base_scores)
        beta = bench.prepared.betas[i]
        expected = listnet_loss(beta * reward / w[i], own.targets[:, i], own.mask)
        found = training.ranker.losses(scores, batch, training.betas)[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_best_one_shot_entry_is_chosen_on_validation_groups(result):
    found = {n: one["validation"]["hypervolume_with_main"] for n, one in result["methods"].items() if one["one_shot"]}
    assert result["chosen"] == max(found, key=lambda name: found[name])


def test_more_weightings_and_other_scales_can_only_add_to_the_hypervolume(result):
    one = result["methods"]["hyperdpo:mixture"]
    for seed in one["seeds"]:
        assert seed["views"]["dense"]["hypervolume"] >= seed["hypervolume"] - 1e-12
        assert seed["views"]["scales"]["hypervolume_with_main"] >= seed["hypervolume_with_main"] - 1e-12
    assert len(one["views"]["dense"]["points"]) == 101
    assert len(one["views"]["scales"]["points"]) == 9


def test_the_best_scale_is_that_of_the_best_validation_front(result, bench):
    seed = result["methods"]["dpo-ls"]["seeds"][0]
    betas, metric, grid, on = bench.prepared.betas, bench.prepared.config.metric, weight_grid(2, 3), bench.validation
    score = bench.score(parse_entry("dpo-ls"), grid, betas, on)
    volumes = {c: evaluate_front(score, on, grid, [c], betas, metric).hypervolume_with_main for c in SCALES}
    assert seed["best_scale"] == max(volumes, key=lambda c: volumes[c])
    assert {p["scale"] for p in seed["views"]["best scale"]["points"]} == {seed["best_scale"]}


@pytest.mark.parametrize("m", [1, 2, 3, 5, 8])
def test_the_few_weightings_are_the_vertices_and_some_inside(m):
    few = few_weightings(m)
    assert {tuple(row) for row in np.eye(m)} <= {tuple(row) for row in few}
    assert m == 1 or (few.min(1) > 0).any()
    if m == 2:
        np.testing.assert_array_equal(few, weight_grid(2, 3))


def test_one_repeat_has_a_mean_and_no_standard_deviation():
    assert mean_and_sd([2.0]) == (2.0, None)
    assert mean_and_sd([2.0, 4.0]) == (3.0, pytest.approx(2**0.5))
    assert mean_and_sd([2.0, None]) == (None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dpo", ["no method 'dpo'", "dpo-ls"]),
        ("hyperdpo:soup", ["no variant", "hyperdpo:mixture"]),
        ("mo-dpo:x", ["mo-dpo"]),
    ],
)
def test_an_unknown_method_is_refused(text, words):
    with pytest.raises(InputError) as error:
        parse_entry(text)
    assert is_one_line(error.value, *words)


@pytest.mark.parametrize("method", RANK_VARIANTS)
def test_every_variant_is_a_setting_that_can_be_run_and_stands_in_the_help(method, command):
    found = command("rank", "compare", "--help").out
    text = re.sub(r"\s", "", found)
    listed = re.search(rf"{method}(\([^)]*\))?[,;]", text)
    assert listed is not None
    for variant in RANK_VARIANTS[method]:
        assert f":{variant}" in listed[0]
        entry = parse_entry(f"{method}:{variant}")
        assert (entry.label, entry.method, entry.overrides) == (
            f"{method}:{variant}",
            method,
            RANK_VARIANTS[method][variant],
        )
        if method != "lightgbm-ls":
            toy_config(**entry.overrides)


def test_the_exact_variant_is_linear_scalarisation_from_the_base_as_given(tmp_path):
    """At w and β = 1: exp(s - s_base) is proportional to the mixture of the heads' own targets."""
    bench = RankTrainings(repeats(1)[0], toy_config(), tmp_path, cpu())
    ranker = bench.trained(Conditioned(), parse_entry("hyperdpo:exact")).model.eval()
    assert ranker.chosen == {"smoothing": 0, "power": 1}
    assert not ranker.candidates
    batch = bench.validation.batch(bench.validation.batches()[0])
    w = torch.tensor([0.3, 0.7])
    with torch.no_grad():
        scores = ranker.scores(batch, w.expand(1, len(batch.mask), 2), [1.0, 1.0])[0]
        heads = ranker(batch)[:, :2].masked_fill(~batch.mask.unsqueeze(1), -torch.inf).softmax(-1)
    found = (scores - batch.base_scores).masked_fill(~batch.mask, -torch.inf).softmax(-1)
    torch.testing.assert_close(found, (w[:, None] * heads).sum(1), rtol=1e-4, atol=1e-5)


def test_the_oracle_loses_nothing_to_itself_and_a_front_what_it_lacks(bench):
    front = evaluate_front(
        lambda _, batch: batch.base_scores.unsqueeze(0).expand(3, -1, -1),
        bench.test(),
        weight_grid(2, 3),
        [1.0],
        bench.prepared.betas,
        bench.prepared.config.metric,
    )
    assert attained(front, front)["regret"] == [0, 0, 0]
    assert attained(front, front)["fraction"] == attained(front, front)["fraction_with_main"] == 1
    worse = replace(front, metrics=front.metrics - [0.1, 0.3])
    found = attained(worse, front)
    np.testing.assert_allclose(found["regret"], [0.1, 0.2, 0.3])  # w = (1, 0), (0.5, 0.5), (0, 1)
    a, b = front.metrics[0]
    assert found["fraction"] == pytest.approx((a - 0.1) * (b - 0.3) / (a * b))


def test_a_penalty_is_for_the_methods_that_draw_weights(tmp_path):
    """A mixture among them does without; one that would have it is refused before anything is trained."""
    penalty = {"training": {"penalty": 0.1}}
    result = run(tmp_path, ["hyperdpo:scratch", "hyperdpo:mixture"], count=1, **penalty)
    assert list(result["methods"]) == ["hyperdpo:scratch", "hyperdpo:mixture"]
    with pytest.raises(InputError) as error:
        run(tmp_path / "other", ["hyperdpo:scratch", "hyperdpo"], count=1, **penalty)
    assert is_one_line(error.value, "hyperdpo", "penalty is 0.1", "mixture")
    assert not (tmp_path / "other").exists()


def test_settings_that_a_training_does_not_read_do_not_train_it_again(tmp_path, monkeypatch):
    methods = ["hyperdpo:scratch", "hyperdpo:mixture", "dpo-ls"]
    run(tmp_path, methods, count=1)
    raise_at(monkeypatch, Accelerator, "backward", 1)
    run(tmp_path, methods, count=1, training={"checkpoint_seconds": 1.0})
    run(tmp_path, ["hyperdpo:scratch"], count=1, mixture={"power": 0.5}, temperatures={"low": 0.5})
    run(tmp_path, ["hyperdpo:mixture", "dpo-ls"], count=1, training={"alpha": 2.0, "vertex_share": 0.5})
    with pytest.raises(Killed):
        run(tmp_path, ["hyperdpo:scratch"], count=1, training={"alpha": 2.0})


def test_settings_that_a_variant_keeps_are_named(generated, tmp_path, command):
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", "url_clicks,quality", "--cpu"]
    arguments += ["--methods", "hyperdpo:paper", "--points", "3", "--seeds", "1", "--out", tmp_path, *TINY_OPTIONS]
    done = command(*arguments, "--set", "training.alpha=5", "--set", "training.weights_per=batch")
    assert done.code == 0
    assert "hyperdpo:paper keeps its own training.alpha=0.5" in done.err
    assert "weights_per" not in done.err


# --- LightGBM


def test_lightgbm_is_trained_to_the_main_score_of_hyperdpo(tmp_path, capsys):
    pytest.importorskip("lightgbm")
    methods, few = ["lightgbm-ls", "lightgbm-ls:base", "hyperdpo:mixture"], {"trees": 30, "min_items_in_leaf": 5}
    found = run(tmp_path, methods, count=1, gbdt=few)
    assert found["versions"]["lightgbm"] == version("lightgbm")
    for name in ("lightgbm-ls", "lightgbm-ls:base"):
        one = found["methods"][name]["seeds"][0]
        assert one["models"] == 3
        details = one["details"]
        tried = {one["share"]: one["main"] for one in details["main_shares_tried"]}
        enough = [share for share, main in tried.items() if main >= details["main_target"] - 0.005]
        assert details["main_share"] == (min(enough) if enough else max(tried, key=lambda share: tried[share]))
    print_rankers(found)
    shown = capsys.readouterr().out
    for name in ("lightgbm-ls", "lightgbm-ls:base"):
        spent = found["methods"][name]["seeds"][0]["details"]["search_seconds"]
        assert f"{name}: {spent:.1f} s more to find the main label's share" in shown
    again = run(tmp_path, methods, count=1, gbdt=few)
    assert again["methods"]["lightgbm-ls"]["train_seconds"] == found["methods"]["lightgbm-ls"]["train_seconds"]


def test_a_lightgbm_base_belongs_to_its_groups_and_settings(tmp_path):
    """In one directory, another split, fold or setting must not find a base that saw other groups."""
    pytest.importorskip("lightgbm")
    config = toy_config(gbdt={"trees": 3, "min_items_in_leaf": 2})
    table = toy_table()

    def files(parts: dict[str, Part], **settings: Any) -> int:
        repeat = RankRepeat("seed-0", 0, parts, BaseSource("lightgbm"))
        lightgbm_base(repeat, toy_config(gbdt={"trees": 3, "min_items_in_leaf": 2} | settings), tmp_path)
        return len(list(tmp_path.glob("*.txt")))

    parts = split_table(table, config)
    assert files(parts) == files(parts) == 1
    assert files(parts | {"train": Part(table, parts["test"].groups)}) == 2
    assert files(parts | {"validation": Part(table, parts["validation"].groups[1:])}) == 3
    assert files({"train": parts["train"], "test": parts["test"]}) == 4
    other = replace(table, fingerprint="another table")
    assert files(parts | {"validation": Part(other, parts["validation"].groups)}) == 5
    assert files(parts, trees=2) == 6
    with pytest.raises(InputError, match="no main label"):
        lightgbm_base(RankRepeat("seed-0", 0, parts, BaseSource("lightgbm")), replace(config, main=None), tmp_path)


def test_a_lightgbm_base_learns_the_main_label_with_its_clicks_corrected(tmp_path):
    """As from labels that were corrected by hand, where each list counts by how much they were."""
    pytest.importorskip("lightgbm")
    rng, table = np.random.default_rng(0), toy_table(60, largest=6)
    values, ends = np.tile(table.values, (2, 1)), np.append(table.offsets, table.offsets[1:] + table.num_rows)
    position = rng.integers(1, 7, len(values))  # every document is shown twice
    clicks = (rng.random(len(values)) < np.clip(values[:, 0], 0.2, 1) / position).astype(float)
    gbdt = {"trees": 5, "min_items_in_leaf": 2, "patience": 0}

    def scores(main: dict[str, Any], label: np.ndarray, **more: Any) -> np.ndarray:
        columns = np.column_stack([label, values[:, 1:], position, *more.values()]).astype(np.float32)
        data = replace(
            table,
            values=columns,
            columns=(*table.columns, "k", *more),
            qids=np.arange(120),
            offsets=ends,
            fingerprint="x",
        )
        settings = {"weight": next(iter(more), None), "excluded_columns": ["k"]}
        config = toy_config(main={"name": "relevance", "target": "l1"} | main, gbdt=gbdt, **settings)
        parts = {"train": Part(data, np.arange(120))}
        directory = tmp_path / "-".join([*main, *more])
        return lightgbm_base(RankRepeat("seed-0", 0, parts, BaseSource("lightgbm")), config, directory)["train"]

    found = scores({"position": "k"}, clicks)
    documents = np.tile(np.arange(len(values) // 2), 2)
    power = fit_position_power(clicks, position.astype(float), documents)
    corrected = clicks * np.minimum(position**power, 10)
    before, after = (np.add.reduceat(one, ends[:-1]) for one in (clicks, corrected))
    counts = np.divide(after, before, out=np.ones(120), where=before > 0)
    by_hand = scores({}, corrected, w=np.repeat(counts, np.diff(ends)))
    np.testing.assert_allclose(found, by_hand, rtol=1e-3, atol=1e-5)
    assert np.ptp(found) > 0.01


def test_the_settings_of_lightgbm_reach_its_models(tmp_path):
    pytest.importorskip("lightgbm")
    config = toy_config(gbdt={"trees": 2, "patience": 0, "leaves": 3, "min_items_in_leaf": 2})
    entries = [parse_entry(name) for name in ("hyperdpo", "lightgbm-ls")]
    found = compare(config, repeats(1), entries, cpu(), tmp_path, points=3)
    assert found["methods"]["lightgbm-ls"]["seeds"][0]["details"]["trees"] == [2, 2, 2]


def test_lightgbm_alone_has_no_main_score_to_match(tmp_path):
    with pytest.raises(InputError) as error:
        run(tmp_path, ["lightgbm-ls"], count=1)
    assert is_one_line(error.value, "lightgbm-ls", "hyperdpo among the methods")


# --- the command


def test_the_command_writes_a_comparison_and_a_picture(generated, tmp_path, command):
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", "query_url_clicks,url_clicks"]
    arguments += [
        "--methods",
        "hyperdpo,hyperdpo:paper,hyperdpo:gain,dpo-ls,lightgbm-ls",
        "--points",
        "3",
        "--seeds",
        "2",
        "--cpu",
    ]
    arguments += ["--set", "gbdt.trees=10"]
    done = command(*arguments, "--oracle", generated[1], "--out", tmp_path / "c", *TINY_OPTIONS)
    assert done.code == 0, done.err
    assert "best one-shot entry on validation groups" in done.out
    written = read(tmp_path / "c" / "compare.json")
    assert (tmp_path / "c" / "compare.png").read_bytes().startswith(b"\x89PNG")
    keys = {"objectives", "directions", "metric", "points", "hypervolume", "hypervolume_with_main", "reference_point"}
    keys |= {"parameters", "train_seconds", "models", "seeds"}
    for one in written["methods"].values():
        assert keys <= set(one)
        assert 0 < one["oracle"]["fraction"] < 1.2
    gains = [name for name, one in written["methods"].items() if one["attainable_by"] != "closed form"]
    assert gains == ["hyperdpo", "hyperdpo:gain"]
    table = done.out[done.out.index("fraction of the attainable") :].splitlines()
    (heads,) = (line for line in table if "closed form" in line)
    assert [cell.strip() for cell in heads.split("┃")[2:-1]] == [
        "order by expected gains, at the own share",
        "closed form",
    ]
    for name, one in written["methods"].items():
        row = next(line for line in table if line.startswith(f"│ {name} "))
        cells = [cell.strip() for cell in row.split("│")[2:-1]]
        shown = f"{one['oracle']['fraction']:.1%}, {one['oracle']['fraction_with_main']:.1%}"
        assert cells == ([shown, ""] if name in gains else ["", shown])
    assert written["methods"]["hyperdpo:paper"]["settings"]["training"]["weights_per"] == "batch"


def test_a_lightgbm_base_from_the_command_line(generated, tmp_path, command):
    """It is trained once, is found again, and is the base that the same scores in a file are."""
    pytest.importorskip("lightgbm")
    from hyperdpo.ranking.gbdt_model import GbdtModel

    out = tmp_path / "c"
    chosen = [generated[0], "--preset", "mslr", "--objectives", ",".join(CLICKS), "--cpu", *TINY_OPTIONS]
    compared = ["rank", "compare", *chosen, "--methods", "hyperdpo,lightgbm-ls:base", "--points", "3", "--seeds", "1"]
    compared += ["--base-scores", "lightgbm", "--set", "gbdt.trees=6", "--set", "gbdt.patience=0", "--out", out]
    assert command(*compared).code == 0
    first = read(out / "compare.json")
    assert first["versions"]["lightgbm"] == version("lightgbm")
    assert first["settings"]["gbdt"]["trees"] == 6
    trained = {file: file.stat().st_mtime_ns for file in out.rglob("*") if "models" in str(file) or "base" in file.name}
    (text,) = (out / "seed-0").glob("base-lightgbm-*.txt")
    assert not (out / "seed-0" / "base.safetensors").exists(), "no other base is trained"
    assert command(*compared).code == 0
    assert {file: file.stat().st_mtime_ns for file in trained} == trained
    assert read(out / "compare.json")["methods"].keys() == first["methods"].keys()
    for name, one in read(out / "compare.json")["methods"].items():
        assert one["points"] == first["methods"][name]["points"]

    base, run, front = tmp_path / "base.npy", tmp_path / "run", tmp_path / "front.json"
    model = GbdtModel.load(text.read_text(), [str(k) for k in range(1, 132)], with_base=False)
    assert model.num_trees == 6
    np.save(base, model.part_scores(Part.whole(read_table(generated[0]))))
    assert command("rank", "fit", *chosen, "--base-scores", base, "--out", run).code == 0
    assert command("rank", "front", run, generated[0], "--points", "3", "--out", front, "--cpu").code == 0
    assert read(front)["base"]["main"] == pytest.approx(first["base"]["main"])
    assert read(front)["base"]["metrics"] == pytest.approx(first["base"]["metrics"])
    (points, again) = (one["points"] for one in (first["methods"]["hyperdpo"], read(front)))
    for ours, theirs in itertools.zip_longest(points, again):
        assert ours["metrics"] == pytest.approx(theirs["metrics"])


def test_an_oracle_that_does_not_fit_is_refused_before_anything_is_trained(generated, tmp_path, command):
    other, bare = tmp_path / "other.csv", tmp_path / "bare.csv"
    generate(tmp_path / "other.txt", 40, seed=99, oracle=other)
    pd.read_csv(generated[1]).rename(columns={"135": "something"}).to_csv(bare, index=False)
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", ",".join(CLICKS), "--cpu"]
    for oracle, words in ((other, ["other.csv", "data.txt", "do not match"]), (bare, ["bare.csv", "135"])):
        assert command(*arguments, "--out", tmp_path / "c", "--oracle", oracle, *TINY_OPTIONS).refused(*words)
        assert not list((tmp_path / "c").rglob("*.safetensors"))


def test_folds_test_every_group_once(generated, tmp_path, command):
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", "url_clicks,quality", "--cpu"]
    arguments += ["--methods", "hyperdpo", "--points", "3", "--folds", "4", "--out", tmp_path / "c"]  # one repeat each
    assert command(*arguments, *TINY_OPTIONS).code == 0
    written = read(tmp_path / "c" / "compare.json")
    assert sum(one["groups"]["test"] for one in written["repeats"]) == 40
    assert all(sum(one["groups"].values()) == 40 for one in written["repeats"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--folds", "2"], ["--folds", "found 2"]),
        (["--seeds", "0"], ["--seeds", "found 0"]),
        (["--methods", "dpo-ls,dpo-ls"], ["named more than once"]),
        (["--points", "1"], ["1 point for 2 objectives"]),
        (
            ["--methods", "hyperdpo,lightgbm-ls", "--set", "gbdt.leaves=1000000", *TINY_OPTIONS],
            ["LightGBM", "num_leaves"],
        ),
        (["--base-scores", "lightgbm", "--set", "main=null"], ["--base-scores lightgbm", "no main label"]),
    ],
)
def test_mistakes_of_a_comparison_get_one_line(generated, tmp_path, command, options, words):
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", "url_clicks,quality"]
    assert command(*arguments, "--out", tmp_path / "c", "--cpu", *options).refused(*words)


def test_a_model_at_any_temperature_is_scored_from_the_command_line(generated, tmp_path, command):
    run_path, scores = tmp_path / "run", tmp_path / "scores.txt"
    arguments = ["--preset", "mslr", "--objectives", "url_clicks,quality", "--cpu", "--set", "mixture.form=product"]
    assert command("rank", "fit", generated[0], "--out", run_path, *arguments, *TINY_OPTIONS).code == 0
    found = []
    for option, betas in (("--beta", "1,1"), ("--beta", "1,0.5"), ("--temperature", "1,0.5")):
        options = ["--weights", ".3,.7", option, betas, "--out", scores]
        assert command("rank", "score", run_path, generated[0], *options).code == 0
        found.append(np.loadtxt(scores))
    assert not np.allclose(found[0], found[1])
    np.testing.assert_array_equal(found[1], found[2], "the older name of the option")


def test_the_grid_of_a_comparison_holds_the_vertices():
    assert (weight_grid(5, 11).max(1) == 1).sum() == 5


def test_expected_gains_are_compared_and_their_trees_are_kept(tmp_path, monkeypatch):
    methods = ["hyperdpo:gain", "hyperdpo:gbdt", "hyperdpo:blend"]
    settings = {"gbdt": {"trees": 4, "threads": 1}, "split": {"train": 0.5, "validation": 0.25, "test": 0.25}}
    first = run(tmp_path, methods, count=1, **settings)
    for name, one in first["methods"].items():
        assert one["models"] == 1
        chosen = one["seeds"][0]["details"]["chosen"]
        assert 0 < chosen["main_share"] < 1
        assert ("tree_weight" in chosen) == (name != "hyperdpo:gain")
    monkeypatch.setattr("lightgbm.train", lambda *_, **__: pytest.fail("trained again"))
    again = run(tmp_path, methods, count=1, **settings)
    for name, one in first["methods"].items():
        assert one["points"] == again["methods"][name]["points"]
    assert not list(tmp_path.rglob("*.trees.json")), "what an interrupted training keeps goes with its end"
