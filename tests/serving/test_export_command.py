"""``hyperdpo export``: one command for both kinds of runs, and what it refuses."""

from __future__ import annotations

import pytest
from helpers import read


def test_a_ranker_becomes_onnx(command, ranker, tmp_path):
    pytest.importorskip("onnxruntime")
    done = command("export", ranker, "--out", tmp_path / "a.onnx")
    assert done.code == 0, done.err
    assert "features (batch, items, 6)" in done.out
    assert read(tmp_path / "a.onnx.json")["objectives"] == ["a", "b"]


def test_a_language_model_becomes_a_checkpoint(command, adapter, tmp_path):
    done = command("export", adapter, "--out", tmp_path / "out", "--weights", "b=.7,a=.3")
    assert (done.code, done.err) == (0, "")
    assert "3 new tokens" in done.out
    assert read(tmp_path / "out" / "hyperdpo_export.json")["weights"] == pytest.approx([0.3, 0.7])


def test_a_language_model_becomes_an_adapter(command, adapter, tmp_path):
    done = command("export", adapter, "--out", tmp_path / "out", "--weights", ".3,.7", "--format", "peft")
    assert (done.code, done.err) == (0, "")
    assert "3 new tokens" in done.out
    assert "adapter_config.json" in {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ("--weights", "a, b")),
        (["--weights", ".3,.8"], ("weights",)),
        (["--weights", "c=1"], ("--weights", "'c'")),
        (["--weights", ".3,.7", "--format", "onnx"], ("--format", "merged or peft")),
        (["--weights", ".3,.7", "--beta", "1,1"], ("--beta",)),
    ],
)
def test_a_language_model_refuses(command, adapter, tmp_path, options, words):
    assert command("export", adapter, "--out", tmp_path / "out", *options).refused(*words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--weights", ".3,.7"], ("--weights", "inputs")),
        (["--format", "merged"], ("--format", "onnx or torch or lightgbm")),
        (["--format", "tflite"], ("--format", "'tflite'")),
        (["--format", "lightgbm"], ("--format lightgbm", "has no trees")),
        (["--main-share", ".3"], ("main share", "takes none")),
        (["--beta", "1,2"], ("--beta",)),
        (["--temperature", "1"], ("temperatures",)),
        (["--model", "gpt2"], ("--model",)),
    ],
)
def test_a_ranker_refuses(command, ranker, tmp_path, options, words):
    assert command("export", ranker, "--out", tmp_path / "a.onnx", *options).refused(*words)
    assert not list(tmp_path.iterdir())


def test_a_place_without_a_run_is_refused(command, tmp_path):
    assert command("export", tmp_path, "--out", tmp_path / "a.onnx").refused("no run there")
    (tmp_path / "run.json").write_text('{"kind": "other"}')
    assert command("export", tmp_path, "--out", tmp_path / "a.onnx").refused("kind other")


def test_a_directory_in_the_place_of_a_file_is_refused(command, ranker, tmp_path):
    assert command("export", ranker, "--out", tmp_path, "--overwrite").refused("is a directory")
