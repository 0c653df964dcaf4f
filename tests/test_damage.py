"""Damage to any file that the program reads back: refused by its name, or the same result to the bit.

A kind of file is a row of :data:`KINDS`. Damages are seeded. ``HYPERDPO_DAMAGES`` sets how many there are of each kind.
"""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import fit_toy, toy_table
from tiny_models import texts, tiny_base, tiny_model
from toy_preferences import rows, words_tokenizer

from hyperdpo.alignment.checkpoints import last_checkpoint
from hyperdpo.alignment.collation import padding_token, tokenize_groups
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives, to_targets
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.alignment.reference import kept_base_scores
from hyperdpo.alignment.run import AlignRun
from hyperdpo.alignment.trainer import HyperDPOConfig, HyperDPOTrainer
from hyperdpo.checking import check
from hyperdpo.comparison.rank_trees import kept_training
from hyperdpo.core.point import Point
from hyperdpo.data.cache import read_table
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors
from hyperdpo.ranking.gbdt import GbdtModel
from hyperdpo.ranking.run import RankRun
from hyperdpo.serving.export.dial import DialSource, export_dial, read_dial
from hyperdpo.serving.export.language_model import export_lm
from hyperdpo.serving.export.ranker import export_ranker
from hyperdpo.serving.export.tree_files import export_trees
from hyperdpo.serving.server.rank_model import RankModel

