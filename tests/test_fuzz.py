"""Mutated files: every reader gives a result or an InputError of one line, never another exception.

A reader is a row of :data:`READERS`. Mutations are seeded; ``HYPERDPO_MUTATIONS`` sets how many there are for each.
What earlier ones turned up stands in :data:`FOUND` and is tried first.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import fit_toy, toy_table, without_checksums
from tiny_models import tiny_base, tiny_model
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.adapters import read_config
from hyperdpo.alignment.answer_sets import read_prompts
from hyperdpo.alignment.bases import load_base, tokenizer_of
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.settings import settings_of
from hyperdpo.choosing.requirements import parse_requirement
from hyperdpo.core.point import parse_weights
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, read_yaml
from hyperdpo.ranking.base_scores import read_scores
from hyperdpo.ranking.config import parse_config
from hyperdpo.ranking.run import RankRun

COUNT = int(os.environ.get("HYPERDPO_MUTATIONS", "300"))

#: What takes the place of a word, a number or a value.
NASTY: tuple[bytes, ...] = (
    b"", b"nan", b"-inf", b"1e400", b"-1e-400", b"9" * 400, b"-" + b"9" * 5000, b"0." + b"0" * 500 + b"1",
    b"1_000", b"0x10",
    b"null", b"true", b'"', b"'", b"{", b"[" * 3000, b"{a: " * 500, b"\x00", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80",
    "٣".encode(), "é".encode(), b"\xef\xbb\xbf", b"\r", b"\n\n", b"\t", b" " * 300, b"a" * 70_000,
    b"..", b"../../x", b"%s", b"&a",
    b"*a", b"!!x",
    b"!!python/object/apply:os.system [x]", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616",
    b"1.", b"2020-13-45", b"0001-01-01 00:00:00", b"9" * 22, b"1e5", b"<<: *a", b"{}", b"[]", b"[null]",
    b'{"a": 1}', b"-0",
)  # fmt: skip
#: The same for a value of JSON.
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**400, 1e308, -1e-320, "", "a", "\0", "\ud800", "../x", [], {}, [[]], [None],
    {"a": []}, 2**63, "nan",
    float("nan"), float("inf"), "9" * 5000, ["a", 1],
)  # fmt: skip


# --- mutations


def of_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes changed, inserted, removed, repeated, or the end cut off."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        place, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 30))
        how = rng.integers(6)
        if how == 0 and place < len(data):
            data[place] = int(rng.integers(256))
        elif how == 1 and place < len(data):
            data[place] ^= 1 << int(rng.integers(8))
        elif how == 2:
            data[place:place] = rng.bytes(size)
        elif how == 3:
            del data[place : place + size]
        elif how == 4:
            data[place:place] = data[place : place + size]
        elif rng.random() < 0.3:
            del data[place:]
    return bytes(data)


def of_words(content: bytes, rng: np.random.Generator) -> bytes:
    """A few words, numbers or separators replaced, or lines moved."""
    pieces = re.split(rb"([\w.+-]+)", content)
    for _ in range(int(rng.integers(1, 4))):
        pieces[int(rng.integers(len(pieces)))] = NASTY[rng.integers(len(NASTY))]
    made = b"".join(pieces)
    if rng.random() < 0.2:
        lines = made.split(b"\n")
        lines.insert(int(rng.integers(len(lines) + 1)), lines.pop(int(rng.integers(len(lines)))))
        made = b"\n".join(lines)
    return made


def of_json(content: bytes, rng: np.random.Generator) -> bytes:
    """A value replaced, a key removed or renamed, in one line."""
    lines = content.split(b"\n") if b"\n{" in content else [content]
    row = int(rng.integers(len(lines)))
    try:
        value = json.loads(lines[row])
    except ValueError:
        return of_words(content, rng)
    place = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return of_words(content, rng)
        key = keys[int(rng.integers(len(keys)))]
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            break
        place = place[key]
    if rng.random() < 0.25:
        del place[key]
    elif isinstance(place, dict) and rng.random() < 0.1:
        place[str(key) + "x"] = place.pop(key)
    else:
        place[key] = VALUES[rng.integers(len(VALUES))]
    lines[row] = json.dumps(value).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)


def mutations(name: str, content: bytes, count: int) -> Iterator[bytes]:
    """Seeded ones; of text, half of them replace words."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    binary = b"\0" in content[:1000] or content[:2] in (b"\x1f\x8b", b"BZ")
    structured = content.lstrip()[:1] in (b"{", b"[")
    for _ in range(count):
        kinds = [of_bytes] if binary else [of_bytes, of_words, of_words] + [of_json, of_json] * structured
        yield kinds[rng.integers(len(kinds))](content, rng)


