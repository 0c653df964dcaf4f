"""The command line: the files of the contract, and what is printed."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from helpers import CLICKS, TINY_OPTIONS, letor_text, raise_when, read, run_python, stamps, toy_settings, toy_table

from hyperdpo import __version__
from hyperdpo.cli import cli, main
from hyperdpo.data.cache import read_table
from hyperdpo.ranking.run import RankRun

FIVE = ["query_url_clicks", "url_clicks", "url_dwell_time", "quality", "quality2"]
FRONT_KEYS = {
    "objectives", "directions", "metric", "points", "hypervolume", "hypervolume_with_main", "reference_point",
    "parameters", "train_seconds",
}  # fmt: skip


def scores_of(text: str) -> np.ndarray:
    return np.array([float(line) for line in text.splitlines()], dtype=np.float32)


@pytest.fixture(scope="module")
def toy_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy data as Parquet, and as train, vali and test files in LETOR text, with a configuration for each."""
    directory = tmp_path_factory.mktemp("toy files")
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    table = toy_table()
    columns = {name: table.column(name) for name in table.columns}
    qids = [f"query-{q}" for q in np.repeat(table.qids, table.group_sizes)]
    pq.write_table(pa.table({"qid": qids, **columns}), directory / "toy.parquet")
    (directory / "toy.yaml").write_text(yaml.safe_dump(toy_settings()))
    folder = directory / "Fold1"
    folder.mkdir()
    for seed, name in enumerate(("train", "vali", "test")):
        (folder / f"{name}.txt").write_text(letor_text(toy_table(12, seed=seed)))
    numbered = toy_settings(objectives=[{"name": "a", "column": 7, "target": "l1"}, {"name": "b", "column": 8}])
    (directory / "letor.yaml").write_text(yaml.safe_dump(numbered))
    return directory


# --- help and start


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["rank", "--help"], ["rank", "fit", "--help"], ["data", "-h"]]
)
def test_help_is_printed(command, arguments):
    found = command(*arguments)
    assert found.code == 0
    assert found.out.startswith("Usage: hyperdpo")


@pytest.mark.parametrize("arguments", [(), ("rank",), ("align",), ("data",)])
def test_a_group_without_a_subcommand_prints_its_help_line_by_line(arguments, capsys):
    code = main(list(arguments))
    printed = "".join(capsys.readouterr())
    assert code == 2
    assert printed.startswith(f"Usage: {' '.join(['hyperdpo', *arguments])} [OPTIONS] COMMAND [ARGS]...\n")
    assert "\nCommands:\n" in printed


def test_the_version_is_printed(command):
    assert command("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    "what",
    [
        "import hyperdpo",
        "import hyperdpo.cli",
        "import hyperdpo.cli; hyperdpo.cli.main(['rank', 'fit', '--help'])",
        "import hyperdpo.cli; hyperdpo.cli.main(['align', 'fit', '--help'])",
        "import hyperdpo.cli; hyperdpo.cli.main(['experiment'])",
    ],
)
def test_importing_the_package_and_asking_for_help_load_nothing_heavy(what):
    heavy = ["torch", "accelerate", "numba", "sklearn", "pyarrow", "matplotlib", "transformers"]
    found = run_python("-c", f"import sys; {what}; print([m for m in {heavy} if m in sys.modules])")
    assert found.out.splitlines()[-1] == "[]", found


def test_the_package_runs_as_a_module():
    found = run_python("-m", "hyperdpo", "--version")
    assert (found.code, found.out, found.err) == (0, f"{__version__}\n", "")


def test_a_mistake_ends_a_process_with_exit_code_2_and_one_line():
    assert run_python("-m", "hyperdpo", "rank", "front", "/nowhere", "/nothing").refused("/nowhere")


# --- data generate


