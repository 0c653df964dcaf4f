"""Small data, small settings and the few steps that many tests share."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hyperdpo.cli import main
from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.cache import read_table
from hyperdpo.data.groups import GroupedTable
from hyperdpo.files import read_sealed, read_tensors, write_json
from hyperdpo.ranking.config import RankConfig, build_config, merged, parse_config
from hyperdpo.ranking.fitting import fit_run, split_table
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import make_accelerator

#: Networks and trainings that take a second, as settings and as options of the command line.
TINY: dict[str, Any] = {
    "scorer": {"width": 8},
    "base_scorer": {"width": 8},
    "training": {"epochs": 2, "min_batches": 4},
    "base_training": {"epochs": 2, "min_batches": 4},
}
TINY_OPTIONS = [f"--set={part}.{key}={value}" for part, settings in TINY.items() for key, value in settings.items()]

#: The two sparse objectives of generated data that conflict.
CLICKS = ["query_url_clicks", "url_clicks"]


def toy_table(groups: int = 30, seed: int = 0, *, largest: int = 12) -> GroupedTable:
    """Groups of 2 to ``largest`` items with features f0 to f5; f0 pulls the labels ``a`` (a count) and ``b`` apart."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, largest + 1, groups)
    features = rng.normal(size=(sizes.sum(), 6))
    a = np.maximum(np.round(2 * features[:, 0] + features[:, 2]), 0)
    b = np.maximum(np.round(10 - 3 * features[:, 0] + features[:, 2]), 0)
    relevance = np.clip(np.round(1 + features[:, 1] + 0.3 * features[:, 2]), 0, 4)
    return GroupedTable(
        values=np.column_stack([relevance, features, a, b]).astype(np.float32),
        columns=("relevance", *(f"f{i}" for i in range(6)), "a", "b"),
        qids=np.arange(groups),
        offsets=np.append(0, np.cumsum(sizes)),
        fingerprint=f"toy-{groups}-{seed}-{largest}",
    )


#: When the time stamps of :func:`with_time_stamps` begin: seconds since 1970.
START = 1_704_078_000.0


def with_time_stamps(table: GroupedTable | None = None) -> GroupedTable:
    """Toy data with one more feature ``t``: seconds within an hour, of which b makes something."""
    table = toy_table() if table is None else table
    seconds = np.random.default_rng(1).integers(0, 3600, table.num_rows).astype(np.float32)
    return replace(
        table,
        values=np.column_stack([table.values, seconds]),
        columns=(*table.columns, "t"),
        origins={"t": START},
        fingerprint=table.fingerprint + "-t",
    )


def toy_settings(**overrides: Any) -> dict[str, Any]:
    """Settings for :func:`toy_table`; nested overrides are merged."""
    objectives = [{"name": "a", "target": "l1"}, {"name": "b", "target": "softmax"}]
    return merged({"objectives": objectives, "mixture": {"form": "product"}, **TINY}, overrides)


def toy_config(**overrides: Any) -> RankConfig:
    return parse_config(toy_settings(**overrides), "test")


def cpu() -> Any:
    return make_accelerator("no", cpu=True)


def fit_toy(table: GroupedTable | None = None, *, out: Path | None = None, **overrides: Any) -> RankRun:
    """A run fitted to toy data."""
    table = toy_table() if table is None else table
    config = toy_config(**overrides)
    return fit_run(config, split_table(table, config), cpu(), out=out)


def fit_generated(data: Path, own: Mapping[str, Any], *names: str, out: Path | None = None) -> RankRun:
    """A quick run for generated data, with settings of its own.

    Args:
        names: of the preset's objectives; two of them if left out.
    """
    quick = {"scorer": {"width": 8}, "base_scorer": {"width": 8}}
    quick |= {"training": {"epochs": 2}, "base_training": {"epochs": 1}}
    objectives = list(names or ("query_url_clicks", "quality"))
    config = build_config(preset="mslr", objectives=objectives, overrides=merged(quick, own))
    return fit_run(config, split_table(read_table(data), config), cpu(), out=out)


def vertex_metrics(run: RankRun, table: GroupedTable) -> np.ndarray:
    """(m, m): row i holds the held-out NDCG of every objective where all weight lies on objective i."""
    _, part = run.part(table)
    m = len(run.objectives)
    return run.front(run.examples(part), weight_grid(m, m)).metrics


def change_json(path: Path, **changes: Any) -> None:
    """Change values of a JSON file, and its checksum with them; None removes a key."""
    value, intact = read_sealed(path)
    kept = {name: one for name, one in (value | changes).items() if one is not None}
    write_json(path, kept, sealed=intact)


