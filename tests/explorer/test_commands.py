"""``hyperdpo explore`` before there is a page: what cannot be shown gets one line."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys

import pytest
from helpers import CLICKS, fit_toy, free_port, run_python, subprocess_environment


@pytest.fixture(scope="module")
def other_run(tmp_path_factory):
    """For the names of ``toy_run``, but much of ``b`` is good here."""
    path = tmp_path_factory.mktemp("other") / "run"
    fit_toy().save(path)
    return path


@pytest.fixture
def never_served(monkeypatch):
    def serve(*_, **__):
        pytest.fail("a server was started")

    monkeypatch.setattr("nicegui.ui.run", serve)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{fitted}"], ["DATA", "missing", "ranker"]),
        (["{tmp}", "{data}"], ["no run there"]),
        (["{fitted}", "{tmp}/none.txt"], ["none.txt"]),
        (["{fitted}", "{data}", "--compare", "{language}"], ["--compare", "a language model", "expected a ranker"]),
        (["{fitted}", "{data}", "--compare", "{five}"], ["--compare", *CLICKS, "url_dwell_time"]),
        (["{fitted}", "{data}", "--compare", "{tmp}"], ["no run there"]),
        (["{fitted}", "{data}", "--compare", "{fitted}"], ["--compare", "itself"]),
        (["{fitted}", "{data}", "--model", "x"], ["--model", "ranker"]),
        (["{fitted}", "{data}", "--format", "pku"], ["--format", "ranker"]),
        (["{fitted}", "{toy}", "--split", "test"], ["--split test"]),
        (["{fitted}", "{toy}"], ["toy.parquet", "no column"]),
        (["{language}", "--base-scores", "x"], ["--base-scores", "language model"]),
        (["{language}", "{data}"], ["data.txt"]),
        (["{language}", "--split", "test"], ["--split", "expected DATA"]),
        (["{toy_run}", "{toy}", "--compare", "{other}"], ["--compare", "maximize b", "expected b (minimize b)"]),
        (["{fitted}", "{data}", "--port", "0"], ["--port"]),
        (["{fitted}", "{data}", "--host", "192.0.2.1"], ["192.0.2.1", "--port"]),
    ],
)
def test_mistakes_get_one_line(
    command,
    never_served,
    fitted,
    fitted_five,
    generated,
    language,
    toy_run,
    toy_data,
    other_run,
    tmp_path,
    arguments,
    words,
):
    places = {
        "fitted": fitted, "five": fitted_five, "data": generated[0], "language": language[0], "toy": toy_data,
        "tmp": tmp_path, "toy_run": toy_run, "other": other_run,
    }  # fmt: skip
    done = command("explore", *(a.format(**places) for a in arguments), "--no-browser", "--cpu")
    assert done.refused(*words), (done.code, done.err)


def test_a_port_in_use_gets_one_line(command, never_served, fitted, generated):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = command("explore", fitted, generated[0], "--port", port, "--no-browser", "--cpu")
    assert done.refused(f"127.0.0.1:{port}", "--port"), (done.code, done.err)


def test_a_missing_extra_gets_one_line(command, monkeypatch, tmp_path):
    monkeypatch.setattr("hyperdpo.extras.find_spec", lambda name: None if name == "nicegui" else object())
    done = command("explore", tmp_path)
    assert done.refused("nicegui", "hyperdpo[explore]"), done.err


def test_help_loads_no_page():
    code = "import sys, hyperdpo.cli; hyperdpo.cli.main(['explore', '--help']); "
    found = run_python("-c", code + "print([m for m in ('torch', 'nicegui', 'plotly', 'fastapi') if m in sys.modules])")
    assert found.out.splitlines()[-1] == "[]"
    assert "--compare" in found.out


@pytest.mark.skipif(shutil.which("kill") is None, reason="no signals here")
def test_ctrl_c_ends_it_without_a_word(fitted, generated):
    command = [sys.executable, "-m", "hyperdpo", "explore", str(fitted), str(generated[0]), "--no-browser", "--cpu"]
    command += ["--port", str(free_port())]
    environment = subprocess_environment()
    environment.pop("PYTEST_CURRENT_TEST", None)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdout is not None
        assert "validation groups" in process.stdout.readline()
        assert "http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert (out, err) == ("", "")