COUNT = int(os.environ.get("HYPERDPO_DAMAGES", "30"))
WEIGHTS = [0.3, 0.7]


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        make: writes them into a new directory, from what all kinds share.
        read: what comes of them, as something that can be compared.
        files: patterns of those that are damaged; the others are read, too.
        repaired: damage is repaired, so there is no refusal.
    """

    make: Callable[[Shared, Path], None]
    read: Callable[[Shared, Path], Any]
    files: tuple[str, ...] = ("**/*",)
    repaired: bool = False


@dataclass(frozen=True)
class Shared:
    """What files are made from, and read with."""

    mixture: RankRun
    trees: RankRun
    model: ConditionedLM
    place: Path

    @property
    def part(self) -> Part:
        return Part.whole(toy_table())


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    place = tmp_path_factory.mktemp("shared")
    mixture = fit_toy(out=place / "mixture", training={"checkpoint_seconds": 0})
    gain = {"mixture": {"form": "gain"}, "gbdt": {"trees": 3}, "scorer": {"kind": "gbdt"}}
    for run in (trees := fit_toy(out=place / "trees", **gain), mixture):
        assert run.path is not None
        run.save(run.path)
    export_ranker(mixture, place / "graph" / "a.onnx")
    return Shared(mixture, trees, tiny_model(base=tiny_base()), place)


# --- rankers


def save_run(name: str) -> Callable[[Shared, Path], None]:
    return lambda shared, out: getattr(shared, name).save(out)


def read_run(shared: Shared, out: Path) -> Any:
    run = RankRun.load(out)
    scores = run.score(shared.part, WEIGHTS, 2.0)
    return scores.tobytes(), run.metrics, run.data, run.config, run.base_source


def read_kept_scores(shared: Shared, out: Path) -> Any:
    return RankRun.load(out).base_scores(toy_table()).tobytes()


def copied(name: str) -> Callable[[Shared, Path], None]:
    """Files that the fixture made."""
    return lambda shared, out: shutil.copytree(shared.place / name, out, dirs_exist_ok=True) and None


def tensors_in(_: Shared, out: Path) -> Any:
    found = {file.name: read_tensors(file) for file in sorted(out.rglob("*.safetensors"))}
    return {
        (name, key): (tensor.numpy().tobytes(), tensor.shape, str(values))
        for name, (tensors, values) in found.items()
        for key, tensor in tensors.items()
    }


def save_kept_trees(shared: Shared, out: Path) -> None:
    assert shared.trees.ranker.trees is not None
    model = shared.trees.ranker.trees.models[0]
    kept_training(out, "w", model, lambda: model).train()


def read_kept_trees(shared: Shared, out: Path) -> Any:
    assert shared.trees.ranker.trees is not None
    like = GbdtModel("", shared.trees.ranker.trees.models[0].columns, False)
    found = kept_training(out, "w", like, lambda: pytest.fail("trained again")).load()
    assert found is not None
    return found.model.part_scores(shared.part).tobytes(), found.parameters, found.seconds


def read_graph(shared: Shared, out: Path) -> Any:
    run = shared.mixture
    model = RankModel.load(out / "a.onnx")
    features = run.part(toy_table(), "all")[1].table.take(np.arange(9), np.arange(1, 7))
    point = Point(tuple(WEIGHTS), 2.0, ())
    return model.score([model.prepare(features, point, None)])[0].tobytes(), model.objectives, model.features


def checked(_: Shared, out: Path) -> Any:
    """Files that are read by others; this package compares them."""
    (found,) = [out, *out.glob("*.onnx"), *out.glob("*.pt2")][-1:]
    assert not check(found).added
    return content(out)


def content(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


def save_table(_: Shared, out: Path) -> None:
    lines = [f"{i % 7},{i // 5},{i * 0.37}" for i in range(60)]
    (out / "data.csv").write_text("\n".join(["relevance,qid,a", *lines]) + "\n")
    os.utime(out / "data.csv", (1, 1))
    read_table(out / "data.csv", cache_dir=out / "cache", sort=True)


def read_cached(_: Shared, out: Path) -> Any:
    table = read_table(out / "data.csv", cache_dir=out / "cache", sort=True)
    values = table.take(np.arange(table.num_rows), np.arange(len(table.columns)))
    return values.tobytes(), table.columns, table.qids.tobytes(), table.offsets.tobytes(), table.fingerprint


# --- language models


def read_adapter(_: Shared, out: Path) -> Any:
    return logits(ConditionedLM.from_pretrained(out, tiny_base()))


def logits(model: ConditionedLM) -> bytes:
    with torch.no_grad():
        return bytes(model(texts()[0][None], weights=WEIGHTS).logits.numpy().tobytes())


def save_align_run(shared: Shared, out: Path) -> None:
    objectives = tuple(replace(one, name=name) for one, name in zip(default_objectives(groups()), "ab", strict=True))
    metrics = {"parameters": 3, "train_seconds": 1.5}
    run = AlignRun(shared.model, words_tokenizer(), objectives, {"source": "x"}, {}, {"max_length": 9}, metrics)
    run.save(out)


def groups() -> Any:
    """Preferences for the two objectives of the model."""
    return read_preferences(
        [{**row, "labels": dict(zip("ab", row["labels"].values(), strict=True))} for row in rows(4)]
    )


def read_align_run(_: Shared, out: Path) -> Any:
    run = AlignRun.load(out, tiny_base())
    return logits(run.model), run.tokenizer("w3 w7")["input_ids"], run.objectives, run.data, run.limits, run.metrics


def save_lm_checkpoint(shared: Shared, out: Path) -> None:
    args = HyperDPOConfig(
        str(out), num_train_epochs=1, save_strategy="epoch", use_cpu=True, report_to=[], disable_tqdm=True
    )
    HyperDPOTrainer(tiny_model(base=tiny_base()), args, groups(), None, words_tokenizer()).train()
    for file in out.glob("*"):
        if not file.name.startswith("checkpoint"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()


def read_lm_checkpoint(_: Shared, out: Path) -> Any:
    if last_checkpoint(out) is None:
        raise InputError(f"{out}: passed over")
    return content(out)


def kept_scores_of(shared: Shared, out: Path) -> Any:
    targets = to_targets(groups(), fit_objectives(groups(), default_objectives(groups())))
    tokens = tokenize_groups(groups(), targets, words_tokenizer(), max_length=40, max_prompt_length=20)
    pad = padding_token(words_tokenizer())
    scores = kept_base_scores(shared.model, tokens, pad, path=out / "_base-train.safetensors")
    return np.concatenate(scores).tobytes()


def save_lm_export(shared: Shared, out: Path) -> None:
    export_lm(shared.model, words_tokenizer(), WEIGHTS, out, "peft", overwrite=True)


def save_dial(shared: Shared, out: Path) -> None:
    portable = tiny_model(base=tiny_base(), prompt_tokens=0, gate_hidden=0)
    export_dial(DialSource(portable, words_tokenizer(), ({"name": "a"}, {"name": "b"}), None, ()), out, "vertices")


def read_dials(shared: Shared, out: Path) -> Any:
    return read_dial(out), checked(shared, out)


KINDS = {
    "run of a ranker": Kind(save_run("mixture"), read_run),
    "run with trees": Kind(save_run("trees"), read_run),
    "trees": Kind(save_run("trees"), read_run, files=("trees/*.txt",)),
    "kept base scores": Kind(save_run("mixture"), read_kept_scores, files=("base_scores/*",)),
    "checkpoint of a ranker": Kind(copied("mixture/checkpoints"), tensors_in),
    "kept trees of a comparison": Kind(save_kept_trees, read_kept_trees),
    "graph": Kind(copied("graph"), read_graph, files=("*.onnx",)),
    "export of a graph": Kind(copied("graph"), checked),
    "export of trees": Kind(lambda shared, out: export_trees(shared.trees, out) and None, checked),
    "cache": Kind(save_table, read_cached, files=("cache/**/*",), repaired=True),
    "adapter": Kind(lambda shared, out: shared.model.save_pretrained(out), read_adapter),
    "run of a language model": Kind(save_align_run, read_align_run),
    "checkpoint of a language model": Kind(save_lm_checkpoint, read_lm_checkpoint),
    "kept base scores of a language model": Kind(
        lambda shared, out: kept_scores_of(shared, out) and None, kept_scores_of, repaired=True
    ),
    "export of a language model": Kind(save_lm_export, checked),
    "dial": Kind(save_dial, read_dials),
    "dial.json": Kind(save_dial, lambda _, out: read_dial(out), files=("dial.json",)),
}


# --- damages


def damages(name: str, files: Sequence[Path], count: int) -> Iterator[tuple[str, Path, bytes]]:
    """What was done, the file, and what it holds then. Half of the damage is where headers and checksums stand."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for number in range(count):
        file = files[number % len(files)] if number < 2 * len(files) else files[rng.integers(len(files))]
        whole = file.read_bytes()
        content = bytearray(whole)
        place = int(rng.integers(len(content)))
        if rng.random() < 0.5:
            near = int(rng.integers(min(len(content), 200)))
            place = near if rng.random() < 0.5 else len(content) - 1 - near
        how = rng.choice(["flip", "flip", "flip", "flips", "truncate", "zeros"])
        if how == "truncate":
            del content[place:]
        elif how == "zeros":
            end = min(len(content), place + int(rng.integers(1, 600)))
            content[place:end] = bytes(end - place)
        else:
            for _ in range(1 if how == "flip" else 5):
                content[min(place, len(content) - 1)] ^= 1 << int(rng.integers(8))
                place = int(rng.integers(len(content)))
        if bytes(content) != whole:
            yield f"{how} at {place}", file, bytes(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", KINDS)
def test_damage_is_refused_by_name_or_changes_nothing(
    name: str, shared: Shared, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, out = KINDS[name], tmp_path / "whole"
    out.mkdir()
    kind.make(shared, out)
    expected = kind.read(shared, out)
    files = sorted({file for pattern in kind.files for file in out.glob(pattern) if file.is_file()})
    assert files
    shutil.copytree(out, tmp_path / "copy")
    wrong, refused = [], 0
    for how, file, damaged in damages(name, files, COUNT):
        before = file.read_bytes()
        file.write_bytes(damaged)
        told = f"{file.relative_to(out)}: {how}"
        try:
            found = kind.read(shared, out)
            if found != expected:
                wrong.append(f"{told}: another result, silently")
        except InputError as error:
            refused += 1
            if kind.repaired:
                wrong.append(f"{told}: {error}")
            elif file.name not in str(error) and name != "checkpoint of a language model":
                wrong.append(f"{told}: does not name the file: {error}")
            elif "\n" in str(error):
                wrong.append(f"{told}: several lines")
        except Exception as error:
            wrong.append(f"{told}: {type(error).__name__}: {error}")
        if kind.repaired:
            shutil.rmtree(out)
            shutil.copytree(tmp_path / "copy", out)
        else:
            file.write_bytes(before)
    assert not wrong, "\n".join(wrong)
    assert kind.repaired or refused, "a damage that is never noticed"
    assert kind.read(shared, out) == expected