def without_checksums(run: Path, version: int) -> None:
    """Make a run as an older version wrote it."""
    value, _ = read_sealed(run / "run.json")
    del value["files"]
    write_json(run / "run.json", value | {"format_version": version})


class Killed(BaseException):
    """Not caught by anything, as a signal would not be."""


def raise_when(
    monkeypatch: pytest.MonkeyPatch,
    place: Any,
    name: str,
    when: Callable[[], bool],
    error: type[BaseException] = Killed,
) -> None:
    """Make a function of torch, accelerate, transformers or os fail from a moment on, as a signal then would."""
    real = getattr(place, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        if when():
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, watched)


def raise_at(
    monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int, error: type[BaseException] = Killed
) -> None:
    """Make the n-th call of a function the last thing that happens."""
    calls = count(1)
    raise_when(monkeypatch, place, name, lambda: next(calls) == call, error)


def stamps(directory: Path, pattern: str = "*") -> dict[Path, int]:
    """When each file under a directory was last written: another one if it is written again."""
    return {file: file.stat().st_mtime_ns for file in sorted(directory.rglob(pattern)) if file.is_file()}


def same_tensors(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    """Equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def is_one_line(error: BaseException | str, *words: str) -> bool:
    """A message for a user: one line that holds all the words."""
    text = str(error)
    return bool(text) and "\n" not in text and all(word in text for word in words)


def letor_text(table: GroupedTable) -> str:
    """A table as LETOR text: its first column is the relevance, the others are features 1, 2, ..."""
    qids = np.repeat(table.qids, table.group_sizes)
    lines = []
    for qid, row in zip(qids, table.values, strict=True):
        features = " ".join(f"{k}:{float(v)!r}" for k, v in enumerate(row[1:], 1))
        lines.append(f"{int(row[0])} qid:{qid} {features}\n")
    return "".join(lines)


@dataclass(frozen=True)
class Outcome:
    """What a command left behind for its user."""

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> bool:
        """A mistake as it is meant to look: exit code 2 and one line on stderr, with all the words."""
        return (
            self.code == 2
            and self.err.startswith("hyperdpo: ")
            and self.err.endswith("\n")
            and is_one_line(self.err[:-1], *words)
        )


def subprocess_environment(**extra: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **extra}


def run_python(*arguments: str, timeout: float = 120) -> Outcome:
    """``python ARGUMENTS`` in a process of its own."""
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=timeout, env=subprocess_environment()
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def launch(processes: int, arguments: list[str]) -> Outcome:
    """The command under ``accelerate launch``: --multi_gpu starts processes, the command's own --cpu keeps them there.

    (accelerate's --cpu would start one process, whatever --num_processes says.)
    """
    for last in (False, True):
        launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
        launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        launcher += ["--main_process_port", str(free_port())]
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "hyperdpo", *arguments],
            capture_output=True,
            text=True,
            timeout=200,
            env=subprocess_environment(),
        )
        # Now and then a process of a whole suite is aborted (SIGABRT); alone it never was, in forty tries. So there is
        # one more try from the start, with a warning that holds what was said. An abort of our making would come again.
        if last or "SIGABRT" not in done.stderr:
            break
        warnings.warn(f"aborted once: {done.stderr[:2000]}", stacklevel=2)
        shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
    return Outcome(done.returncode, done.stdout, done.stderr)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def weights_of(run: RankRun) -> dict[str, torch.Tensor]:
    return run.ranker.state_dict()


def model_of(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "model.safetensors")[0]


def timeless(metrics: dict[str, Any]) -> dict[str, Any]:
    """Histories without the seconds."""
    return {name: {k: v for k, v in h.items() if k != "seconds"} for name, h in metrics["history"].items()}


def run_command(arguments: list[str], output: Path | None = None) -> None:
    """In a child process.

    Args:
        output: a file for what it prints, after what the file has.
    """
    torch.set_num_threads(1)
    if output is not None:
        with open(output, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    sys.exit(main(arguments))


def start(arguments: list[str], *preload: str, output: Path | None = None) -> Any:
    """The command in a process of its own, forked from one that has imported everything already: quick to start.

    Args:
        preload: more modules to import there; only the first call in a process decides.
        output: a file for what the command prints.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hyperdpo.demo", "accelerate", "hyperdpo.data.letor_kernel", *preload])
    process = context.Process(target=run_command, args=(arguments, output))
    process.start()
    return process


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A real limit of the operating system: no file of this process becomes larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
