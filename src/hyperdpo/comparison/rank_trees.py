"""LightGBM in a comparison of rankers: the trainings of ``lightgbm-ls``, and a LightGBM base."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperdpo.checksums import content_digest, damaged
from hyperdpo.comparison.methods import Trees
from hyperdpo.comparison.repeats import NO_MAIN, RankRepeat
from hyperdpo.comparison.trainings import Trained, Training
from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_atomically, write_json
from hyperdpo.hashing import digest, fingerprint, without_unused
from hyperdpo.ranking.clicks import read_labels, with_position_power
from hyperdpo.ranking.config import GbdtConfig, RankConfig
from hyperdpo.ranking.evaluation import ScoreBatch
from hyperdpo.ranking.examples import Batch, Examples
from hyperdpo.ranking.features import choose_features
from hyperdpo.ranking.fitting import Prepared
from hyperdpo.ranking.gbdt import GbdtData, train_gbdt_base, train_lambdamart
from hyperdpo.ranking.gbdt_labels import LabelScaling
from hyperdpo.ranking.gbdt_model import GbdtModel

#: Of a kept model's facts: the SHA-256 of its text.
TEXT_DIGEST = "text_sha256"


class TreeTrainings:
    """The trainings of ``lightgbm-ls`` on one repeat. Their bins are made once, for all of them.

    Args:
        directory: of the repeat's finished trainings.
        with_base: the base score is a feature.
    """

    def __init__(self, prepared: Prepared, directory: Path, with_base: bool):
        config, train = prepared.config, prepared.examples["train"]
        self.with_base = with_base
        self.data = GbdtData(
            train,
            prepared.examples["validation"],
            scaling=LabelScaling.fit(train, config.main),
            columns=prepared.transform.columns,
            origins=prepared.transform.origins.tolist(),
            config=config.gbdt,
            metric=config.metric,
            seed=config.seed,
        )
        print_ = fingerprint([prepared.fingerprint, lambdamart_settings(config.gbdt), with_base])[:12]
        self.directory = directory / f"lightgbm{'-base' if with_base else ''}-{print_}"
        self.bin_seconds = self._bin_seconds()

    def training(self, job: Trees, main_share: float) -> Training[GbdtModel]:
        """How a job is trained with that share of the main label."""
        w, member = np.array(job.weights), job.member
        return kept_training(
            self.directory,
            "-".join(f"{x:.4g}" for x in w) + f"-main-{main_share:.6g}" + ("" if member is None else f"-{member}"),
            GbdtModel("", self.data.columns, self.with_base, origins=self.data.origins),
            lambda: train_lambdamart(self.data, w, main_share, with_base=self.with_base, member=member),
        )

    def _bin_seconds(self) -> float:
        """The seconds of making the bins: from the file of the first time, or taken now."""
        path = self.directory / "bins.json"
        if path.exists():
            return _seconds(path)
        started = time.monotonic()
        self.data.rows(self.with_base)
        seconds = time.monotonic() - started
        write_json(path, {"seconds": seconds}, sealed=True)
        return seconds


def lambdamart_settings(config: GbdtConfig) -> dict[str, Any]:
    """What LambdaMART reads of the settings of trees."""
    return {name: value for name, value in without_unused(asdict(config)).items() if name != "loss"}


def lightgbm_base(repeat: RankRepeat, config: RankConfig, directory: Path) -> dict[str, np.ndarray]:
    """(N,) scores, per split, of a LambdaMART that is trained on the main label: the usual production ranker.

    Its files are those of the groups that it was trained and stopped on: another split trains another one.

    Raises:
        InputError: there is no main label.
    """
    if config.main is None:
        raise InputError(NO_MAIN)
    train, validation = repeat.parts["train"], repeat.parts.get("validation")
    columns = choose_features(train.table, config).columns
    main = with_position_power(config.main, train, columns, config.qid_column)
    main = main.fitted(read_labels(train, (main,), config.qid_column)[0][:, 0])
    origins = tuple(train.table.origins.get(name, 0.0) for name in columns)
    trained_on = [
        None if part is None else (part.table.fingerprint, digest(part.groups)) for part in (train, validation)
    ]
    settings = [
        without_unused(asdict(main)),
        columns,
        asdict(config.metric),
        lambdamart_settings(config.gbdt),
        config.seed,
    ]
    settings += [] if config.weight is None else [config.weight]
    training = kept_training(
        directory,
        f"base-lightgbm-{fingerprint([*settings, trained_on])[:12]}",
        GbdtModel("", columns, False, origins=origins),
        lambda: train_gbdt_base(
            train,
            validation,
            main,
            columns,
            origins=origins,
            config=config.gbdt,
            metric=config.metric,
            seed=config.seed,
            weight=config.weight,
        ),
    )
    model = training.result().model
    tables: dict[int, GroupedTable] = {id(part.table): part.table for part in repeat.parts.values()}
    scores = {key: model.part_scores(Part.whole(table)) for key, table in tables.items()}
    return {name: scores[id(part.table)] for name, part in repeat.parts.items()}


def kept_training(directory: Path, name: str, like: GbdtModel, make: Callable[[], GbdtModel]) -> Training[GbdtModel]:
    """A training whose model is kept as LightGBM's text, with its facts beside it.

    Args:
        like: a model of the same features.
        make: trains it.
    """
    text, facts = directory / f"{name}.txt", directory / f"{name}.json"
    full_name = f"{directory.name}/{name}"

    def load() -> Trained[GbdtModel] | None:
        if not (facts.exists() and text.exists()):
            return None
        seconds = _seconds(facts)
        kept = _kept_text(text, read_json(facts).get(TEXT_DIGEST))
        model = GbdtModel.load(kept, like.columns, with_base=like.with_base, origins=like.origins)
        return Trained(full_name, model, model.parameters, seconds)

    def train() -> Trained[GbdtModel]:
        started = time.monotonic()
        model = make()
        seconds = time.monotonic() - started
        content = model.text.encode()
        write_atomically(text, content)
        told = {"seconds": seconds, "trees": model.num_trees, "parameters": model.parameters}
        write_json(facts, told | {TEXT_DIGEST: content_digest(content)}, sealed=True)
        return Trained(full_name, model, model.parameters, seconds)

    return Training(full_name, load, train)


def _kept_text(path: Path, digest: str | None) -> str:
    """The text of a kept model.

    Args:
        digest: what it was when it was written; None: older versions did not say.
    """
    remedy = "delete it to train again"
    try:
        content = path.read_bytes()
        if digest is not None and content_digest(content) != digest:
            raise damaged(path, remedy)
        return content.decode()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except UnicodeDecodeError:
        raise damaged(path, remedy) from None


def _seconds(facts: Path) -> float:
    """The seconds in a file of facts."""
    found = read_json(facts, remedy="delete it to train again")
    try:
        return float(found["seconds"])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{facts}: not the facts of a finished training; expected seconds in it") from None


def tree_scores(models: Sequence[GbdtModel], examples: Examples) -> ScoreBatch:
    """The (P, G, n) scores of one model for each of P weightings."""
    rows_scores = torch.from_numpy(np.stack([model.scores(examples) for model in models]))

    def score(group_batch: GroupBatch, batch: Batch) -> torch.Tensor:
        rows, mask = examples.index(group_batch)
        found = rows_scores[:, torch.from_numpy(rows)].masked_fill(~torch.from_numpy(mask), 0)
        return found.to(batch.mask.device)

    return score
