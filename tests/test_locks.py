"""Two commands at one directory: one wins and the other is told, whoever they are and however they ended."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import CLICKS, TINY_OPTIONS, Outcome, start

from hyperdpo import locks
from hyperdpo.errors import InputError
from hyperdpo.locks import LOCK, Holder, locked, writes_to


def write(directory: Path, **changes: Any) -> None:
    """A lock that a process left behind."""
    directory.mkdir(parents=True, exist_ok=True)
    facts = {"host": platform.node(), "process": os.getpid(), "started": "0123abcd", "since": "2026-01-01 00:00"}
    (directory / LOCK).write_text(json.dumps(facts | changes))


def interrupted_after(file: Path) -> None:
    file.write_text("")
    raise KeyboardInterrupt


@pytest.fixture(params=[True, False], ids=["fcntl", "without fcntl"])
def system(request, monkeypatch) -> None:
    """With locks of the operating system, and without."""
    if not request.param:
        monkeypatch.setattr(locks, "fcntl", None)
        monkeypatch.setattr(locks, "PATIENCE", 0.1)


def test_nothing_is_left_after_a_normal_end_nor_after_an_error(tmp_path, system):
    with locked(tmp_path / "new" / "run"):
        assert os.listdir(tmp_path / "new" / "run") == [LOCK]
        holder = Holder.of((tmp_path / "new" / "run" / LOCK).read_bytes())
        assert (holder.host, holder.process) == (platform.node(), os.getpid())
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "run"):
        interrupted_after(tmp_path / "run" / "file")
    assert os.listdir(tmp_path / "run") == ["file"]
    with locked(tmp_path / "run" / "lm", beside=True):
        assert sorted(os.listdir(tmp_path / "run")) == [".lm.lock", "file"]
    assert os.listdir(tmp_path / "run") == ["file"]


def test_the_same_process_is_refused_too(tmp_path, system):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with locked(tmp_path / "run"):
        for path in (tmp_path / "run", tmp_path / "link"):
            with pytest.raises(InputError, match="being written by this process"), locked(path):
                pass
        with locked(tmp_path / "run" / "inner"):
            pass
    with locked(tmp_path / "link"):
        pass


def hold(path: str, ready: Any, end: Any) -> None:
    with locked(Path(path)):
        ready.set()
        end.wait(60)


def test_another_process_that_lives_is_named(tmp_path):
    context = multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(str(tmp_path / "run"), ready, end))
    holder.start()
    assert ready.wait(60)
    expected = (
        rf"run: being written by process {holder.pid} on {platform.node()} \(since 20..-..-.. ..:..\); "
        r"wait for it, or choose another place \(--out\)$"
    )
    for fcntl in (locks.fcntl, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(locks, "fcntl", fcntl)
            with pytest.raises(InputError, match=expected), locked(tmp_path / "run"):
                pass
    assert (tmp_path / "run" / LOCK).exists(), "a refused process leaves the lock alone"
    end.set()
    holder.join()
    with locked(tmp_path / "run"):
        pass


def test_a_lock_whose_process_has_gone_is_taken_over_with_a_note(tmp_path, system, capsys):
    write(tmp_path)  # of this process's number, but of another start
    with locked(tmp_path):
        assert "0123abcd" not in (tmp_path / LOCK).read_text()
    left = f"process {os.getpid()} on {platform.node()} (since 2026-01-01 00:00) left its lock behind"
    assert left in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_lock_of_another_host_is_refused_with_what_to_do(tmp_path, system):
    write(tmp_path, host="elsewhere", process=7)
    expected = rf"process 7 on elsewhere .*remove .*{LOCK} if that process has ended"
    with pytest.raises(InputError, match=expected), locked(tmp_path):
        pass
    (tmp_path / LOCK).unlink()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"host": "a"}'])
def test_a_lock_that_says_nothing_is_the_systems_word_alone(tmp_path, content, monkeypatch):
    (tmp_path / LOCK).write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "fcntl", None)
        patch.setattr(locks, "PATIENCE", 0.1)
        with pytest.raises(InputError, match="being written by another process"), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


def test_only_the_first_process_of_a_launched_command_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with locked(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


def contend(path: str, results: Any, barrier: Any, fcntl: Any) -> None:
    locks.fcntl = fcntl
    barrier.wait()
    won = 0
    for _ in range(50):
        try:
            with locked(Path(path)):
                marker = Path(path) / "busy"
                os.close(os.open(marker, os.O_CREAT | os.O_EXCL))  # fails where two are in here
                time.sleep(0.001)
                marker.unlink()
                won += 1
        except InputError:
            time.sleep(0.001)
    results.put(won)


@pytest.mark.parametrize("stale", [False, True], ids=["new", "left behind"])
def test_of_many_processes_at_one_moment_one_wins(tmp_path, stale):
    context = multiprocessing.get_context("fork")
    if stale:
        write(tmp_path / "run")
    results, barrier = context.Queue(), context.Barrier(4)
    processes = [
        context.Process(target=contend, args=(str(tmp_path / "run"), results, barrier, locks.fcntl)) for _ in range(4)
    ]
    for one in processes:
        one.start()
    won = [results.get(timeout=60) for _ in processes]
    for one in processes:
        one.join()
        assert one.exitcode == 0
    assert sum(won) > 0
    assert list(tmp_path.glob("run/*")) == [], "the directory itself may stay: others were about to use it"


def test_threads_of_one_process_exclude_each_other(tmp_path):
    told: list[str] = []
    inside = threading.Event()

    @writes_to("out")
    def command(name: str, out: Path) -> None:
        inside.set()
        time.sleep(0.3)

    def second() -> None:
        inside.wait()
        try:
            command("second", out=tmp_path / "run")
        except InputError as error:
            told.append(str(error))

    other = threading.Thread(target=second)
    other.start()
    command("first", tmp_path / "run")
    other.join()
    assert len(told) == 1
    assert "being written" in told[0]


# --- commands


def test_two_fits_at_once_one_wins_and_the_other_is_told(command, generated, tmp_path):
    out = tmp_path / "run"
    arguments = ["rank", "fit", str(generated[0]), "--preset", "mslr", "--cpu", "--objectives", ",".join(CLICKS)]
    arguments += ["--out", str(out), *TINY_OPTIONS, "--set=training.epochs=20", "--set=base_training.epochs=10"]
    first = start(arguments)
    while first.is_alive() and not ((out / LOCK).exists() and (out / LOCK).stat().st_size):
        time.sleep(0.002)
    found = command(*arguments)
    first.join()
    assert first.exitcode == 0
    assert found.refused(f"being written by process {first.pid}", "wait for it, or choose another place"), found
    assert LOCK not in os.listdir(out)


def test_a_killed_fit_is_gone_on_with_and_its_lock_taken_over(generated, tmp_path, command):
    out = tmp_path / "run"
    arguments = ["rank", "fit", str(generated[0]), "--preset", "mslr", "--cpu", "--objectives", ",".join(CLICKS)]
    arguments += ["--out", str(out), *TINY_OPTIONS]
    process = start(arguments)
    while process.is_alive() and not ((out / LOCK).exists() and (out / LOCK).stat().st_size):
        time.sleep(0.002)
    process.kill()
    process.join()
    assert (out / LOCK).exists()
    found = command(*arguments)
    assert found.code == 0, found.err
    assert "left its lock behind and runs no more; taken over" in found.err
    assert LOCK not in os.listdir(out)


def test_every_command_that_writes_a_directory_is_refused_while_another_writes_there(
    command, fitted, generated, tmp_path
):
    """Each is refused before it reads anything."""
    run, data = tmp_path / "run", "nothing.txt"
    write(run, process=os.getppid(), started="00000000")
    (tmp_path / ".run.lock").write_text((run / LOCK).read_text())
    for arguments in (
        ["rank", "fit", data, "--preset", "mslr", "--cpu"],
        ["rank", "compare", data, "--preset", "mslr", "--methods", "dpo-ls", "--cpu"],
        ["align", "fit", data, "--model", "nowhere", "--cpu"],
        ["align", "compare", data, "--model", "nowhere", "--cpu"],
        ["align", "improve", "nowhere", "--prompts-file", data, "--cpu"],
        ["align", "sample", "nowhere", "--prompts-file", data, "--cpu"],
        ["experiment", "figure2a", "--data", data, "--cpu"],
        ["export", tmp_path / "nowhere"],
        ["demo"],
        ["demo", "--align"],
        ["rank", "score", fitted, data, "--weights", ".5,.5", "--engine", "dask", "--cpu"],
    ):
        found: Outcome = command(*arguments, "--out", run)
        assert found.refused(f"{run}: being written by process {os.getppid()} on"), (arguments, found)
    assert os.listdir(run) == [LOCK]
