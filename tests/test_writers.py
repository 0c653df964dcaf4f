"""No file is half-written, whoever writes it: one helper, two writers at one name, full disks, leftovers."""

from __future__ import annotations

import ast
import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
from helpers import (
    CLICKS,
    TINY_OPTIONS,
    Outcome,
    largest_file,
    model_of,
    run_python,
    same_tensors,
    subprocess_environment,
)

import hyperdpo
from hyperdpo.data.synthetic import generate
from hyperdpo.errors import InputError
from hyperdpo.files import check_space, write_atomically, written, written_into
from hyperdpo.processes import has_gone, mark, runs, started

SOURCES = Path(str(hyperdpo.__file__)).parent

# --- one helper

#: Calls that write to a path of their own, by the name of the function or method.
WRITING = {
    *("write_text", "write_bytes", "savefig", "to_parquet", "to_csv", "write_table", "write_csv", "save_file"),
    *("save_pretrained", "write_html", "write_image", "save_model", "tofile", "savetxt", "savez", "sink_parquet"),
    *("copy", "copyfile", "copy2", "copytree", "move", "symlink", "hardlink_to", "symlink_to", "rename", "renames"),
}
#: Of modules: numpy.save, torch.save, json.dump and their like; os.replace.
OF_MODULES = {"save", "dump", "replace", "link", "truncate"}
MODULES = {"np", "numpy", "torch", "json", "pickle", "yaml", "os", "shutil"}

#: Functions that write to paths all the same, and why that is right.
ALLOWED = {
    "writing.py": "the helper itself",
    "data/storage.py": "a table of the cache: in a temporary directory, which data/cache.py renames",
    "data/cache.py": "renames the temporary directory of a table",
    "data/synthetic.py::generate": "several files at once, each to a path that the helper gave",
    "serving/export/tokens.py::save_tokenizer": "into the temporary directory of the export",
    "serving/export/peft.py::_write": "into the temporary directory of the export",
    "serving/export/language_model.py::_write_merged": "into the temporary directory of the export",
}
#: Methods of this package that have such a name, and write by the helper.
OWN = {
    "self.model.save_pretrained(path)",
    "self.own_model.save_pretrained(out)",
    "trainer.own_model.save_pretrained(path)",
}