def test_data_is_generated_in_a_file_with_its_oracle(command, tmp_path):
    found = command("data", "generate", tmp_path / "d.txt", "--queries", 4, "--seed", 2, "--oracle", tmp_path / "o.csv")
    assert found.code == 0
    table = read_table(tmp_path / "d.txt")
    assert "4 queries" in found.out
    assert f"{table.num_rows} documents" in found.out
    assert len((tmp_path / "o.csv").read_text().splitlines()) == table.num_rows + 1


# --- fit


def test_a_smaller_file_of_one_seed_is_the_start_of_a_larger_and_the_help_says_so(command, tmp_path):
    texts = {}
    for name, queries, seed in (("small", 3, 0), ("large", 6, 0), ("other", 3, 1)):
        assert command("data", "generate", tmp_path / name, "--queries", queries, "--seed", seed).code == 0
        texts[name] = (tmp_path / name).read_text()
    assert texts["large"].startswith(texts["small"])
    assert not set(texts["other"].splitlines()) & set(texts["large"].splitlines())
    assert "neither is a test file" in " ".join(command("data", "generate", "--help").out.split())


def test_a_fit_writes_the_run_and_says_how_large_the_ranker_is(command, generated, tmp_path):
    """At the paper's sizes: 131 features, five objectives, d = 64, 2 layers."""
    quick = ["--set=training.epochs=1", "--set=base_training.epochs=1", "--set=base_scorer.width=8"]
    found = command(
        "rank", "fit", generated[0], "--out", tmp_path / "run", "--preset", "mslr", "--cpu", "--paper", *quick
    )
    assert found.code == 0, found.err
    assert "50,432" in found.out
    assert "131 features, 5 objectives" in found.out
    assert found.err == ""
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"run.json", "config.json", "metrics.json", "model.safetensors", "base_scores"}


def test_the_left_out_labels_are_no_features(fitted):
    assert read(fitted / "run.json")["features"] == [str(k) for k in range(1, 132)]


def test_a_finished_run_is_not_trained_over(command, fitted, generated, tmp_path):
    run = shutil.copytree(fitted, tmp_path / "run")
    before = (run / "model.safetensors").read_bytes()
    arguments = ["rank", "fit", generated[0], "--out", run, "--preset", "mslr", "--cpu", *TINY_OPTIONS]
    arguments += ["--objectives", ",".join(CLICKS), "--seed", 5]
    assert command(*arguments).refused(str(run), "--overwrite")
    assert (run / "model.safetensors").read_bytes() == before
    assert command(*arguments, "--overwrite").code == 0
    assert (run / "model.safetensors").read_bytes() != before


def test_a_directory_of_split_files_is_used_as_it_is(command, toy_files, tmp_path):
    folder = toy_files / "Fold1"
    options = ["--config", toy_files / "letor.yaml", "--cpu"]
    assert command("rank", "fit", folder, "--out", tmp_path / "run", *options).code == 0
    assert read(tmp_path / "run" / "run.json")["data"]["groups"] == {"train": 12, "validation": 12, "test": 12}
    front = tmp_path / "front.json"
    found = command("rank", "front", tmp_path / "run", folder, "--points", 3, "--out", front, "--cpu")
    assert found.code == 0
    expected = toy_table(12, seed=2)  # the test file
    assert (read(front)["data"]["groups"], read(front)["data"]["items"]) == (12, expected.num_rows)
    assert command("rank", "front", tmp_path / "run", folder, "--points", 3, "--split", "validation").code == 0
    assert command("rank", "front", tmp_path / "run", folder, "--split", "all").refused("no file for 'all'")


def test_files_for_validation_and_test_are_used_as_they_are(command, toy_files, tmp_path):
    folder = toy_files / "Fold1"
    options = ["--config", toy_files / "letor.yaml", "--cpu", "--out", tmp_path / "run"]
    found = command("rank", "fit", folder / "train.txt", "--test", folder / "test.txt", *options)
    assert found.code == 0
    groups = read(tmp_path / "run" / "run.json")["data"]["groups"]
    assert groups == {"train": 9, "validation": 3, "test": 12}, "validation groups come out of the training file"


