"""What all tests share: a cache of their own, few threads, generated files, and one tiny fitted run."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import CLICKS, TINY_OPTIONS, Outcome

from hyperdpo.cli import main
from hyperdpo.data.cache import CACHE_VARIABLE
from hyperdpo.data.synthetic import generate

# Two threads that share a core with another process wait for each other far longer than they work.
torch.set_num_threads(min(2, torch.get_num_threads(), int(os.environ.get("OMP_NUM_THREADS", "2"))))

# Commands would choose another number, and say so.
os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _unflushed() -> Iterator[None]:
    """Nothing waits for the disk: a machine that loses power runs its tests again. test_writers.py tests flushes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def _frozen_heap() -> None:
    """accelerate collects garbage after each training: most of a tiny one's time, if it looks at all the imports."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """``hyperdpo ARGUMENTS`` in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """40 generated queries in MSLR format, and their oracle file."""
    directory = tmp_path_factory.mktemp("generated")
    data, oracle = directory / "data.txt", directory / "oracle.csv"
    generate(data, 40, seed=3, oracle=oracle)
    return data, oracle


@pytest.fixture(scope="session")
def fitted(generated: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, made by the command line for the two click objectives; not to be changed."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    arguments = ["rank", "fit", str(generated[0]), "--out", str(run), "--preset", "mslr", "--cpu"]
    assert main([*arguments, "--objectives", ",".join(CLICKS), *TINY_OPTIONS]) == 0
    return run


@pytest.fixture(scope="session")
def product_run(generated: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the form ``product``, which answers at any temperatures; not to be changed."""
    run = tmp_path_factory.mktemp("fitted") / "product"
    arguments = ["rank", "fit", str(generated[0]), "--out", str(run), "--preset", "mslr", "--cpu"]
    arguments += ["--objectives", ",".join(CLICKS), "--set", "mixture.form=product"]
    assert main([*arguments, *TINY_OPTIONS]) == 0
    return run


@pytest.fixture(scope="session")
def fitted_five(generated: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory for all five objectives of the preset; not to be changed."""
    run = tmp_path_factory.mktemp("fitted") / "five"
    arguments = ["rank", "fit", str(generated[0]), "--out", str(run), "--preset", "mslr", "--cpu"]
    assert main([*arguments, *TINY_OPTIONS]) == 0
    return run