def direct_writes(path: Path) -> Iterator[tuple[str, str]]:
    """(function, call) of each call that may write to a path that :func:`written` has not given."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and writes(call)):
            continue
        given, place = {"buffer", "io.BytesIO()"}, ""
        node: ast.AST = call
        while node in parents:
            node = parents[node]
            if isinstance(node, ast.With):
                given |= {ast.unparse(item.optional_vars) for item in node.items if is_helper(item)}
            if isinstance(node, ast.FunctionDef) and not place:
                place = node.name
        said = {ast.unparse(one) for argument in (call.func, *call.args) for one in ast.walk(argument)}
        if not said & given:
            yield place, ast.unparse(call)


def is_helper(item: ast.withitem) -> bool:
    call = item.context_expr
    return item.optional_vars is not None and isinstance(call, ast.Call) and "written" in ast.unparse(call.func)


def writes(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name == "open" or (owner, name) == ("os", "fdopen"):
        modes = [*call.args, *(one.value for one in call.keywords if one.arg == "mode")]
        texts = [one.value for one in modes if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return owner != "os" and any(set(text) & set("wax+") and len(text) <= 3 for text in texts)
    if name in ("copy", "move"):
        return owner == "shutil"
    if name == "rename":  # of a data frame or of a method of this package, too
        return owner not in ("self._groups",)
    return name in WRITING or (name in OF_MODULES and owner in MODULES)


def test_every_writer_uses_the_helper():
    found, allowed = [], set()
    for path in sorted(SOURCES.rglob("*.py")):
        file = path.relative_to(SOURCES).as_posix()
        for function, call in direct_writes(path):
            known = {file, f"{file}::{function}"} & ALLOWED.keys()
            allowed |= known
            if not known and call not in OWN:
                found.append(f"{file}, {function}: {call}")
    assert found == [], "use hyperdpo.files.written"
    assert allowed >= ALLOWED.keys() - {"locks.py", "alignment/checkpoints.py::_save_checkpoint"}, (
        "an exception that is none"
    )


@pytest.mark.parametrize(
    "line",
    [
        'open(path, "w")', 'path.open("ab")', 'open(path, mode="x")', 'path.write_text("a")', "np.save(path, x)",
        "figure.savefig(path)", "shutil.copy(a, path)", "torch.save(x, path)", 'gzip.open(path, "wt")',
        "tokenizer.save_pretrained(path)", "frame.to_parquet(path)", "json.dump(x, file)", "os.replace(a, b)",
        'written(path); path.write_bytes(b"")',
    ],
)  # fmt: skip
def test_the_search_for_writers_finds_them(tmp_path, line):
    (tmp_path / "a.py").write_text(f"def f():\n    {line}\n")
    assert list(direct_writes(tmp_path / "a.py")), line
    (tmp_path / "a.py").write_text(
        f"def f():\n    with written(other) as path, written(other) as file, written(c) as b:\n        {line}\n"
    )
    assert not list(direct_writes(tmp_path / "a.py")), line


# --- two at one name


def test_two_calls_never_write_to_one_temporary_path(tmp_path):
    with written(tmp_path / "a") as first, written(tmp_path / "a") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "first", "the one that ends last"


def _generate(out: Path, seed: int) -> None:
    generate(out, 60, seed=seed)


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_two_generators_at_one_name_leave_one_of_two_whole_files(tmp_path, kind):
    for seed in (1, 2):
        _generate(tmp_path / str(seed), seed)
    whole = {(tmp_path / str(seed)).read_bytes() for seed in (1, 2)}
    context = multiprocessing.get_context("fork")
    make: Callable[..., threading.Thread] = threading.Thread if kind == "threads" else context.Process  # type: ignore[assignment]
    for _ in range(2):
        both = [make(target=_generate, args=(tmp_path / "out", seed)) for seed in (1, 2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert (tmp_path / "out").read_bytes() in whole
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "out"]


# --- devices, links


def test_a_device_stays_what_it_is(tmp_path):
    write_atomically(Path(os.devnull), b"text")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_atomically(tmp_path / "pipe", b"text")
    reader.join(10)
    assert read == [b"text"]
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device_as_out_is_one_line(command, generated, fitted):
    data = generated[0]
    weights = ["--weights", ".5,.5", "--cpu"]
    for arguments in (
        ["data", "generate", "/dev/full", "--queries", 2],
        ["rank", "score", fitted, data, *weights, "--out", "/dev/full"],
        ["rank", "front", fitted, data, "--points", 2, "--cpu", "--out", "/dev/full"],
        ["rank", "fit", data, "--preset", "mslr", "--cpu", "--out", "/dev/full"],
        ["demo", "--out", "/dev/full"],
    ):
        found = command(*arguments)
        assert found.refused("/dev/full", "cannot be written"), (arguments, found)
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_standard_output_on_a_full_disk_is_one_line(fitted, generated):
    arguments = ["rank", "score", str(fitted), str(generated[0]), "--weights", ".5,.5", "--cpu"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hyperdpo", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=subprocess_environment(),
        )
    assert Outcome(done.returncode, "", done.stderr).refused("standard output", "No space left"), done


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("old")
    (tmp_path / "file-link").symlink_to(tmp_path / "file")
    write_atomically(tmp_path / "file-link", b"new")
    with written(tmp_path / "link", directory=True) as temporary:
        (temporary / "a").write_text("a")
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path / "real") == ["a"]
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file-link").is_symlink()
    assert len(os.listdir(tmp_path)) == 4


# --- no space


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # of safetensors
        Exception("No space left on device (os error 28)"),  # of tokenizers
        RuntimeError("[enforce fail] . PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
    ids=["OSError", "safetensors", "tokenizers", "torch"],
)
def test_what_libraries_make_of_a_full_disk_is_one_line(tmp_path, error):
    for helper in (lambda: written(tmp_path / "a", directory=True), lambda: written_into(tmp_path / "b")):
        with pytest.raises(InputError, match=r"cannot be written \(.*(No space left|file write failed)"), helper():
            raise error
    assert not any(".tmp" in path.name for path in tmp_path.rglob("*"))


def test_other_errors_are_not_blamed_on_the_disk(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="shapes"), written(tmp_path / "a"):
        raise RuntimeError("shapes differ")
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(InputError, match="No space left"), written(tmp_path / "a"):
        raise RuntimeError("a library that says nothing")


def test_a_file_larger_than_the_system_allows_is_one_line(command, tmp_path):
    with largest_file(20_000):
        found = command("data", "generate", tmp_path / "data.txt", "--queries", 40)
    assert found.refused("data.txt", "cannot be written", "File too large"), found
    assert os.listdir(tmp_path) == []


def test_a_fit_that_cannot_write_its_checkpoint_is_one_line_and_goes_on_later(command, generated, fitted, tmp_path):
    arguments = ["rank", "fit", generated[0], "--preset", "mslr", "--cpu", "--objectives", ",".join(CLICKS)]
    arguments += ["--out", tmp_path / "run", *TINY_OPTIONS]
    with largest_file(9_000):
        found = command(*arguments)
    assert found.code == 2, found
    assert "cannot be written (File too large)" in found.err.splitlines()[-1]
    assert "Traceback" not in found.err
    assert not any(".tmp" in path.name or "lock" in path.name for path in tmp_path.rglob("*"))
    again = command(*arguments)
    assert again.code == 0, again.err
    assert same_tensors(model_of(tmp_path / "run"), model_of(fitted))


def test_room_is_checked_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=3_400_000))
    check_space(tmp_path / "not" / "there", 3_400_000, "it")
    message = r"there: the export needs about 1\.2 TB, and 3\.4 MB are free; make room, or choose another place"
    with pytest.raises(InputError, match=message):
        check_space(tmp_path / "not" / "there", 1_200_000_000_000, "the export")
    with pytest.raises(InputError, match=r"needs about 40 MB, and 3\.4 MB are free"):
        write_atomically(tmp_path / "a", bytes(40_000_000))
    with pytest.raises(InputError, match=r"100,000,000 queries needs about"):
        generate(tmp_path / "a", 100_000_000)
    assert os.listdir(tmp_path) == []


def test_the_cache_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    from hyperdpo.data.cache import read_table

    source = tmp_path / "data.parquet"
    rows = np.arange(400_000).reshape(8, -1)
    table = pyarrow.table(dict(zip(("qid", *"abcdefg"), rows, strict=True)))
    pyarrow.parquet.write_table(table, source)
    monkeypatch.setattr("hyperdpo.data.table_files.BATCH_VALUES", 16_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    with pytest.raises(InputError, match=r"data\.parquet, parsed, needs about .*B, and 0 bytes are free"):
        read_table(source, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "tables").iterdir()) == []


# --- leftovers


def dead_mark() -> str:
    """The mark of a process of this host that has ended."""
    line = "from hyperdpo.processes import mark; print(mark())"
    return run_python("-c", line).out.strip()


def test_a_process_is_known_by_more_than_its_number():
    assert not has_gone(mark())
    assert has_gone(dead_mark())
    host, number, start, rest = mark().split("-")
    assert has_gone(f"{host}-{number}-{'0' * 7}1-{rest}"), "another process had this number before"
    assert not has_gone(f"{'0' * 8}-{number}-{'0' * 7}1-{rest}"), "on another host"
    assert not has_gone("something else")
    assert started(os.getpid()) == start
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    while runs(zombie.pid) is not False and zombie.returncode is None and time.monotonic() < time.monotonic() + 1:
        time.sleep(0.01)
    assert not runs(zombie.pid), "killed, and nobody has asked for its exit code"
    zombie.wait()


def test_what_a_killed_process_left_is_removed_by_the_next_writer(tmp_path):
    dead, alive = dead_mark(), mark()
    (tmp_path / f".model.{dead}.tmp").write_text("half")
    (tmp_path / f".lm.{dead}.tmp" / "inside").mkdir(parents=True)
    (tmp_path / f".moved.{dead}.old").mkdir()
    (tmp_path / "moved").mkdir()
    (tmp_path / f".lost.{dead}.old").mkdir()
    keep = [f".a.{alive}.tmp", ".a.tmp", f"a.{dead}.tmp", ".model.123.tmp", f".a.{'0' * 8}{dead[8:]}.tmp"]
    for name in keep:
        (tmp_path / name).write_text("keep")
    write_atomically(tmp_path / "new", b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([*keep, "new", "moved", "lost"])


def test_a_killed_writer_leaves_what_the_next_one_removes(tmp_path):
    line = """