# --- readers


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        file: the name of the file that is mutated, in the directory.
        make: writes the valid files into a directory.
        read: reads them.
    """

    file: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]


def written(name: str, content: bytes) -> Callable[[Path], None]:
    def write(out: Path) -> None:
        (out / name).write_bytes(content)

    return write


LETOR = "".join(f"{i % 3} qid:{i // 4} 1:{i} 3:{i}.25 7:-1e-{i % 9} # doc {i}\n" for i in range(24)).encode()
CSV = ("qid,relevance,f,g\n" + "".join(f"{i // 4},{i % 3},{i * 0.37},2020-01-{i + 1:02}\n" for i in range(24))).encode()
MANY = b"qid,relevance,f\n" + b"".join(b"%d,%d,%.5f\n" % (i // 9, i % 3, i * 0.123) for i in range(3000))
SEMICOLONS = CSV.replace(b",", b";").replace(b".", b",")
PREFERENCES = "".join(json.dumps(row) + "\n" for row in rows(5)).encode()
PAIRS = "".join(
    json.dumps({"prompt": f"w{i}", "chosen": f"w{i + 3} w4", "rejected": "w9", "margin": i / 7}) + "\n"
    for i in range(5)
).encode()
CHAT = "".join(
    json.dumps(
        {
            name: [{"role": "user", "content": f"w{i}"}, {"role": "assistant", "content": answer}]
            for name, answer in (("chosen", "w5"), ("rejected", "w6 w7"))
        }
    )
    + "\n"
    for i in range(4)
).encode()
TRANSCRIPTS = "".join(
    json.dumps({"chosen": f"\n\nHuman: w{i}\n\nAssistant: w5", "rejected": f"\n\nHuman: w{i}\n\nAssistant: w6"}) + "\n"
    for i in range(4)
).encode()
RANK_YAML = b"""# settings
qid_column: qid
objectives: [{name: a, column: f, target: l1, beta: 1.5}, {name: b, column: g, target: softmax, direction: minimize}]
main: {name: relevance, column: relevance}
training: {epochs: 3, learning_rate: 1e-3}
split: {train: 0.6, validation: 0.2, test: 0.2}
gbdt:
  trees: 5
"""
ALIGN_YAML = b"""objectives:
  - {name: few, column: low, target: softmax, beta: 0.1}
  - {name: many, column: high}
training: {num_train_epochs: 2, learning_rate: 1e-4}
conditioning: {prompt_tokens: 4}
split: {test: 0.2, seed: 3}
"""
RANGE = range(24)
WORDS = b"helpful=.3,harmless=.7"


def parquet(table: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(table), buffer, row_group_size=10)
    return buffer.getvalue()


def array(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def table_of(name: str) -> Callable[[Path], Any]:
    def read(out: Path) -> Any:
        shutil.rmtree(out / "cache", ignore_errors=True)
        table = read_table(out / name, cache_dir=out / "cache", sort=True)
        return table.take(np.arange(table.num_rows), np.arange(len(table.columns)))

    return read


def preferences_of(name: str) -> Callable[[Path], Any]:
    def read(out: Path) -> Any:
        for skip in (False, True):
            try:
                preferences = read_preferences(out / name, skip_invalid=skip)
            except InputError:
                if skip:
                    raise
        return to_targets(preferences, fit_objectives(preferences, default_objectives(preferences)))

    return read


def save_rank_run(out: Path) -> None:
    shutil.copytree(_made["run"], out, dirs_exist_ok=True)
    without_checksums(out, 3)  # of files with checksums no mutation would come so far


def read_rank_run(out: Path) -> Any:
    run = RankRun.load(out)
    return run.score(Part.whole(toy_table(3)), [0.5, 0.5]), float(run.metrics["parameters"])


def save_align_run(out: Path) -> None:
    named = zip(default_objectives(read_preferences(rows(3))), "ab", strict=True)
    objectives = tuple(replace(one, name=name) for one, name in named)
    model = tiny_model(base=tiny_base())
    run = AlignRun(model, words_tokenizer(), objectives, {"source": "x"}, {}, {"max_length": 9}, FIGURES)
    run.save(out)
    without_checksums(out, 1)
    config = read_json(out / "hyperdpo_config.json")
    (out / "hyperdpo_config.json").write_text(json.dumps(config | {"format_version": 2}))
    tiny_base().save_pretrained(out / "base")
    words_tokenizer().save_pretrained(out / "base")


def read_align_run(out: Path) -> Any:
    run = AlignRun.load(out, tiny_base())
    return float(run.metrics["parameters"]), run.names


def read_base(out: Path) -> Any:
    if re.search(rb"\d{6}", (out / "base" / "config.json").read_bytes()):
        return None  # transformers would make a model of that size
    return load_base(out / "base")


def lines(read: Callable[[str], Any]) -> Callable[[Path], Any]:
    """A reader of an argument's text."""
    return lambda out: read((out / "text").read_bytes().decode("utf-8", "surrogateescape"))