def test_parquet_with_named_columns(command, toy_files, tmp_path):
    data, run = toy_files / "toy.parquet", tmp_path / "run"
    assert command("rank", "fit", data, "--config", toy_files / "toy.yaml", "--out", run, "--cpu").code == 0
    assert read(run / "run.json")["features"] == [f"f{i}" for i in range(6)]
    found = command("rank", "score", run, data, "--weights", "a=.5,b=.5", "--cpu")
    assert len(found.out.splitlines()) == toy_table().num_rows


def test_a_column_of_base_scores_is_the_base_and_no_feature(command, toy_files, tmp_path):
    data, run = toy_files / "toy.parquet", tmp_path / "run"
    options = ["--config", toy_files / "toy.yaml", "--out", run, "--base-scores", "f1", "--cpu"]
    found = command("rank", "fit", data, *options, "--parametrization", "augmentation")
    assert found.code == 0
    assert "base: column" in found.out
    assert "f1" not in read(run / "run.json")["features"]
    scores = scores_of(command("rank", "score", run, data, "--weights", ".5,.5", "--scale", "1e7", "--cpu").out)
    np.testing.assert_allclose(scores, toy_table().column("f1"), atol=1e-4)


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_a_file_of_base_scores_is_the_base(command, toy_files, tmp_path, suffix):
    data, run, base = toy_files / "toy.parquet", tmp_path / "run", tmp_path / f"base{suffix}"
    scores = toy_table().column("f1")
    if suffix == ".npy":
        np.save(base, scores)
    else:
        np.savetxt(base, scores, fmt="%.9g")
    options = ["--config", toy_files / "toy.yaml", "--base-scores", base, "--cpu"]
    assert command("rank", "fit", data, *options, "--out", run).code == 0
    scoring = ["rank", "score", run, data, "--weights", ".5,.5", "--scale", "1e7", "--cpu"]
    np.testing.assert_allclose(scores_of(command(*scoring, "--base-scores", base).out), scores, atol=1e-4)
    np.testing.assert_allclose(scores_of(command(*scoring).out), scores, atol=1e-4), "known from the fit"


def test_an_interrupted_fit_goes_on_and_says_so(command, generated, tmp_path, monkeypatch):
    arguments = ["rank", "fit", generated[0], "--out", tmp_path / "run", "--preset", "mslr", "--cpu", *TINY_OPTIONS]
    with monkeypatch.context() as patch:
        base = tmp_path / "run" / "checkpoints" / "base.safetensors"  # written when its training ends
        raise_when(patch, Accelerator, "backward", base.exists, KeyboardInterrupt)
        found = command(*arguments)
    assert found.code == 130
    assert found.err.strip().startswith("hyperdpo: interrupted; run the same command again")
    assert command("rank", "front", tmp_path / "run", generated[0]).refused("training has not finished")
    found = command(*arguments)
    assert found.code == 0
    assert found.err.count("\n") == 1
    assert found.err.startswith("hyperdpo: note: base: resumed after epoch 2")


