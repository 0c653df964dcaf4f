"""``hyperdpo check``, checksums of runs, and runs that were written before there were any."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from helpers import change_json, fit_toy, toy_table, without_checksums
from tiny_models import tiny_base, tiny_model

from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.checking import check
from hyperdpo.checksums import file_digest, is_nearly_key
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, read_tensors, write_json, write_tensors
from hyperdpo.ranking.run import RankRun


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    return fit_toy(out=tmp_path_factory.mktemp("fitted") / "run").path


@pytest.fixture
def run(fitted, tmp_path):
    return shutil.copytree(fitted, tmp_path / "run")


def flip(path, place=-9):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def scores(path):
    return RankRun.load(path).score(Part.whole(toy_table()), [0.3, 0.7])


def test_a_run_lists_all_of_its_files_and_their_checksums(run):
    listed = read_json(run / "run.json", sealed=True)["files"]
    assert set(listed) == {"model.safetensors", "config.json", "metrics.json"}
    assert all(file_digest(run / name) == digest for name, digest in listed.items())


def test_checking_counts_the_files_and_changes_nothing(run, command):
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    done = command("check", run)
    assert (done.code, done.err) == (0, "")
    kept = len(list((run / "base_scores").iterdir())) + len(list((run / "checkpoints").iterdir()))
    assert done.out == f"{run}: {4 + kept} files as written\n"
    assert before == {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_checking_names_every_damaged_file(run, command):
    for name in ("model.safetensors", "metrics.json"):
        flip(run / name)
    done = command("check", run)
    assert done.code == 2
    assert f"{run}: missing, damaged or changed since it was written: " in done.err
    assert "model.safetensors" in done.err
    assert "metrics.json" in done.err
    assert "config.json" not in done.err
    assert command("rank", "score", run, "x.csv", "--weights", ".5,.5", "--out", "s").refused("metrics.json")


def test_files_that_come_and_go_are_checked_too(run, command):
    (kept,) = (run / "base_scores").iterdir()
    flip(kept)
    assert command("check", run).refused(kept.name)
    with pytest.raises(InputError, match=rf"{kept.name}: damaged.*; delete it: the scores are then computed again"):
        RankRun.load(run).base_scores(toy_table())
    kept.unlink()
    assert command("check", run).code == 0


def test_a_change_on_purpose_can_be_accepted(run, command):
    expected = scores(run)
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics | {"note": "mine"}))
    with pytest.raises(InputError, match=r"metrics\.json: damaged.*hyperdpo check .*run --accept"):
        RankRun.load(run)
    done = command("check", run, "--accept")
    assert done.out == f"{run}: accepted as it is now: metrics.json\n"
    assert RankRun.load(run).metrics["note"] == "mine"
    np.testing.assert_array_equal(scores(run), expected)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | {"seed": 7}))
    assert command("check", run).refused("run.json")
    assert "run.json" in command("check", run, "--accept").out
    assert command("check", run).code == 0


def test_an_older_run_has_one_note_until_it_is_checked(run, command):
    expected = scores(run)
    without_checksums(run, 3)
    with pytest.warns(
        UserWarning, match=f"^{run}: written without checksums; `hyperdpo check {run}` adds them$"
    ) as all_:
        np.testing.assert_array_equal(scores(run), expected)
    assert len(all_) == 1
    assert "checksums added for" in command("check", run).out
    assert read_json(run / "run.json")["format_version"] == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(scores(run), expected)
    flip(run / "model.safetensors")
    assert command("check", run).refused("model.safetensors")


def test_a_run_that_cannot_be_loaded_gets_no_checksums(run, command):
    without_checksums(run, 3)
    (run / "metrics.json").unlink()
    assert command("check", run).refused("metrics.json")
    assert "files" not in json.loads((run / "run.json").read_text())


def test_a_run_of_this_version_cannot_do_without_checksums(run, command):
    without_checksums(run, 4)
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        RankRun.load(run)
    assert command("check", run).refused("run.json: damaged")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", ""])
def test_a_list_of_files_leads_nowhere_else(name, run):
    change_json(run / "run.json", files={name: "0" * 64})
    with pytest.raises(InputError, match=r"run\.json: names a file"):
        RankRun.load(run)
    with pytest.raises(InputError, match=r"run\.json: names a file"):
        check(run)


def test_a_feature_named_twice_is_refused(run):
    features = read_json(run / "run.json")["features"]
    change_json(run / "run.json", features=[features[1], *features[1:]])
    with pytest.raises(InputError, match=r"run\.json names the feature 'f1' twice"):
        RankRun.load(run)


# --- language models


def test_an_adapter_and_a_run_of_older_versions_are_given_checksums(tmp_path, command):
    model = tiny_model(base=tiny_base())
    model.save_pretrained(tmp_path / "adapter")
    config, tensors = tmp_path / "adapter" / "hyperdpo_config.json", tmp_path / "adapter" / "adapter.safetensors"
    state, head = read_tensors(tensors)
    from safetensors.torch import save_file

    save_file(state, tensors, {"values": json.dumps(head | {"format_version": 2})})
    write_json(config, read_json(config) | {"format_version": 2})
    with pytest.warns(UserWarning, match=r"adapter: written without checksums"):
        old = ConditionedLM.from_pretrained(tmp_path / "adapter", tiny_base())
    assert "checksums added for 2 files" in command("check", tmp_path / "adapter").out
    assert command("check", tmp_path / "adapter").out.endswith("2 files as written\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        new = ConditionedLM.from_pretrained(tmp_path / "adapter", tiny_base())
    for name, tensor in old.adapter_state().items():
        assert torch.equal(tensor, new.adapter_state()[name])
    flip(tensors)
    assert command("check", tmp_path / "adapter").refused("adapter.safetensors")


def test_the_cache_can_be_checked(tmp_path, command):
    (tmp_path / "a.csv").write_text("qid,relevance,x\n1,0,2\n1,1,3\n")
    read_table(tmp_path / "a.csv", cache_dir=tmp_path / "cache")
    assert command("check", tmp_path / "cache").out.endswith("5 files as written\n")
    (values,) = tmp_path.rglob("values.npy")
    flip(values)
    assert command("check", tmp_path / "cache").refused("values.npy; a file is parsed again when it is next read")


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_what_has_no_checksums_is_refused(name, tmp_path, command):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    assert command("check", tmp_path / name).refused(str(tmp_path / name))


# --- seals


def test_sealed_files_are_the_same_whenever_they_are_written(tmp_path):
    for name in ("a", "b"):
        write_tensors(tmp_path / name, {"x": torch.ones(3), "y": torch.zeros(2)}, {"k": [1, None, "ü"], "sha256": 1})
        write_json(tmp_path / f"{name}.json", {"k": ["ü", 1.5]}, sealed=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert read_tensors(tmp_path / "a")[1] == {"k": [1, None, "ü"], "sha256": 1}
    assert read_json(tmp_path / "a.json") == {"k": ["ü", 1.5]}


def test_every_single_bit_counts(tmp_path):
    """Each bit of a sealed file: refused, or the same values."""
    write_tensors(tmp_path / "t", {"x": torch.ones(2)}, {"k": 1})
    write_json(tmp_path / "j", {"k": 1}, sealed=True)
    for path, read in ((tmp_path / "t", read_tensors), (tmp_path / "j", read_json)):
        whole, expected, refused = path.read_bytes(), str(read(path)), 0
        for bit in range(8 * len(whole)):
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            try:
                assert str(read(path)) == expected, bit
            except InputError as error:
                refused += str(path) in str(error)
        assert refused > 7.5 * len(whole)


def test_names_one_character_from_the_key_are_known():
    assert all(map(is_nearly_key, ("sha256", "rha256", "sha25:")))
    assert not any(map(is_nearly_key, ("sha", "values", "sha2567", None, 7)))