READERS = {
    "LETOR": Reader("a.txt", written("a.txt", LETOR), table_of("a.txt")),
    "LETOR, gzip": Reader("a.txt.gz", written("a.txt.gz", gzip.compress(LETOR, mtime=0)), table_of("a.txt.gz")),
    "CSV": Reader("a.csv", written("a.csv", CSV), table_of("a.csv")),
    "CSV with semicolons": Reader("a.csv", written("a.csv", SEMICOLONS), table_of("a.csv")),
    "CSV, gzip, many rows": Reader("a.csv.gz", written("a.csv.gz", gzip.compress(MANY, mtime=0)), table_of("a.csv.gz")),
    "CSV, gzip": Reader("a.csv.gz", written("a.csv.gz", gzip.compress(CSV, mtime=0)), table_of("a.csv.gz")),
    "CSV, bzip2": Reader("a.csv.bz2", written("a.csv.bz2", bz2.compress(CSV)), table_of("a.csv.bz2")),
    "Parquet": Reader(
        "a.parquet",
        written("a.parquet", parquet({"qid": [i // 4 for i in RANGE], "relevance": [1.0, 0] * 12, "t": ["x"] * 24})),
        table_of("a.parquet"),
    ),
    "preferences": Reader("a.jsonl", written("a.jsonl", PREFERENCES), preferences_of("a.jsonl")),
    "preferences, gzip": Reader(
        "a.jsonl.gz", written("a.jsonl.gz", gzip.compress(PREFERENCES, mtime=0)), preferences_of("a.jsonl.gz")
    ),
    "preferences, one array": Reader(
        "a.json", written("a.json", json.dumps(rows(4)).encode()), preferences_of("a.json")
    ),
    "preferences, Parquet": Reader(
        "a.parquet",
        written("a.parquet", parquet({"prompt": ["w3", "w4"], "chosen": ["w5", "w6"], "rejected": ["w7", "w8"]})),
        preferences_of("a.parquet"),
    ),
    "pairs": Reader("a.jsonl", written("a.jsonl", PAIRS), preferences_of("a.jsonl")),
    "conversations": Reader("a.jsonl", written("a.jsonl", CHAT), preferences_of("a.jsonl")),
    "prompts": Reader("a.jsonl", written("a.jsonl", PREFERENCES), lambda out: read_prompts(out / "a.jsonl")),
    "prompts, text": Reader("a.txt", written("a.txt", b"w3 w4\nw5\n\nw6\n"), lambda out: read_prompts(out / "a.txt")),
    "transcripts": Reader("a.jsonl", written("a.jsonl", TRANSCRIPTS), preferences_of("a.jsonl")),
    "settings of a ranker": Reader(
        "a.yaml", written("a.yaml", RANK_YAML), lambda out: parse_config(read_yaml(out / "a.yaml"), str(out / "a.yaml"))
    ),
    "settings of a language model": Reader(
        "a.yaml", written("a.yaml", ALIGN_YAML), lambda out: settings_of(out / "a.yaml", {})
    ),
    "base scores": Reader(
        "a.txt", written("a.txt", b"".join(b"%d.5\n" % i for i in range(20))), lambda out: read_scores(out / "a.txt")
    ),
    "base scores, .npy": Reader(
        "a.npy", written("a.npy", array(np.arange(20.0))), lambda out: read_scores(out / "a.npy")
    ),
    "weights": Reader(
        "text", written("text", WORDS), lines(lambda text: parse_weights(text, ("helpful", "harmless"), (0, 1)))
    ),
    "a requirement": Reader("text", written("text", b"main>=0.45"), lines(parse_requirement)),
    "run.json": Reader("run.json", save_rank_run, read_rank_run),
    "config.json": Reader("config.json", save_rank_run, read_rank_run),
    "metrics.json": Reader("metrics.json", save_rank_run, read_rank_run),
    "model.safetensors": Reader("model.safetensors", save_rank_run, read_rank_run),
    "an adapter's configuration": Reader("hyperdpo_config.json", save_align_run, read_config),
    "run.json of a language model": Reader("run.json", save_align_run, read_align_run),
    "a tokenizer": Reader("tokenizer.json", save_align_run, lambda out: tokenizer_of(str(out))),
    "a tokenizer's configuration": Reader("tokenizer_config.json", save_align_run, lambda out: tokenizer_of(str(out))),
    "a base model's configuration": Reader("base/config.json", save_align_run, read_base),
    "a base model": Reader("base/model.safetensors", save_align_run, read_base),
    "a base model's tokenizer": Reader(
        "base/tokenizer.json", save_align_run, lambda out: tokenizer_of(str(out / "base"))
    ),
}

#: Mutations that raised something else once: reader -> contents.
FOUND: dict[str, list[bytes]] = {
    "CSV": [CSV.replace(b"qid,", b"qid,\r,", 1), CSV.replace(b"f,g", b"f\r,g", 1), CSV.replace(b"f", b"\xff\xfe", 1)],
    "settings of a ranker": [
        b"{a: " * 2000,
        b"[" * 100_000,
        b"seed: " + b"9" * 5000,
        b"seed: 2020-13-45",
        b"? [a]\n: b",
        b"a\n\nb: 1",
        RANK_YAML.replace(b"column: f", b'"col\\numn": f'),
    ],
    "settings of a language model": [b"{a: " * 2000, b"seed: 2020-13-45"],
    "base scores": [b"9" * 400, b"9" * 5000, b"1\n\n2"],
    "base scores, .npy": [array(np.arange(3.0)).replace(b"'descr'", b"('descr'"), b"\x93NUMPY\x01\x00\x00\x00", b""],
    "run.json": [
        b'{"kind": ["rank"], "format_version": 3}',
        b'{"kind": "rank", "format_version": [3]}',
        b"[" * 100_000,
    ],
    "a tokenizer": [b"{}", b"[]", b'{"model": null}'],
    "a requirement": [b"main>=" + b"9" * 400, b"main>=" + b"9" * 5000],
}

FIGURES = {"parameters": 1, "train_seconds": 1.0}
_made: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def _run(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = fit_toy(out=tmp_path_factory.mktemp("run") / "run")
    assert run.path is not None
    _made["run"] = run.path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", READERS)
def test_a_mutated_file_gives_a_result_or_one_line(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    reader.make(tmp_path)
    file = tmp_path / reader.file
    whole = file.read_bytes()
    reader.read(tmp_path)
    wrong = {}
    for number, content in enumerate((*FOUND.get(name, ()), *mutations(name, whole, COUNT))):
        file.write_bytes(content)
        try:
            reader.read(tmp_path)
        except InputError as error:
            if "\n" in str(error):
                wrong[f"several lines: {error}"] = content
        except Exception as error:
            wrong[f"{number}: {type(error).__name__}: {' '.join(str(error).split())[:150]}"] = content
    kept = os.environ.get("HYPERDPO_FOUND")
    if kept and wrong:
        (Path(kept) / f"{name}.txt").write_text("\n".join(f"{why}\n    {what!r}" for why, what in wrong.items()))
    assert not wrong, f"{len(wrong)} of {COUNT}: " + "\n".join(wrong)
