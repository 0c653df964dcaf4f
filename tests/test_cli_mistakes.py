"""The command line: one line and exit code 2 for every mistake."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import TINY, TINY_OPTIONS, change_json

from hyperdpo import HyperRanker
from hyperdpo.data.cache import read_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.run_files import FORMAT_VERSION


@pytest.fixture
def place(fitted, generated, tmp_path):
    """Paths that bad command lines are made of."""
    data = generated[0]
    rows = read_table(data).num_rows
    files = {
        "few": "1\n2\n",
        "nan": "1\n" * 4 + "nan\n" + "1\n" * (rows - 5),
        "word": "1\n" * 6 + "seven\n" + "1\n" * (rows - 7),
        "malformed": "1 qid:1 1:2\n1 qid:1 1:two\n",
        "empty": "",
        "yaml": "training:\n  epochs: [3\n",
        "unknown": "training: {epoch: 3}\n",
        "misspelt": "objective: [{name: a, column: 999}]\n",
        "text": "objectives: clicks\n",
        "names": "objectives: [clicks]\n",
        "nameless": "objectives: [{column: 134}]\n",
        "cost": "objectives: [{name: a, column: 999}]\n",
        "other": "objectives: [{name: pagerank, column: 41}]\n",
        "constant": "".join(f"1 qid:{i // 3} 1:{i} 134:{i} 135:4\n" for i in range(30)),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    future = shutil.copytree(fitted, tmp_path / "future")
    change_json(future / "run.json", format_version=FORMAT_VERSION + 1)
    (tmp_path / "folder").mkdir()
    return {
        "DATA": data,
        "RUN": fitted,
        "FUTURE": future,
        "ORACLE": generated[1],
        "NEW": tmp_path / "new",
        "T": tmp_path,
    }


MISTAKES = [
    # what is typed; what the one line must hold
    ("rank fit T/nothing.txt --out NEW --preset mslr", "nothing.txt"),
    ("rank fit T/malformed --out NEW --preset mslr", "malformed:2|two"),
    ("rank fit T/empty --out NEW --preset mslr", "empty"),
    ("rank fit T/folder --out NEW --preset mslr", "folder|no train file"),
    ("rank fit T/constant --out NEW --preset mslr --objectives url_clicks", "constant|url_clicks|varies"),
    ("rank fit DATA --out NEW", "--objectives|--preset"),
    ("rank fit DATA --preset mslr", "--out"),
    ("rank fit --out NEW --preset mslr", "DATA"),
    ("rank fit DATA --out NEW --preset istella", "istella|mslr"),
    ("rank fit DATA --out NEW --preset mslr --objectives clicks", "clicks|url_clicks"),
    ("rank fit DATA --out NEW --preset mslr --objectives ,", "--objectives"),
    ("rank fit DATA --out NEW --preset mslr --objectives quality,quality", "quality|more than once"),
    ("rank fit DATA --out NEW --objectives clicks", "data.txt|no column 'clicks'"),
    ("rank fit DATA --out NEW --objectives main", "objective 'main'|main label|another name"),
    ("rank fit DATA --out NEW --config T/nothing.yaml", "nothing.yaml"),
    ("rank fit DATA --out NEW --config T/yaml", "yaml:3"),
    ("rank fit DATA --out NEW --preset mslr --config T/unknown", "training.epoch|not a setting"),
    ("rank fit DATA --out NEW --config T/cost", "no column '999'"),
    ("rank fit DATA --out NEW --preset mslr --set training.epoch=3", "training.epoch|not a setting"),
    (
        "rank fit DATA --out NEW --preset mslr --set training.epochs=many",
        "training.epochs|an integer",
    ),
    ("rank fit DATA --out NEW --preset mslr --set training.alpha=x", "training.alpha is 'x'|expected a number"),
    ("rank fit DATA --out NEW --preset mslr --set training=5", "training is 5|expected settings such as {epochs: 16}"),
    (
        "rank fit DATA --out NEW --preset mslr --set scorer.kind=cnn",
        "scorer.kind is 'cnn'|expected transformer, mlp, gbdt or blend",
    ),
    ("rank fit DATA --out NEW --preset mslr --set objectives.0.unjudged=-1", "objectives.0.unjudged|list|--config"),
    ("rank fit DATA --out NEW --config T/misspelt", "misspelt|did you mean objectives?"),
    (
        "rank fit DATA --out NEW --config T/text",
        "text|objectives is 'clicks'|expected a list of settings such as {name: ...}",
    ),
    (
        "rank fit DATA --out NEW --config T/names",
        "names|objectives.0 is 'clicks'|expected settings such as {name: ...}",
    ),
    ("rank fit DATA --out NEW --config T/nameless", "objectives.0.name is missing"),
    ("rank fit DATA --out NEW --preset mslr --config T/cost", "--preset mslr|cost|drop --preset"),
    ("rank front RUN DATA --preset mslr --config T/cost", "--preset mslr|cost|drop --preset"),
    ("rank fit DATA --out NEW --preset mslr --seed 2 --set seed=1", "--seed 2|--set seed=1|drop one"),
    ("rank compare DATA --out NEW --preset mslr --seed 2 --set seed=1", "--seed 2|--set seed=1|drop one"),
    ("rank fit DATA --out NEW --preset mslr --sort --set sort=no", "--sort|--set sort=False|drop one"),
    ("rank fit DATA --out NEW --preset mslr --paper --parametrization mixture", "--paper|mixture|drop one"),
    ("rank fit DATA --out NEW --preset mslr --paper --set parametrization=mixture", "--paper|mixture|drop one"),
    ("align fit DATA --out NEW --model none --seed 2 --set training.seed=1", "--seed 2|training.seed=1|drop one"),
    ("align fit DATA --out NEW --model none --config T/misspelt", "misspelt|did you mean objectives?"),
    ("rank fit DATA --out NEW --preset mslr --set training.epochs", "KEY=VALUE"),
    ("rank fit DATA --out NEW --preset mslr --set =3", "KEY=VALUE"),
    ("rank fit DATA --out NEW --preset mslr --set seed=1 --set seed.x=1", "seed.x"),
    ("rank fit DATA --out NEW --preset mslr --set training=5 --precision no", "training"),
    ("rank fit DATA --out NEW --preset mslr --set scorer.kind={", "scorer.kind"),
    ("rank fit DATA --out NEW --preset mslr --seed -1", "seed|-1"),
    ("rank fit DATA --out NEW --preset mslr --seed one", "--seed|one"),
    ("rank fit DATA --out NEW --preset mslr --parametrization linear", "--parametrization|linear"),
    ("rank fit DATA --out NEW --preset mslr --precision half", "--precision|half"),
    ("rank fit DATA --out NEW --preset mslr --track paper", "--track|paper|tensorboard"),
    ("rank fit DATA --out NEW --preset mslr --validation T/nothing.txt", "nothing.txt"),
    ("rank fit DATA --out T/few --preset mslr", "few|directory"),
    ("rank fit DATA --out RUN --preset mslr", "finished run|--overwrite"),
    ("rank fit DATA --out NEW --preset mslr --base-scores nobody", "nobody|neither a column|nor a file"),
    ("rank fit DATA --out NEW --preset mslr --base-scores T/few", "few|2 scores|one per row"),
    ("rank fit DATA --out NEW --preset mslr --base-scores T/nan", "nan:5"),
    ("rank fit DATA --out NEW --preset mslr --base-scores T/word", "word:7|seven"),
    ("rank fit DATA --out NEW --preset mslr --base-scores T/folder", "folder"),
    ("rank compare T/malformed --out NEW --preset mslr", "malformed:2|two"),
    ("rank compare T/constant --out NEW --preset mslr --objectives url_clicks", "constant|url_clicks|varies"),
    ("rank compare DATA --out NEW --preset mslr --methods dpo", "no method 'dpo'"),
    ("rank compare DATA --out T/few --preset mslr", "few|expected a directory"),
    ("rank front T/folder DATA", "folder|no run there"),
    ("rank front NEW DATA", "no run there"),
    ("rank front FUTURE DATA", "run.json|version"),
    ("rank front RUN T/nothing.txt", "nothing.txt"),
    ("rank front RUN T/malformed", "malformed:2"),
    ("rank front RUN ORACLE", "oracle.csv|no column"),
    ("rank front RUN DATA --points 1", "1 point for 2 objectives"),
    ("rank front RUN DATA --points 0", "0 points"),
    ("rank front RUN DATA --points few", "--points|few"),
    ("rank front RUN DATA --scales 0", "scale 0"),
    ("rank front RUN DATA --scales 1,,2", "--scales"),
    ("rank front RUN DATA --scales nan", "scale nan"),
    ("rank front RUN DATA --k 0", "--k|0"),
    ("rank front RUN DATA --gain cubic", "--gain|cubic"),
    ("rank front RUN DATA --empty none", "--empty|none"),
    ("rank front RUN DATA --split half", "--split|half"),
    ("rank front RUN DATA --points 2 --plot T/front.xyz", "front.xyz|.png"),
    ("rank front RUN DATA --points 2 --plot T/front", "front|.png"),
    ("rank front RUN DATA --points 2 --out T/folder", "folder|cannot be written"),
    ("rank front RUN DATA --points 2 --out T/few/front.json", "front.json|cannot be written"),
    ("rank front RUN DATA --points 2 --oracle T/nothing.csv", "nothing.csv"),
    ("rank front RUN DATA --points 2 --oracle DATA --objectives url_clicks,quality", "quality"),
    ("rank front RUN DATA --config T/other", "pagerank"),
    ("rank score RUN DATA", "--weights"),
    ("rank score RUN DATA --weights .3,.3", "sum 0.6"),
    ("rank score RUN DATA --weights 1.5,-.5", "weights"),
    ("rank score RUN DATA --weights nan,1", "weights"),
    ("rank score RUN DATA --weights .2,.3,.5", "3 weights|expected 2"),
    ("rank score RUN DATA --weights a,b", "'a' is not a number"),
    ("rank score RUN DATA --weights clicks=1", "clicks|url_clicks"),
    ("rank score RUN DATA --weights url_clicks=.5,.5", "either plain numbers or"),
    ("rank score RUN DATA --weights url_clicks=half", "url_clicks=half"),
    ("rank score RUN DATA --weights .5,.5 --objectives quality,url_clicks", "no objective 'quality'"),
    ("rank score RUN DATA --weights .5,.5 --scale 0", "scale 0"),
    ("rank score RUN DATA --weights .5,.5 --scale -2", "scale -2"),
    ("rank score RUN DATA --weights .5,.5 --scale nan", "scale nan"),
    ("rank score RUN DATA --weights .5,.5 --scale two", "--scale|two"),
    ("rank score RUN DATA --weights .5,.5 --scale 2 --base-scores T/few", "few|2 scores"),
    ("rank score RUN DATA --weights .5,.5 --out T/folder", "folder|cannot be written"),
    ("rank score RUN DATA --weights .5,.5 --out T/few/scores", "scores|cannot be written"),
    ("rank score FUTURE DATA --weights .5,.5", "version"),
    ("data generate T/d.txt --queries 0", "--queries|0"),
    ("data generate T/d.txt --queries many", "--queries|many"),
    ("data generate T/d.txt", "--queries"),
    ("data generate T/few/d.txt --queries 2", "few|cannot be written"),
    ("data generate T/d.txt --queries 2 --seed -1", "--seed|-1"),
    ("demo --out T/few --queries 3", "few"),
    ("rank sort DATA", "sort"),
    ("rank fit DATA --out NEW --presets mslr", "--presets"),
]


@pytest.mark.parametrize(("typed", "words"), MISTAKES, ids=[typed for typed, _ in MISTAKES])
def test_a_mistake_gives_one_line_and_exit_code_2(command, place, typed, words):
    arguments = []
    for word in typed.split(" "):
        head, _, rest = word.partition("/")
        arguments.append(str(place[head] / rest if rest else place[head]) if head in place else word)
    before = sorted(path for path in place["T"].rglob("*"))
    found = command(*arguments, *(["--cpu"] if arguments[0] in ("rank", "align") and arguments[1] != "sort" else []))
    assert found.refused(*words.split("|")), found
    assert not any(".tmp" in path.name for path in place["T"].rglob("*"))
    left = [path for path in place["T"].rglob("*") if path not in before]
    assert left == [] or "--plot" in typed or "--oracle" in typed, "nothing half-done is left, nor an empty directory"


def test_a_place_that_cannot_be_written_to_is_found_before_anything_is_read(command, generated, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    commands = (
        ["rank", "fit", "nothing.txt", "--preset", "mslr", "--cpu"],
        ["rank", "compare", "nothing.txt", "--preset", "mslr", "--methods", "dpo-ls", "--cpu"],
        ["align", "fit", "nothing.jsonl", "--model", "nowhere", "--cpu"],
        ["align", "compare", "nothing.jsonl", "--model", "nowhere", "--cpu"],
        ["experiment", "figure2a", "--data", "nothing.txt", "--cpu"],
    )
    for arguments in commands:
        found = command(*arguments, "--out", tmp_path / "file" / "new")
        assert found.refused("cannot be written to", "Not a directory"), found
    monkeypatch.setattr("tempfile.TemporaryFile", full)
    for arguments in commands:
        found = command(*arguments, "--out", tmp_path / "not" / "there")
        assert found.refused("cannot be written to", "No space left"), found
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_run_is_not_overwritten_by_a_command_that_is_refused(command, fitted, generated, tmp_path):
    run = shutil.copytree(fitted, tmp_path / "run")
    before = sorted(run.rglob("*"))
    options = ["--preset", "mslr", "--cpu", "--overwrite"]
    assert command("rank", "fit", tmp_path / "nothing.txt", "--out", run, *options).refused("nothing.txt")
    found = command("rank", "fit", generated[0], "--out", run, *options, "--base-scores", "nobody")
    assert found.refused("neither a column")
    assert sorted(run.rglob("*")) == before
    RankRun.load(run)


def test_a_run_whose_split_has_no_test_groups_says_so(command, generated, tmp_path):
    run = tmp_path / "run"
    options = ["--preset", "mslr", "--cpu", *TINY_OPTIONS, "--set", "split.train=.8", "--set", "split.test=0"]
    assert command("rank", "fit", generated[0], "--out", run, *options).code == 0
    assert command("rank", "front", run, generated[0], "--split", "test").refused("--split test")


def test_a_negative_label_in_any_split_is_refused_before_training(command, generated, tmp_path):
    lines = generated[0].read_text().splitlines()
    bad = tmp_path / "validation.txt"
    bad.write_text("\n".join(["-1" + lines[0][1:], *lines[1:40]]) + "\n")
    options = ["--preset", "mslr", "--cpu", *TINY_OPTIONS, "--validation", bad]
    found = command("rank", "fit", generated[0], "--out", tmp_path / "run", *options)
    assert found.refused("validation.txt", "'relevance'", "-1")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_saved_from_python_is_measured_on_a_file(command, generated, tmp_path):
    table = read_table(generated[0])
    features = table.values[:, 1:20]
    labels = {"clicks": table.column("134"), "quality": table.column("132")}
    qid = np.repeat(table.qids, table.group_sizes)
    names = [f"f{i}" for i in range(19)]
    frame = pd.DataFrame(features, columns=names)
    model = HyperRanker(objectives=[{"name": "clicks", "target": "l1"}, "quality"], device="cpu", **TINY)
    model.fit(frame, table.column("relevance"), qid=qid, labels=labels).save(tmp_path / "run")
    frame.assign(qid=qid, relevance=table.column("relevance"), **labels).to_csv(tmp_path / "data.csv", index=False)
    found = command(
        "rank", "front", tmp_path / "run", tmp_path / "data.csv", "--points", 3, "--out", tmp_path / "f.json"
    )
    assert found.code == 0, found.err
    expected = model.front(frame, table.column("relevance"), qid=qid, labels=labels, points=3)
    points = json.loads((tmp_path / "f.json").read_text())["points"]
    np.testing.assert_allclose([list(p["metrics"].values()) for p in points], expected.metrics, rtol=1e-5)
    np.testing.assert_allclose([p["main"] for p in points], expected.main, rtol=1e-5)
    assert "does not use" not in found.err, "labels were given apart from the features, but the run knows them"


def test_columns_that_score_uses_or_knows_are_not_called_unused(command, tmp_path):
    rng = np.random.default_rng(0)
    features, qid = pd.DataFrame(rng.normal(size=(60, 3)), columns=["f0", "f1", "f2"]), np.repeat(np.arange(12), 5)
    labels = {name: rng.integers(0, 3, 60) for name in ("clicks", "quality")}
    base = rng.normal(size=60).astype(np.float32)
    model = HyperRanker(objectives=["clicks", "quality"], device="cpu", **TINY)
    model.fit(features, qid=qid, labels=labels, base_scores=base).save(tmp_path / "run")
    features.assign(qid=qid, **labels, lightgbm=base, price=1.0).to_csv(tmp_path / "own.csv", index=False)
    arguments = [tmp_path / "run", tmp_path / "own.csv", "--weights", "1,0", "--base-scores", "lightgbm", "--cpu"]
    found = command("rank", "score", *arguments)
    assert found.code == 0, found.err
    assert "does not use: price" in found.err


def test_a_file_without_the_main_label_says_how_to_name_it_or_do_without(command, tmp_path):
    rng = np.random.default_rng(0)
    columns = {"f0": rng.normal(size=60), "clicks": rng.integers(0, 3, 60), "stars": rng.integers(0, 3, 60)}
    own = tmp_path / "own.csv"
    pd.DataFrame({"qid": np.repeat(np.arange(12), 5), **columns, "lightgbm": columns["f0"]}).to_csv(own, index=False)
    fit = ["rank", "fit", own, "--objectives", "clicks", "--cpu", *TINY_OPTIONS, "--out"]
    message = "no column 'relevance' for the main label; name yours with --set main.column=NAME"
    assert command(*fit, tmp_path / "a").refused(message)
    assert command(*fit, tmp_path / "b", "--set", "main.column=stars").code == 0
    assert command(*fit, tmp_path / "c", "--set", "main=null", "--base-scores", "lightgbm").code == 0


def test_settings_of_sampling_without_sample_are_noted(command, tmp_path):
    arguments = ["--weights", "1,0", "--prompt", "a", "--temperature", 0.5, "--seed", 1]
    found = command("align", "generate", tmp_path / "none", *arguments)
    assert "note: --temperature has no effect without --sample" in found.err
    assert "note: --seed has no effect without --sample" in found.err


def test_data_that_was_trained_on_is_not_measured_as_if_it_were_held_out(command, generated, tmp_path):
    run, data, validation = tmp_path / "run", generated[0], tmp_path / "validation.txt"
    command("data", "generate", validation, "--queries", 6, "--seed", 3)
    options = ["--preset", "mslr", "--cpu", *TINY_OPTIONS, "--validation", validation]
    assert command("rank", "fit", data, "--out", run, *options).code == 0
    assert command("rank", "front", run, data).refused("train", "--split")
    assert command("rank", "front", run, validation).refused("validation", "--split")
    for source, split in ((data, "train"), (validation, "validation"), (data, "all")):
        assert command("rank", "front", run, source, "--split", split, "--out", tmp_path / "front.json").code == 0
        assert json.loads((tmp_path / "front.json").read_text())["data"]["split"] == split


def test_weights_and_biases_gets_the_curves_of_both_trainings(command, generated, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged = []
    monkeypatch.setattr(wandb.Run, "log", lambda self, values, step=None, **_: logged.append((step, sorted(values))))
    options = ["--preset", "mslr", "--cpu", *TINY_OPTIONS, "--track", "wandb"]
    assert command("rank", "fit", generated[0], "--out", tmp_path / "run", *options).code == 0
    steps = [step for step, _ in logged]
    assert steps == sorted(set(steps))  # wandb drops what does not rise
    assert any("base/loss" in names for _, names in logged)
    assert any("ranker/validation_hypervolume" in names for _, names in logged)
    assert list((tmp_path / "run" / "logs" / "wandb").glob("offline-run-*"))


def test_base_scores_that_a_run_needs_are_asked_for(command, generated, tmp_path):
    data, run = generated[0], tmp_path / "run"
    base = tmp_path / "base.txt"
    np.savetxt(base, read_table(data).column("5"))
    options = ["--preset", "mslr", "--cpu", *TINY_OPTIONS, "--base-scores", base]
    assert command("rank", "fit", data, "--out", run, *options).code == 0
    command("data", "generate", tmp_path / "other.txt", "--queries", 4)
    assert command("rank", "front", run, tmp_path / "other.txt").refused("other.txt", "--base-scores")


def test_a_loss_that_is_not_finite_is_one_line(command, generated, tmp_path):
    options = ["--preset", "mslr", "--cpu", *TINY_OPTIONS, "--set", "base_training.learning_rate=1e30"]
    found = command("rank", "fit", generated[0], "--out", tmp_path / "run", *options)
    assert found.refused("base", "loss", "learning_rate")
