"""Files that are there whole or not at all."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest

from hyperdpo.alignment.data.preferences import read_preferences, write_preferences
from hyperdpo.checksums import named_inside
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_atomically, written
from hyperdpo.ranking.run_files import kept_scores


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def fail_halfway(path, error):
    path.write_text("half")
    raise error


def test_a_file_is_under_a_name_of_this_process_until_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with written(path) as temporary:
        temporary.write_text("whole")
        assert str(os.getpid()) in temporary.name
        assert names(path.parent) == [temporary.name]
    assert names(path.parent) == ["a.txt"]
    assert path.read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), written(path) as temporary:
        fail_halfway(temporary, error)
    assert (names(tmp_path), path.read_text()) == (["a.txt"], "old")


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(InputError, match=r"folder: cannot be written \(Is a directory\)"):
        write_atomically(tmp_path / "folder", b"text")
    assert names(tmp_path) == ["folder"]


def test_a_directory_is_replaced_as_a_whole(tmp_path):
    out = tmp_path / "out"
    for name in ("first", "second"):
        with written(out, directory=True) as temporary:
            (temporary / name).write_text(name)
    assert (names(tmp_path), names(out)) == (["out"], ["second"])
    with pytest.raises(KeyboardInterrupt), written(out, directory=True) as temporary:
        fail_halfway(temporary / "third", KeyboardInterrupt)
    assert (names(tmp_path), names(out)) == (["out"], ["second"])


@pytest.mark.parametrize("name", ["p.jsonl", "p.jsonl.gz"])
def test_preferences_that_cannot_be_written_leave_no_file(tmp_path, name):
    rows = [{"prompt": "é", "completions": ["a", "b"], "labels": {"x": [1, 0]}}]
    path = tmp_path / name
    preferences = read_preferences(rows)
    write_preferences(preferences, path)
    content = path.read_bytes()
    text = gzip.decompress(content) if name.endswith("gz") else content
    assert json.loads(text.decode("utf-8"))["prompt"] == "é"
    path.unlink()
    broken = np.float32(1)  # JSON has no such number
    object.__setattr__(preferences.groups[0], "prompt", broken)
    with pytest.raises(TypeError):
        write_preferences(preferences, path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "a/../../x", "..", ".", "", "a//b", ".hidden", "a\\..", "a\0b", "a\nb"]
)
def test_a_name_in_a_file_leads_nowhere_else(name, tmp_path):
    with pytest.raises(InputError, match=r"^run\.json: names a file .*; expected a plain name"):
        named_inside(tmp_path, name, "run.json")
    with pytest.raises(InputError, match="fingerprint of a table: names a file"):
        kept_scores(tmp_path, name)
    assert named_inside(tmp_path, "trees/0-a_b.txt", "run.json") == tmp_path / "trees" / "0-a_b.txt"


def test_an_integer_of_more_than_64_bits_in_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text('{"parameters": 1' + "0" * 400 + "}")
    with pytest.raises(InputError, match=r"a\.json: not valid JSON \('1000.* is no integer of 64 bits\)"):
        read_json(tmp_path / "a.json")
