"""Runs to look at, one server for each kind of them, and a browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import CLICKS, TINY_OPTIONS, toy_table
from pages import served

from hyperdpo.cli import main
from hyperdpo.data.groups import GroupedTable

#: A browser that asks nobody for anything.
BROWSER = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium on this machine: the page is not tried in a browser")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=BROWSER)
        # One context: the pages share what has been loaded, as a user's do.
        yield started.new_context(permissions=["clipboard-read", "clipboard-write"])
        started.close()


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy lists as Parquet, with named queries; the label ``b`` is to be small."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    table: GroupedTable = toy_table(30, largest=20)
    columns = {name: table.column(name) for name in table.columns}
    qids = [f"query-{q}" for q in np.repeat(table.qids, table.group_sizes)]
    path = tmp_path_factory.mktemp("explored") / "toy.parquet"
    pq.write_table(pa.table({"qid": qids, **columns}), path)
    return path


@pytest.fixture(scope="session")
def toy_run(toy_data: Path) -> Path:
    """A mixture for ``a`` (a count) and little of ``b``."""
    import yaml

    config = toy_data.with_name("toy.yaml")
    objectives = [{"name": "a", "target": "l1"}, {"name": "b", "target": "softmax", "direction": "minimize"}]
    config.write_text(yaml.safe_dump({"objectives": objectives}))
    run = toy_data.with_name("run")
    assert main(["rank", "fit", str(toy_data), "--config", str(config), "--out", str(run), *TINY_OPTIONS]) == 0
    return run


@pytest.fixture(scope="session")
def scratch_run(generated: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ranker that answers at its own temperatures only, on the data of ``product_run``."""
    run = tmp_path_factory.mktemp("explored") / "scratch"
    arguments = ["rank", "fit", str(generated[0]), "--out", str(run), "--preset", "mslr", "--cpu"]
    arguments += ["--objectives", ",".join(CLICKS), "--parametrization", "scratch", *TINY_OPTIONS]
    assert main(arguments) == 0
    return run


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a tiny language model, and its preferences."""
    from tiny_models import tiny_base
    from toy_preferences import rows, words_tokenizer

    from hyperdpo.alignment.data.preferences import read_preferences, write_preferences

    place = tmp_path_factory.mktemp("language")
    tiny_base().save_pretrained(place / "model")
    words_tokenizer().save_pretrained(place / "model")
    data = place / "data.jsonl"
    write_preferences(read_preferences(rows(20)), data)
    fit_language(place, "run", "--epochs", "2")
    return place / "run", data


def fit_language(place: Path, name: str, *options: str) -> None:
    where = [str(place / "data.jsonl"), "--model", str(place / "model"), "--out", str(place / name)]
    settings = ["--cpu", "--set", "training.disable_tqdm=true", "--set", "training.learning_rate=0.05"]
    assert main(["align", "fit", *where, *settings, *options]) == 0


@pytest.fixture(scope="session")
def other_language(language: tuple[Path, Path]) -> Path:
    """Another run of the same base, data and objectives."""
    fit_language(language[0].parent, "other", "--epochs", "1", "--seed", "7")
    return language[0].parent / "other"


# --- servers, one for each kind of run


@pytest.fixture(scope="session")
def rank_url(browser: Any, product_run: Path, generated: tuple[Path, Path]) -> Iterator[str]:
    with served(product_run, generated[0]) as url:
        yield url


@pytest.fixture(scope="session")
def compared_url(browser: Any, product_run: Path, scratch_run: Path, generated: tuple[Path, Path]) -> Iterator[str]:
    with served(product_run, generated[0], "--compare", scratch_run) as url:
        yield url


@pytest.fixture(scope="session")
def language_url(browser: Any, language: tuple[Path, Path], other_language: Path) -> Iterator[str]:
    with served(*language, "--split", "all", "--compare", other_language) as url:
        yield url