def test_tensorboard_logs_hold_losses_and_hypervolumes(command, generated, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    arguments = ["rank", "fit", generated[0], "--out", tmp_path / "run", "--preset", "mslr", "--cpu", *TINY_OPTIONS]
    assert command(*arguments, "--track", "tensorboard").code == 0
    events = list((tmp_path / "run" / "logs").rglob("events.out.tfevents.*"))
    tags: set[str] = set()
    for path in events:
        tags |= set(EventAccumulator(str(path)).Reload().Tags()["scalars"])
    assert tags >= {"base/loss", "ranker/loss", "ranker/validation_hypervolume"}


def test_a_saved_run_knows_its_objectives(fitted, fitted_five):
    assert list(RankRun.load(fitted).objectives) == CLICKS
    assert list(RankRun.load(fitted_five).objectives) == FIVE
    assert 0 < read(fitted / "metrics.json")["train_seconds"] < math.inf


# --- front


@pytest.fixture(scope="module")
def front(generated, fitted, tmp_path_factory):
    """FRONT.json and its picture, with the oracle."""
    out = tmp_path_factory.mktemp("front")
    arguments = ["rank", "front", fitted, generated[0], "--points", 5, "--scales", "1,2", "--cpu"]
    arguments += ["--out", out / "FRONT.json", "--plot", out / "FRONT.png", "--oracle", generated[1]]
    assert main([str(a) for a in arguments]) == 0
    return out


def test_the_front_file_keeps_the_contract(front, generated):
    found = read(front / "FRONT.json")
    assert found.keys() >= FRONT_KEYS
    assert found["objectives"] == CLICKS
    assert found["directions"] == dict.fromkeys(CLICKS, "maximize")
    assert found["metric"].keys() >= {"name", "k", "gain", "empty"}
    assert (found["metric"]["name"], found["metric"]["k"], found["metric"]["gain"]) == ("ndcg", 10, "linear")
    assert found["reference_point"] == [0, 0]
    assert len(found["points"]) == 10
    for point in found["points"]:
        assert point.keys() >= {"weights", "scale", "metrics", "main"}
        assert sum(point["weights"]) == pytest.approx(1)
        assert all(0 <= point["metrics"][name] <= 1 for name in CLICKS)
        assert 0 <= point["main"] <= 1
    assert [point["scale"] for point in found["points"]] == [1] * 5 + [2] * 5
    assert found["parameters"] > 0
    assert found["train_seconds"] > 0
    assert 0 < found["hypervolume"] < 1
    assert 0 < found["hypervolume_with_main"] < found["hypervolume"]


def test_the_hypervolume_of_the_front_file_is_that_of_its_points(front):
    found = read(front / "FRONT.json")
    points = sorted(([p["metrics"][name] for name in CLICKS] for p in found["points"]), reverse=True)
    area = height = 0.0
    for x, y in points:  # from the right: each point adds what stands out above the ones before
        area += x * max(y - height, 0)
        height = max(height, y)
    assert found["hypervolume"] == pytest.approx(area)


def test_the_front_is_of_the_test_groups_and_says_what_of_the_attainable_it_is(front):
    found = read(front / "FRONT.json")
    assert (found["data"]["split"], found["data"]["groups"]) == ("test", 8)
    assert found["oracle"]["fraction"] == pytest.approx(found["hypervolume"] / found["oracle"]["hypervolume"])
    assert 0 < found["oracle"]["fraction"] < 1


def test_the_picture_is_a_png(front):
    assert (front / "FRONT.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("suffix", "magic"), [(".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_picture_may_be_a_drawing(command, fitted_five, generated, tmp_path, suffix, magic):
    """Five objectives have a panel for each pair."""
    plot = tmp_path / f"front{suffix}"
    arguments = ["rank", "front", fitted_five, generated[0], "--points", 5, "--plot", plot, "--cpu"]
    assert command(*arguments).code == 0
    assert plot.read_bytes().startswith(magic)
    assert list(tmp_path.iterdir()) == [plot]


def test_the_metric_of_a_front_can_be_chosen(command, fitted, generated, tmp_path):
    def hypervolume(*options):
        arguments = ["rank", "front", fitted, generated[0], "--points", 3, "--out", tmp_path / "f.json", "--cpu"]
        found = command(*arguments, *options)
        assert found.code == 0, found.err
        return read(tmp_path / "f.json"), found.out

    linear, _ = hypervolume()
    exponential, table = hypervolume("--gain", "exponential", "--k", 3, "--empty", "one")
    assert linear["hypervolume"] != exponential["hypervolume"]
    assert (exponential["metric"]["gain"], exponential["metric"]["k"], exponential["metric"]["empty"]) == (
        "exponential",
        3,
        "one",
    )
    assert "NDCG@3 (exponential gain" in table, "the convention stands beside the figures"


@pytest.mark.parametrize(("split", "groups"), [("train", 24), ("validation", 8), ("test", 8), ("all", 40)])
def test_the_split_of_a_front_can_be_chosen(command, fitted, generated, tmp_path, split, groups):
    arguments = ["rank", "front", fitted, generated[0], "--points", 2, "--out", tmp_path / "f.json", "--cpu"]
    assert command(*arguments, "--split", split).code == 0
    assert read(tmp_path / "f.json")["data"] == read(tmp_path / "f.json")["data"] | {"split": split, "groups": groups}


def test_a_front_of_some_objectives_has_those_axes(command, fitted_five, generated, tmp_path):
    arguments = ["rank", "front", fitted_five, generated[0], "--points", 3, "--out", tmp_path / "f.json", "--cpu"]
    assert command(*arguments, "--objectives", "quality,url_clicks").code == 0
    found = read(tmp_path / "f.json")
    assert found["objectives"] == ["quality", "url_clicks"]
    assert [point["weights"] for point in found["points"]] == [[1, 0], [0.5, 0.5], [0, 1]]


def test_the_base_scores_of_a_data_set_are_computed_once(command, fitted, generated, tmp_path):
    run, data = shutil.copytree(fitted, tmp_path / "run"), shutil.copy(generated[0], tmp_path / "data.txt")
    shutil.rmtree(run / "base_scores")
    assert command("rank", "front", run, data, "--points", 2, "--cpu").code == 0
    first = stamps(run / "base_scores")
    assert len(first) == 1
    assert command("rank", "front", run, data, "--points", 2, "--cpu").code == 0
    assert stamps(run / "base_scores") == first


# --- score


def test_scores_as_text_on_the_screen_and_in_files_agree(command, fitted, generated, tmp_path):
    arguments = ["rank", "score", fitted, generated[0], "--weights", ".3,.7", "--scale", 2, "--cpu"]
    shown = command(*arguments)
    assert (shown.code, shown.err) == (0, "")
    table = read_table(generated[0])
    told = f"{tmp_path / 's.txt'}: {table.num_rows:,} rows, one score each\n"
    assert command(*arguments, "--out", tmp_path / "s.txt").out == told
    command(*arguments, "--out", tmp_path / "s.npy")
    array = np.load(tmp_path / "s.npy")
    assert (array.shape, array.dtype) == ((table.num_rows,), np.float32)
    np.testing.assert_array_equal(scores_of(shown.out), array), "nine digits hold a float32"
    assert (tmp_path / "s.txt").read_text() == shown.out


def test_features_that_a_text_file_does_not_reach_are_named(command, fitted, generated, tmp_path):
    narrow = tmp_path / "narrow.txt"
    narrow.write_text("".join(f"{' '.join(row.split(' ')[:42])}\n" for row in generated[0].read_text().splitlines()))
    found = command("rank", "score", fitted, narrow, "--weights", "1,0")
    assert found.code == 0
    features = RankRun.load(fitted).transform.columns
    beyond = [name for name in features if int(name) > 40]
    assert f"narrow.txt: no feature above 40; {len(beyond)} of the run's {len(features)} features" in found.err
    assert "count as 0" not in command("rank", "score", fitted, generated[0], "--weights", "1,0").err


def test_weights_by_name_are_those_by_place(command, fitted_five, generated):
    def scores(weights, *options):
        found = command("rank", "score", fitted_five, generated[0], "--weights", weights, "--cpu", *options)
        assert found.code == 0, found.err
        return scores_of(found.out), found.err

    by_place, said = scores("0,.3,0,.7,0")
    assert said == ""
    np.testing.assert_array_equal(scores("url_clicks=.3, quality=.7")[0], by_place)
    np.testing.assert_array_equal(scores(".7,.3", "--objectives", "quality,url_clicks")[0], by_place)
    assert not np.allclose(scores(".3,.7", "--objectives", "quality,url_clicks")[0], by_place)


def test_fewer_weights_than_objectives_leave_the_rest_nothing_and_say_so(command, fitted_five, generated):
    found = command("rank", "score", fitted_five, generated[0], "--weights", ".3,.7", "--cpu")
    assert found.code == 0
    assert found.err.startswith("hyperdpo: note: 2 weights for 5 objectives")
    assert "query_url_clicks 0.3, url_clicks 0.7, url_dwell_time 0" in found.err
    whole = command("rank", "score", fitted_five, generated[0], "--weights", ".3,.7,0,0,0", "--cpu")
    assert found.out == whole.out


@pytest.mark.parametrize("name", ["scores.txt", "scores.npy"])
def test_scores_in_a_file_are_told_by_their_number_and_the_file(command, fitted, generated, tmp_path, name):
    arguments = ["rank", "score", fitted, generated[0], "--weights", ".5,.5", "--cpu"]
    done = command(*arguments, "--out", tmp_path / name)
    read = np.load(tmp_path / name) if name.endswith(".npy") else np.loadtxt(tmp_path / name)
    assert done.out == f"{tmp_path / name}: {len(read):,} rows, one score each\n"
    assert len(scores_of(command(*arguments).out)) == len(read)


def test_the_preset_of_the_fit_may_be_repeated(command, fitted, generated):
    arguments = ["rank", "score", fitted, generated[0], "--weights", ".5,.5", "--cpu"]
    assert command(*arguments, "--preset", "mslr").out == command(*arguments).out


def test_a_run_scores_features_without_labels(command, toy_files, tmp_path):
    """What is ranked in production has no labels yet."""
    import pyarrow.parquet as pq

    run, bare = tmp_path / "run", tmp_path / "bare.parquet"
    data = toy_files / "toy.parquet"
    assert command("rank", "fit", data, "--config", toy_files / "toy.yaml", "--out", run, "--cpu").code == 0
    pq.write_table(pq.read_table(data).drop_columns(["a", "b", "relevance"]), bare)
    scoring = ["--weights", ".5,.5", "--scale", 2, "--cpu"]
    np.testing.assert_allclose(
        scores_of(command("rank", "score", run, bare, *scoring).out),
        scores_of(command("rank", "score", run, data, *scoring).out),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip
    assert command("rank", "front", run, bare, "--cpu").refused("bare.parquet", "no column 'a'")


# --- the demo


def test_the_demo_leaves_data_run_front_picture_and_report(command, tmp_path):
    out = tmp_path / "demo"
    found = command("demo", "--out", out, "--queries", 30, *TINY_OPTIONS)
    assert found.code == 0, found.err
    names = {path.name for path in out.iterdir()}
    assert names == {"data.txt", "oracle.csv", "run", "front.json", "front.png", "report.html", "compare"}
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")
    front, report = read(out / "front.json"), (out / "report.html").read_text()
    assert front.keys() >= FRONT_KEYS | {"oracle", "base"}
    assert "data:image/png;base64," in report
    assert f"{front['points'][3]['metrics']['url_clicks']:.4f}" in report
    assert "of the attainable front" in found.out
    assert report.count("data:image/png;base64,") == 2
    assert set(read(out / "compare" / "compare.json")["methods"]) == {"hyperdpo", "dpo-ls", "dpo-soup", "mo-dpo"}
    assert command("demo", "--out", out, "--queries", 30, *TINY_OPTIONS).code == 0, "again, over itself"


@pytest.mark.parametrize("queries", [3, 5, 8])
def test_the_demo_of_very_few_queries_ends_or_says_why_not(command, tmp_path, queries):
    """Splits without a click have no NDCG: nothing to draw, and no reason for a traceback."""
    found = command("demo", "--out", tmp_path / "demo", "--queries", queries, *TINY_OPTIONS)
    assert found.code == 0 or found.refused()


@pytest.mark.parametrize(
    "name", [("align", "fit"), ("align", "front"), ("align", "compare"), ("data", "check"), ("choose",)]
)
def test_the_help_of_options_that_read_preferences_is_a_sentence(name):
    found = cli
    for one in name:
        found = found.commands[one]
    options = {"prompt_column", "ignore_columns", "skip_invalid"}
    texts = [option.help for option in found.params if option.name in options]
    assert len(texts) == 3
    for text in texts:
        assert text[0].isupper(), text
        assert text.endswith("."), text
