"""The baseline ``lightgbm-ls`` and a LightGBM base on a :class:`~hyperdpo.ranking.bench.Bench`, kept in its files."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hyperdpo.data.batching import GroupBatch
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part
from hyperdpo.data.transform import column_values
from hyperdpo.errors import InputError
from hyperdpo.files import read_json, write_atomically, write_json
from hyperdpo.hashing import digest
from hyperdpo.ranking.bench import Bench, Entry, Model
from hyperdpo.ranking.config import RankConfig
from hyperdpo.ranking.evaluation import ScoreBatch, evaluate_front
from hyperdpo.ranking.examples import Batch, Examples
from hyperdpo.ranking.features import choose_features
from hyperdpo.ranking.gbdt import GbdtData, GbdtModel, choose_main_share, train_gbdt_base, train_lambdamart
from hyperdpo.ranking.gbdt_labels import LabelScaling
from hyperdpo.ranking.training import fingerprint

if TYPE_CHECKING:
    from hyperdpo.ranking.bench import Repeat


def lightgbm_model(bench: Bench, entry: Entry, grid: np.ndarray, few: np.ndarray, main_target: float | None) -> Model:
    """LambdaMART for each of the (P, m) weights, with the main label's share at which the main score matches.

    Args:
        few: weightings at which shares are tried.
        main_target: mean main score on validation groups, at those, that the share is chosen for; None: no main label,
            no share.

    Returns:
        ``seconds`` counts the bins and the P models; the models of the search for the share are in ``details`` (those
        at the chosen share count in both).
    """
    prepared, config = bench.prepared, bench.prepared.config.gbdt
    with_base = bool(entry.overrides.get("with_base"))
    train = prepared.examples["train"]
    data = GbdtData(
        train,
        bench.validation,
        scaling=LabelScaling.fit(train, prepared.config.main),
        columns=prepared.transform.columns,
        origins=prepared.transform.origins.tolist(),
        config=config,
        metric=prepared.config.metric,
        seed=prepared.config.seed,
    )
    print_ = fingerprint(prepared.fingerprint, asdict(config), with_base)[:12]
    directory = bench.directory / "models" / f"lightgbm{'-base' if with_base else ''}-{print_}"

    def model(w: np.ndarray, share: float) -> tuple[GbdtModel, float]:
        name = "-".join(f"{x:.4g}" for x in w) + f"-main-{share:.6g}"
        return _kept(
            directory,
            name,
            GbdtModel("", data.columns, with_base, origins=data.origins),
            lambda: train_lambdamart(data, w, share, with_base=with_base),
        )

    def mean_main(share: float) -> float:
        score = _scores([model(w, share)[0] for w in few], bench.validation)
        front = evaluate_front(
            score, bench.validation, few, [1.0], prepared.betas, prepared.config.metric, with_losses=False
        )
        return float("nan") if front.main is None else float(np.nanmean(front.main))

    binned = _binned(directory, data, with_base)
    share, spent = 0.0, 0.0
    tried: list[tuple[float, float]] = []
    if main_target is not None:
        share, tried = choose_main_share(mean_main, main_target)
        spent = sum(model(w, s)[1] for s, _ in tried for w in few)
    trained = {tuple(map(float, w)): model(w, share) for w in grid}
    models = {w: one for w, (one, _) in trained.items()}

    def scores(examples: Examples, weights: np.ndarray, _: Sequence[float]) -> ScoreBatch:
        return _scores([models[tuple(map(float, w))] for w in weights], examples)

    return Model(
        scores=scores,
        models=len(models),
        parameters=sum(one.parameters for one in models.values()),
        seconds=binned + sum(seconds for _, seconds in trained.values()),
        epochs=[],
        details={
            "main_share": share,
            "main_target": main_target,
            "main_shares_tried": [{"share": s, "main": score} for s, score in tried],
            "search_seconds": spent,
            "trees": [one.num_trees for one in models.values()],
        },
    )


def lightgbm_base(repeat: Repeat, config: RankConfig, directory: Path) -> dict[str, np.ndarray]:
    """(N,) scores, per split, of a LambdaMART that is trained on the main label: the usual production ranker.

    Its files are those of the groups that it was trained and stopped on: another split trains another one.

    Raises:
        InputError: there is no main label.
    """
    if config.main is None:
        raise InputError("--base-scores lightgbm: there is no main label to train a base on; expected one")
    train, validation = repeat.parts["train"], repeat.parts.get("validation")
    main = config.main.fitted(column_values(train, (config.main.column,))[:, 0])
    columns = choose_features(train.table, config).columns
    origins = tuple(train.table.origins.get(name, 0.0) for name in columns)
    trained_on = [
        None if part is None else (part.table.fingerprint, digest(part.groups)) for part in (train, validation)
    ]
    settings = (asdict(main), columns, asdict(config.metric), asdict(config.gbdt), config.seed)
    print_ = fingerprint(*settings, trained_on)[:12]
    model, _ = _kept(
        directory,
        f"base-lightgbm-{print_}",
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
        ),
    )
    tables: dict[int, GroupedTable] = {id(part.table): part.table for part in repeat.parts.values()}
    scores = {key: model.part_scores(Part.whole(table)) for key, table in tables.items()}
    return {name: scores[id(part.table)] for name, part in repeat.parts.items()}


def _kept(directory: Path, name: str, like: GbdtModel, make: Callable[[], GbdtModel]) -> tuple[GbdtModel, float]:
    """A model and the seconds of its training: from its files, or made now and written.

    Args:
        like: a model of the same features.
    """
    text, facts = directory / f"{name}.txt", directory / f"{name}.json"
    if facts.exists() and text.exists():
        found: Mapping[str, Any] = read_json(facts)
        try:
            seconds = float(found["seconds"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{facts}: not the facts of a finished training; expected seconds in it") from None
        return (
            GbdtModel.load(text.read_text(), like.columns, with_base=like.with_base, origins=like.origins),
            seconds,
        )
    started = time.monotonic()
    model = make()
    seconds = time.monotonic() - started
    write_atomically(text, model.text.encode())
    write_json(facts, {"seconds": seconds, "trees": model.num_trees, "parameters": model.parameters})
    return model, seconds


def _binned(directory: Path, data: GbdtData, with_base: bool) -> float:
    """The seconds of making the bins, which serve all models: from the file of the first time, or taken now."""
    path = directory / "bins.json"
    if path.exists():
        found = read_json(path)
        if isinstance(found, Mapping) and isinstance(found.get("seconds"), float):
            return float(found["seconds"])
        raise InputError(f"{path}: not the facts of a finished training; expected seconds in it")
    started = time.monotonic()
    data.rows(with_base)
    seconds = time.monotonic() - started
    write_json(path, {"seconds": seconds})
    return seconds


def _scores(models: Sequence[GbdtModel], examples: Examples) -> ScoreBatch:
    """The (P, G, n) scores of one model for each weighting."""
    rows_scores = torch.from_numpy(np.stack([model.scores(examples) for model in models]))

    def score(group_batch: GroupBatch, batch: Batch) -> torch.Tensor:
        rows, mask = examples.index(group_batch)
        found = rows_scores[:, torch.from_numpy(rows)].masked_fill(~torch.from_numpy(mask), 0)
        return found.to(batch.mask.device)

    return score
