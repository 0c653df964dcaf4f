"""Methods side by side: the same split, base, weights and temperatures; each training once; the figures' meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TINY_OPTIONS, cpu, is_one_line, read, toy_config, toy_table

from hyperdpo.core.losses import listnet_loss
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.methods import METHODS, Fixed, Margin, jobs_of
from hyperdpo.ranking import bench as bench_module
from hyperdpo.ranking.bench import Bench, Repeat, parse_entry
from hyperdpo.ranking.comparison import SCALES, compare, mean_and_sd, mean_front
from hyperdpo.ranking.evaluation import evaluate_front
from hyperdpo.ranking.fitting import split_table

METHOD_NAMES = ["hyperdpo:mixture", "hyperdpo:scratch", "dpo-ls", "dpo-soup", "mo-dpo"]


def repeats(count: int = 2) -> list[Repeat]:
    table = toy_table()
    return [Repeat(f"seed-{s}", s, split_table(table, toy_config())) for s in range(count)]


def run(out: Path, methods: list[str] = METHOD_NAMES, *, count: int = 2, points: int = 3) -> dict[str, Any]:
    entries = [parse_entry(method) for method in methods]
    return compare(toy_config(), repeats(count), entries, cpu(), out, points=points)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def result(directory: Path) -> dict[str, Any]:
    return run(directory)


@pytest.fixture(scope="module")
def bench(directory: Path, result: dict[str, Any]) -> Bench:
    return Bench(repeats()[0], toy_config(), directory / "seed-0", cpu())


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


def test_the_front_of_the_means_can_be_drawn(result):
    front = mean_front(result["methods"]["dpo-ls"])
    assert front.metrics.shape == (3, 2)
    assert front.main is not None


def test_a_finished_comparison_trains_nothing_again(result, directory, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(bench_module, "train", fail)
    again = run(directory)
    for name, one in again["methods"].items():
        assert one["hypervolume"] == result["methods"][name]["hypervolume"]
        assert one["train_seconds"] == result["methods"][name]["train_seconds"]


class Killed(BaseException):
    pass


def test_a_killed_comparison_goes_on_to_the_same_figures(result, tmp_path, monkeypatch):
    real, calls = bench_module.train, [0]

    def killed(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise Killed
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(bench_module, "train", killed)
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
    config = bench.config(parse_entry("dpo-soup"))
    (answer,) = METHODS["dpo-soup"](np.array([[0.3, 0.7]]))
    first, second = (bench.trained(Fixed(w), config).ranker.state_dict() for w in ((1.0, 0.0), (0.0, 1.0)))
    for name, tensor in bench._averaged(answer, config).state_dict().items():
        torch.testing.assert_close(tensor, 0.3 * first[name] + 0.7 * second[name])
    start = [bench._training(Fixed(w), config).ranker.state_dict() for w in ((1.0, 0.0), (0.0, 1.0))]
    assert all(torch.equal(start[0][name], start[1][name]) for name in start[0]), "the same initialisation"


def test_the_loss_with_a_margin_is_that_of_the_paper(bench):
    """Eq. (18) written out, against the training job's own base scores and temperature."""
    config = bench.config(parse_entry("mo-dpo"))
    w = (0.3, 0.7)
    job = next(j for j in jobs_of(METHODS["mo-dpo"](np.array([w]))) if isinstance(j, Margin))
    training = bench._training(job, config)
    plain = bench.prepared.examples["train"]
    expert = bench._scored(Fixed((1.0, 0.0)), config)
    rng = np.random.default_rng(0)
    for group_batch in training.train.batches()[:2]:
        batch, own = training.train.batch(group_batch), plain.batch(group_batch)
        scores = torch.from_numpy(rng.normal(size=batch.mask.shape)).float()
        rows, mask = plain.index(group_batch)
        other = torch.from_numpy(np.where(mask, expert[rows], 0)).float()
        reward = (scores - own.base_scores - w[0] * (other - own.base_scores)) / w[1]
        expected = listnet_loss(reward * 1.0, own.targets[:, 1], own.mask)
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
    model = bench.model(parse_entry("dpo-ls"), weight_grid(2, 3))
    betas, metric, grid, on = bench.prepared.betas, bench.prepared.config.metric, weight_grid(2, 3), bench.validation
    score = model.scores(on, grid, betas)
    volumes = {c: evaluate_front(score, on, grid, [c], betas, metric).hypervolume_with_main for c in SCALES}
    assert seed["best_scale"] == max(volumes, key=lambda c: volumes[c])
    assert {p["scale"] for p in seed["views"]["best scale"]["points"]} == {seed["best_scale"]}


