"""What README and docs show as a command or as Python is run, in the order of the page, on tiny data and models.

Commands are given a few more options, so that trainings take moments. What is not run is named here, with the reason.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import CLICKS, TINY_OPTIONS

from hyperdpo.cli import main
from hyperdpo.data.cache import read_table
from hyperdpo.data.synthetic import generate
from hyperdpo.ranking.run import RankRun

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ALIGN = ["--set", "training.max_steps=2", "--set", "training.per_device_train_batch_size=4", "--cpu"]
#: Beginnings of commands, and what they are given in addition.
MORE = {
    "rank fit": TINY_OPTIONS,
    "rank compare": [*TINY_OPTIONS, "--seeds", "1", "--points", "5", "--set", "gbdt.trees=5"],
    "align fit": ALIGN,
    "align compare": [*ALIGN, "--methods", "hyperdpo,dpo-soup", "--seeds", "1", "--points", "3"],
    "align generate": ["--max-new-tokens", "3", "--cpu"],
    "choose": ["--points", "3", "--scales", "1", "--fixed-temperatures"],
    "experiment": ["--small"],
}
#: Beginnings of commands that are not run, and why.
NOT_RUN = {
    "make": "sets up an environment; CI runs it",
    "accelerate launch": "several processes: test_training.py and test_trainer.py start them",
    "pip": "installs",
    "hyperdpo demo": "minutes; test_cli.py and test_align_demo.py run tiny ones",
    "hyperdpo experiment table2": "a model by its name on the hub; test_running_language.py runs every experiment",
    "hyperdpo serve": "a server; test_serving_examples.py starts it",
    "hyperdpo explore": "a server; tests/explorer starts it",
    "curl": "asks a server; test_serving_examples.py and test_export_gguf.py do",
    "hyperdpo rank score demo/run DATA": "what choose printed; test_choosing.py runs what it prints",
    "hyperdpo align fit fit.jsonl --model DIR": "answers of a real model; the other fits of the pages run",
    "hyperdpo align improve": "answers of a real model; tests/alignment/test_improving.py runs it on a tiny model",
}
#: Pages that show no command that is run.
WITHOUT_COMMANDS = ("architecture", "checksums", "explorer", "how-it-works", "results", "security", "settings")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of the fenced blocks."""
    yield from FENCE.findall(page.read_text())


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block without comments and continued lines."""
    line = ""
    for more in text.replace("\\\n", " ").splitlines():
        line = f"{line}\n{more}" if line else more
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quotation that goes on
            continue
        line = ""
        if words and words[0] in ("hyperdpo", "make", "accelerate", "curl", "pip"):
            yield words


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    generate(Path("train.txt"), 40, seed=0)
    generate(Path("new.txt"), 8, seed=0)
    for number, part in enumerate(("train", "vali", "test")):
        generate(Path("MSLR-WEB10K/Fold1") / f"{part}.txt", 14, seed=number)
    rng = np.random.default_rng(0)
    sessions = pd.DataFrame(rng.random((200, 3)), columns=["f1", "f2", "f3"])
    sessions["qid"] = np.repeat(np.arange(20), 10)
    for name, high in (("clicks", 2), ("label", 5)):
        sessions[name] = rng.integers(0, high, 200)
    for name in ("quality_score", "price", "lightgbm"):
        sessions[name] = rng.random(200)
    sessions.to_parquet("sessions.parquet")
    language_model(Path("path/or/hub-name"), Path("preferences.jsonl"))
    return tmp_path


def language_model(model: Path, data: Path) -> None:
    from tiny_models import tiny_base
    from toy_preferences import rows, words_tokenizer

    from hyperdpo.alignment.data.preferences import read_preferences, write_preferences

    tiny_base().save_pretrained(model)
    words_tokenizer().save_pretrained(model)
    write_preferences(read_preferences(rows(20)), data)


def arrays() -> dict[str, Any]:
    """What the pages' Python takes for granted about a ranker's data."""
    rng = np.random.default_rng(0)
    X = rng.random((180, 4)).astype(np.float32)
    qid = np.repeat(np.arange(3), 60)  # "one per group, if X has three"
    labels = {"clicks": rng.integers(0, 2, 180), "quality": rng.random(180)}
    return {
        "X": X,
        "y": rng.integers(0, 3, 180),
        "relevance": rng.integers(0, 3, 180),
        "qid": qid,
        "labels": labels,
        **labels,
        "lightgbm_scores": X[:, 0],
    }


def run_commands(text: str) -> int:
    done = 0
    for words in commands(text):
        line = " ".join(words)
        if any(line.startswith(beginning) for beginning in NOT_RUN):
            continue
        more = next((m for beginning, m in MORE.items() if line.startswith(f"hyperdpo {beginning}")), [])
        if words == ["hyperdpo", "experiment"]:  # the list of them
            more = []
        assert main([*words[1:], *more]) == 0, line
        done += 1
    return done


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_runs(page: Path, place: Path) -> None:
    """All commands of a page in order; what they make is there for the next."""
    before_page(page)
    ran = 0
    for language, text in blocks(page):
        if language == "yaml":
            Path("labels.yaml").write_text(text)
        elif language in ("", "console", "bash", "sh"):
            ran += run_commands(text)
    assert bool(ran) != (page.stem in WITHOUT_COMMANDS), "WITHOUT_COMMANDS names the pages that have none to run"


def before_page(page: Path) -> None:
    """What a page takes for granted that another page has shown how to make."""
    if page.stem in ("choosing", "serving"):
        arguments = ["--preset", "mslr", "--objectives", ",".join(CLICKS), "--cpu", *TINY_OPTIONS]
        for run in ("run", "demo/run"):
            assert main(["rank", "fit", "train.txt", "--out", run, *arguments]) == 0
        Path("demo/data.txt").write_bytes(Path("train.txt").read_bytes())
        assert (
            main(["align", "fit", "preferences.jsonl", "--model", "path/or/hub-name", "--out", "aligned", *ALIGN]) == 0
        )


#: Python blocks that are not run, by a text in them, and why.
NOT_EXECUTED = {
    "base64.b64encode(x": "one line of a request; test_rank_server.py sends it",
    "import openai": "asks a server; tests/serving does",
    "from openai": "asks a server; test_serving_examples.py does",
    "import requests": "asks a server",
    "import httpx": "asks a server; tests/serving does",
    "v = np.append": "one list's columns; test_engine_recipes.py ranks by them",
}


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text()], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page: Path, place: Path) -> None:
    before_page(page)
    if page.stem == "serving":
        assert main(["export", "run", "--out", "ranker.onnx"]) == 0
        assert main(["export", "aligned", "--out", "adapter", "--weights", ".3,.7", "--format", "peft"]) == 0
    if page.stem == "dial":
        fit = ["align", "fit", "preferences.jsonl", "--model", "path/or/hub-name", "--out", "aligned"]
        assert main([*fit, *ALIGN]) == 0
        assert main(["export", "aligned", "--out", "dial", "--format", "vertices"]) == 0
    names = PREPARED.get(page.stem, dict)()
    for language, text in blocks(page):
        if language == "python" and not any(words in text for words in NOT_EXECUTED):
            exec(compile(text, str(page), "exec"), names)


def for_serving() -> dict[str, Any]:
    import onnxruntime

    shape = onnxruntime.InferenceSession("ranker.onnx").get_inputs()[0].shape
    rng = np.random.default_rng(0)
    return {"features": rng.random((1, 7, shape[2]), dtype=np.float32), "n": 7}


def for_alignment() -> dict[str, Any]:
    import torch
    from toy_preferences import rows

    from hyperdpo.alignment.data.preferences import read_preferences

    train, evaluation = rows(8), rows(4, seed=1)
    pairs = [{"prompt": "w3 w4", "chosen": " w5 w6", "rejected": " w30 w31"}]
    return {
        "train_dataset": read_preferences(train),
        "eval_dataset": read_preferences(evaluation),
        "a": pairs,
        "b": [{**pairs[0], "chosen": " w30 w31", "rejected": " w5 w6"}],
        "ids": torch.tensor([[0, 5, 6], [7, 8, 9]]),
        "mask": torch.tensor([[0, 1, 1], [1, 1, 1]]),
    }


def for_choosing() -> dict[str, Any]:
    table = read_table(Path("train.txt"))
    labels = {"query_url_clicks": table.column("134"), "url_clicks": table.column("135")}
    run = RankRun.load("run")
    assert [o.column for o in run.config.objectives] == ["134", "135"]
    return {
        "X": table.values[:, table.column_indices(run.transform.columns)],
        "y": table.column("relevance"),
        "qid": np.repeat(table.qids, table.group_sizes),
        "labels": labels,
    }


PREPARED: dict[str, Callable[[], dict[str, Any]]] = {
    "README": arrays,
    "alignment": for_alignment,
    "choosing": for_choosing,
    "serving": for_serving,
}


def test_the_configuration_of_the_page_on_alignment_fits_the_rows_that_it_shows(tmp_path: Path) -> None:
    found = dict(reversed(list(blocks(ROOT / "docs" / "alignment.md"))))
    row = json.loads(found["json"])
    assert set(row["labels"]) == {"helpful", "harmless"}
    rows = [
        row | {"prompt": f"p{i}", "completions": ["a", "b"], "labels": row["labels"] | extra} for i, extra in LABELS
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (tmp_path / "labels.yaml").write_text(found["yaml"])
    arguments = ["data", "check", str(tmp_path / "rows.jsonl"), "--config", str(tmp_path / "labels.yaml")]
    assert main(arguments) == 0
    (tmp_path / "labels.yaml").write_text(found["yaml"].replace("harmless", "length"))
    assert main(arguments) == 2, "an objective that the rows do not have"


#: The row as it is, and a second in which its other label varies.
LABELS = list(enumerate([{}, {"harmless": [0, 1]}] * 5))