import os, signal, sys
from pathlib import Path
from hyperdpo.files import written
with written(Path(sys.argv[1]), directory=True) as temporary:
    (temporary / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_python("-c", line, str(tmp_path / "lm")).code == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 1
    write_atomically(tmp_path / "other", b"")
    assert os.listdir(tmp_path) == ["other"]


# --- flushed


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events: list[str] = []
    real = os.replace

    def fsync(number: int) -> None:
        kind = "names" if stat.S_ISDIR(os.fstat(number).st_mode) else "content"
        events.append(f"{kind} of {Path(os.readlink(f'/proc/self/fd/{number}')).name.split('.')[1:2] or ''}")

    def replace(source: Path, target: Path) -> None:
        events.append(f"rename {target.name}")
        real(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "a", b"text")
    assert events[0].startswith("content")
    assert events[1] == "rename a"
    assert events[2].startswith("names")
    events.clear()
    with written(tmp_path / "d", directory=True) as temporary:
        (temporary / "one").write_text("1")
        (temporary / "two").write_text("2")
    assert [one.split()[0] for one in events] == ["names", "content", "content", "rename", "names"]


def test_an_error_while_it_is_flushed_is_one_line(tmp_path, monkeypatch):
    def fsync(number: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(InputError, match=r"a: cannot be written \(Input/output error\)"):
        write_atomically(tmp_path / "a", b"text")
    assert os.listdir(tmp_path) == []