def test_mean_and_standard_deviation_of_one_repeat():
    assert mean_and_sd([2.0]) == (2.0, 0.0)
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


# --- LightGBM


def test_lightgbm_is_trained_to_the_main_score_of_hyperdpo(tmp_path):
    pytest.importorskip("lightgbm")
    found = run(tmp_path, ["lightgbm-ls", "lightgbm-ls:base", "hyperdpo:mixture"], count=1)
    for name in ("lightgbm-ls", "lightgbm-ls:base"):
        one = found["methods"][name]["seeds"][0]
        assert one["models"] == 3
        assert 0 <= one["details"]["main_share"] < 1
        assert one["details"]["main_shares_tried"]
    again = run(tmp_path, ["lightgbm-ls", "lightgbm-ls:base", "hyperdpo:mixture"], count=1)
    assert again["methods"]["lightgbm-ls"]["train_seconds"] == found["methods"]["lightgbm-ls"]["train_seconds"]


def test_lightgbm_alone_has_no_main_score_to_match(tmp_path):
    with pytest.raises(InputError) as error:
        run(tmp_path, ["lightgbm-ls"], count=1)
    assert is_one_line(error.value, "lightgbm-ls", "hyperdpo among the methods")


# --- the command


def test_the_command_writes_a_comparison_and_a_picture(generated, tmp_path, command):
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", "query_url_clicks,url_clicks"]
    arguments += ["--methods", "hyperdpo,hyperdpo:paper,dpo-ls,lightgbm-ls", "--points", "3", "--seeds", "2", "--cpu"]
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
    assert written["methods"]["hyperdpo:paper"]["settings"]["training"]["weights_per"] == "batch"


def test_folds_test_every_group_once(generated, tmp_path, command):
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", "url_clicks,quality", "--cpu"]
    arguments += ["--methods", "hyperdpo", "--points", "3", "--seeds", "4", "--folds", "4", "--out", tmp_path / "c"]
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
        (["--points", "1"], ["1 points for 2 objectives"]),
    ],
)
def test_mistakes_of_a_comparison_get_one_line(generated, tmp_path, command, options, words):
    arguments = ["rank", "compare", generated[0], "--preset", "mslr", "--objectives", "url_clicks,quality"]
    assert command(*arguments, "--out", tmp_path / "c", "--cpu", *options).refused(*words)


def test_a_model_at_any_temperature_is_scored_from_the_command_line(generated, tmp_path, command):
    run_path, scores = tmp_path / "run", tmp_path / "scores.txt"
    arguments = ["--preset", "mslr", "--objectives", "url_clicks,quality", "--cpu"]
    assert command("rank", "fit", generated[0], "--out", run_path, *arguments, *TINY_OPTIONS).code == 0
    found = []
    for temperature in ("1,1", "1,0.5"):
        options = ["--weights", ".3,.7", "--temperature", temperature, "--out", scores]
        assert command("rank", "score", run_path, generated[0], *options).code == 0
        found.append(np.loadtxt(scores))
    assert not np.allclose(*found)


def test_the_grid_of_a_comparison_holds_the_vertices():
    assert (weight_grid(5, 11).max(1) == 1).sum() == 5
