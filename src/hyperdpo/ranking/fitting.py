"""From data and a configuration to a run: base, base scores, conditioned ranker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hyperdpo.core.preferences import weight_grid
from hyperdpo.data.groups import GroupedTable
from hyperdpo.data.splits import Part, split_groups
from hyperdpo.data.transform import FeatureTransform
from hyperdpo.errors import InputError
from hyperdpo.hashing import digest, fingerprint, without_unused
from hyperdpo.ranking.base_scores import BaseSource, base_column, checked_scores, score_all_rows
from hyperdpo.ranking.betas import check_beta, with_numbers
from hyperdpo.ranking.config import WITH_TREES, RankConfig
from hyperdpo.ranking.draws import dirichlet_weights, fixed_weights, with_temperatures
from hyperdpo.ranking.examples import Examples, Features, build_examples
from hyperdpo.ranking.features import FeatureChoice, choose_features, feature_lines, fit_transform
from hyperdpo.ranking.forms import GAIN_ONLY, PRODUCT_ONLY, main_column_line, with_form
from hyperdpo.ranking.gain_ranker import MEMBERS, MEMBERS_OF_SMALL, SMALL_ITEMS, GainRanker
from hyperdpo.ranking.gains import gain_examples, prepare_ranker, settle_columns, train_trees
from hyperdpo.ranking.labels import LabelReport, fit_labels, refuse_labels_among
from hyperdpo.ranking.new_rankers import conditioned_ranker
from hyperdpo.ranking.parametrizations import MixtureRanker, Ranker
from hyperdpo.ranking.run import RankRun
from hyperdpo.ranking.training import History, Training, array_sum, quality, train, validation_front

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Random streams of a run for the initial weights of its networks.
BASE_INIT, RANKER_INIT = 11, 12


def split_table(table: GroupedTable, config: RankConfig) -> dict[str, Part]:
    """The splits of one table, by group, with the configured fractions and seed."""
    split = config.split
    groups = split_groups(table.num_groups, (split.train, split.validation, split.test), split.seed)
    return {name: Part(table, chosen) for name, chosen in groups.items() if len(chosen)}


@dataclass
class Prepared:
    """What every training on one split shares: fitted labels, features, the base and its scores."""

    config: RankConfig
    """With the labels fitted."""
    parts: dict[str, Part]
    transform: FeatureTransform
    features: FeatureChoice
    labels: tuple[LabelReport, ...]
    base: Ranker | None
    base_source: BaseSource
    base_history: History | None
    base_scores: dict[str, np.ndarray]
    """(N,) for all rows of the table of each split that has them."""
    examples: dict[str, Examples]
    """``train``, and ``validation`` where there is one."""
    fingerprint: str
    """A hash of data, labels and base; not of the settings of a scorer."""

    @property
    def betas(self) -> tuple[float, ...]:
        """The m temperatures."""
        return tuple(o.beta for o in self.config.objectives)

    def run(self, config: RankConfig, ranker: Ranker) -> RankRun:
        """A run with a trained ranker."""
        data = _describe(self.parts, config) | {
            "features_left_out": dict(self.features.left_out),
            "constant_features": list(self.transform.constant),
            "features_with_missing_values": [self.transform.columns[j] for j in self.transform.indicators],
            "labels": [label.to_dict() for label in self.labels],
        }
        run = RankRun(config, self.transform, ranker, self.base, self.base_source, data, {})
        if self.base_source.kind != "column":
            for name, scores in self.base_scores.items():
                run.remember(self.parts[name].table, scores)
        return run


def prepare(
    config: RankConfig,
    parts: Mapping[str, Part],
    accelerator: Accelerator,
    *,
    checkpoint: Path | None = None,
    base_source: BaseSource | None = None,
    given_base: Mapping[str, np.ndarray] | None = None,
    say: Callable[[str], None] | None = None,
) -> Prepared:
    """Fit labels and features, train the base (unless its scores are given), and score the data with it.

    Args:
        parts: ``train``, and where there are any ``validation`` and ``test``.
        checkpoint: of the base's training.
        base_source: where base scores come from; None: a base is trained on the main label.
        given_base: for ``given`` base scores, (N,) per split name, for all rows of that split's table.
        say: called with a line at a time about features and labels, before anything is trained, and about β, the form
            and the main column.

    Raises:
        InputError: a column is missing, a label does not suit its target, a checkpoint of another run.
    """
    base_source = base_source or BaseSource("trained")
    if config.main is None and base_source.kind == "trained":
        raise InputError("main: there is no main label to train a base on; expected one, or base scores")
    train_part = parts["train"]
    features_chosen = choose_features(train_part.table, config, base_source.column)
    columns = features_chosen.columns
    config, label_reports = fit_labels(config, parts, main_is_trained=base_source.kind == "trained", features=columns)
    refuse_labels_among(train_part, config, columns)
    transform = fit_transform(train_part, features_chosen, config)
    if say is not None:
        for line in (
            *feature_lines(features_chosen, transform, config.gbdt.categorical),
            *(report.line() for report in label_reports),
        ):
            say(line)
    limit = config.resident_gib * 2**30
    features = {name: Features(parts[name], transform, limit) for name in ("train", "validation") if name in parts}
    trained_on = [(name, parts[name].table.fingerprint, digest(parts[name].groups)) for name in features]
    given_print = None if given_base is None else [digest(given_base[name]) for name in features]
    settings = config.to_dict()
    kept = ("objectives", "main", "weight", "excluded_columns", "base_scorer", "base_training", "metric", "seed")
    shared_print = fingerprint(
        [
            without_unused({name: settings[name] for name in kept}),
            trained_on,
            columns,
            asdict(base_source),
            given_print,
            *([config.gbdt.categorical] if config.gbdt.categorical else []),
        ]
    )

    base, history = None, None
    if base_source.kind == "trained" and config.main is not None:
        with seeded(config.seed, BASE_INIT):
            base = Ranker(config.base_scorer, transform.width)
        job = Training(
            name="base",
            ranker=base,
            train=build_examples(train_part, (config.main,), None, features=features["train"], weight=config.weight),
            validation=build_examples(
                parts["validation"], (config.main,), None, features=features["validation"], weight=config.weight
            )
            if "validation" in parts
            else None,
            sampler=fixed_weights(np.ones(1)),
            betas=(1.0,),
            config=config.base_training,
            metric=config.metric,
            seed=config.seed,
            checkpoint=checkpoint,
            fingerprint=shared_print,
        )
        history = train(job, accelerator)

    by_table: dict[int, np.ndarray] = {}
    for name, part in parts.items():
        table = part.table
        if given_base is not None and name in given_base:
            by_table[id(table)] = checked_scores(given_base[name], table)
        elif base_source.kind == "column":
            by_table[id(table)] = base_column(table, str(base_source.column), config.qid_column)
        elif base is not None and id(table) not in by_table:
            by_table[id(table)] = score_all_rows(
                base,
                table,
                transform,
                accelerator.device,
                share=(accelerator.process_index, accelerator.num_processes),
                reduce=array_sum(accelerator),
            )
    scores = {name: by_table[id(part.table)] for name, part in parts.items() if id(part.table) in by_table}
    if config.beta is not None:
        spread = spread_within_groups(scores["train"][train_part.rows()], train_part.sizes)
        config = with_numbers(config, spread, train_part.table.source)
        shared_print = fingerprint([shared_print, "beta", settings["beta"]])
        if say is not None:
            listed = ", ".join(f"{objective.name} {objective.beta:.4g}" for objective in config.objectives)
            say(f"beta: {listed}; divided by {spread:.4g}, the spread of the base scores within training groups")
    examples = {
        name: build_examples(
            parts[name],
            config.objectives,
            config.main,
            features=features[name],
            base_scores=scores[name][parts[name].rows()],
            qid_column=config.qid_column,
            weight=config.weight,
        )
        for name in features
    }
    _check_signal(examples["train"])
    config = with_form(config, base_source, say)
    if say is not None and (told := main_column_line(config)) is not None:
        say(told)
    if config.mixture.members is None:
        members = MEMBERS_OF_SMALL if examples["train"].num_items <= SMALL_ITEMS else MEMBERS
        config = replace(config, mixture=replace(config.mixture, members=members))
    return Prepared(
        config,
        dict(parts),
        transform,
        features_chosen,
        label_reports,
        base,
        base_source,
        history,
        scores,
        examples,
        shared_print,
    )


def conditioned_training(prepared: Prepared, config: RankConfig, checkpoint: Path | None = None) -> Training:
    """The one training that answers for every w.

    Args:
        config: as ``prepared.config`` in what the base and the labels depend on; scorer, training and parametrisation
            may differ.
    """
    m = len(prepared.betas)
    mixture = config.parametrization == "mixture"
    if mixture:
        config = _without_what_cannot_be_judged(config, prepared.examples)
    with seeded(config.seed, RANKER_INIT):
        ranker = conditioned_ranker(config, prepared.transform.width)
    training = config.training
    factor = config.mixture.epochs_factor if mixture else training.sampling_factor
    evaluations = max(round(training.evaluations * min(factor, 1.0)), 1)  # as far apart as in the others' trainings
    training = replace(training, epochs=max(round(training.epochs * factor), 1), evaluations=evaluations)
    sampler, validation_betas = dirichlet_weights(training, m, config.seed), None
    begin: Callable[[Path | None], float] | None = None
    settle: Callable[[torch.device], dict[str, float]] | None = None
    print_ = fingerprint([prepared.fingerprint, conditioned_settings(config)])
    train_on, validation = prepared.examples["train"], prepared.examples.get("validation")
    if isinstance(ranker, GainRanker):
        train_on = gain_examples(train_on, config.main, config.metric)
        held_out = None if validation is None else gain_examples(validation, config.main, config.metric)
        clicks = prepared.examples["train"].click_counts
        sampler = fixed_weights(prepare_ranker(ranker, train_on, held_out, config.metric, clicks))
        # Groups without signal teach a column's total, which is 0 there.
        train_on = replace(train_on, signal=np.ones_like(train_on.signal))
        if config.scorer.kind in WITH_TREES:
            columns, origins = prepared.transform.columns, prepared.transform.origins.tolist()
            begin = partial(train_trees, ranker, train_on, held_out, columns, origins, config, print_)
            validation = None if validation is None else replace(validation, trees=ranker.tree_columns)
        if held_out is not None:
            trees = ranker.tree_columns if config.scorer.kind in WITH_TREES else None
            settle = partial(settle_columns, ranker, held_out, trees=trees)
    elif isinstance(ranker, MixtureRanker):
        ranker.base_spread.fill_(_base_spread(prepared.examples["train"]) or 1.0)
        sampler = fixed_weights(np.full(m, 1 / m))  # head j takes part in the loss of objective j alone
    elif config.parametrization == "temperature":
        low, high = config.temperatures.box(m)
        sampler = with_temperatures(sampler, low, high, config.seed)
        validation_betas = tuple(dict.fromkeys((low, prepared.betas, high)))
    return Training(
        name="ranker",
        ranker=ranker,
        train=train_on,
        validation=validation,
        sampler=sampler,
        betas=prepared.betas,
        config=training,
        metric=config.metric,
        seed=config.seed,
        choice=quality,
        validation_betas=validation_betas,
        checkpoint=checkpoint,
        fingerprint=print_,
        first_step=0 if prepared.base is None else config.base_training.epochs,
        begin=begin,
        settle=settle,
    )


def conditioned_settings(config: RankConfig) -> dict[str, Any]:
    """The settings that the conditioned ranker of this configuration depends on: two that agree in them are one."""
    settings = config.to_dict()
    unread = UNREAD | (SAMPLING if config.parametrization == "mixture" else set())
    known = {name: settings[name] for name in ("scorer", "parametrization", "seed")}
    known["training"] = {name: value for name, value in settings["training"].items() if name not in unread}
    section = {"mixture": "mixture", "temperature": "temperatures"}.get(config.parametrization)
    if section is None:
        return known
    read = settings[section]
    if section == "mixture":  # each form has settings of its own
        others = PRODUCT_ONLY if config.mixture.form == "gain" else ("form", *GAIN_ONLY)
        read = {name: value for name, value in read.items() if name not in others}
    if config.scorer.kind in WITH_TREES:
        known["gbdt"] = {name: value for name, value in settings["gbdt"].items() if name not in ("levels", "threads")}
    return known | {section: read}


def fit_run(
    config: RankConfig,
    parts: Mapping[str, Part],
    accelerator: Accelerator,
    *,
    out: Path | None = None,
    base_source: BaseSource | None = None,
    given_base: Mapping[str, np.ndarray] | None = None,
    say: Callable[[str], None] | None = None,
) -> RankRun:
    """Train the base (unless its scores are given), then the conditioned ranker.

    Args:
        out: the run directory: checkpoints while training, the run at the end. None: nothing is written.

    Otherwise as :func:`prepare`.
    """
    config.check_trainable()
    check_beta(config)
    if config.gbdt.monotone and config.scorer.kind not in WITH_TREES:
        raise InputError(
            f"gbdt.monotone constrains trees, and scorer.kind {config.scorer.kind} has none; set scorer.kind=gbdt, or "
            "leave it out"
        )
    started = time.monotonic()
    prepared = prepare(
        config,
        parts,
        accelerator,
        checkpoint=_checkpoint(out, "base"),
        base_source=base_source,
        given_base=given_base,
        say=say,
    )
    config = prepared.config
    job = conditioned_training(prepared, config, _checkpoint(out, "ranker"))
    history = train(job, accelerator)
    run = prepared.run(config, job.ranker)
    run.metrics = run_metrics(prepared, job, history, accelerator) | {"total_seconds": time.monotonic() - started}
    if out is not None and accelerator.is_main_process:
        run.save(out)
    accelerator.wait_for_everyone()
    return run


def _without_what_cannot_be_judged(config: RankConfig, examples: Mapping[str, Examples]) -> RankConfig:
    """One number instead of several where there is nothing to choose it by."""
    mixture, validation = config.mixture, examples.get("validation")
    powers = mixture.choices("power")
    if len(mixture.choices("smoothing")) > 1:
        seen = validation is not None and validation.main_gains is not None  # what smoothing costs is the main score
        if not seen or _base_spread(examples["train"]) == 0:
            mixture = replace(mixture, smoothing=0.0)
    if len(powers) > 1 and validation is None:
        mixture = replace(mixture, power=1.0 if 1 in powers else powers[0])
    return replace(config, mixture=mixture)


def spread_within_groups(scores: np.ndarray, sizes: np.ndarray) -> float:
    """Standard deviation of (N,) scores around their group's mean; (g,) sizes of the groups."""
    scores, groups = scores.astype(np.float64), np.repeat(np.arange(len(sizes)), sizes)
    return float(np.sqrt(np.mean((scores - (np.bincount(groups, scores) / sizes)[groups]) ** 2)))


def _base_spread(examples: Examples) -> float:
    return spread_within_groups(examples.base_scores, examples.sizes)


def run_metrics(prepared: Prepared, job: Training, history: History, accelerator: Accelerator) -> dict[str, Any]:
    """What ``metrics.json`` holds: sizes, seconds, histories, and the front on the validation split."""
    base, base_history = prepared.base, prepared.base_history
    histories = {"ranker": history} if base_history is None else {"base": base_history, "ranker": history}
    metrics: dict[str, Any] = {
        "parameters": job.ranker.num_parameters(),
        "base_parameters": None if base is None else base.num_parameters(),
        "train_seconds": history.seconds,
        "base_train_seconds": None if base_history is None else base_history.seconds,
        "processes": accelerator.num_processes,
        "device": str(accelerator.device),
        "weights_per": job.config.weights_per,
        "history": {name: asdict(one) for name, one in histories.items()},
    }
    if job.validation is not None:
        m = len(prepared.betas)
        front = validation_front(
            job.ranker, job.validation, weight_grid(m, max(11, m)), job.betas, job.metric, accelerator
        )
        metrics["validation_front"] = front.to_dict()
    return metrics


#: Settings of a training that say how w is drawn and what follows from it: nothing to one without sampled w.
SAMPLING = {"alpha", "weights_per", "vertex_share", "stratified", "draws", "penalty", "sampling_factor"}
#: Settings of a training that no result depends on.
UNREAD = {"checkpoint_seconds"}


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Torch's random state set for a block, and put back: the caller's is not changed."""
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield


def _describe(parts: Mapping[str, Part], config: RankConfig) -> dict[str, Any]:
    """What run.json says about the data."""
    train_table = parts["train"].table
    one_table = all(part.table is train_table for part in parts.values())
    described: dict[str, Any] = {
        "fingerprints": {name: part.table.fingerprint for name, part in parts.items()},
        "source": Path(train_table.source).name,
        "fingerprint": train_table.fingerprint,
        "groups": {name: len(part.groups) for name, part in parts.items()},
        "items": {name: int(part.sizes.sum()) for name, part in parts.items()},
    }
    if one_table:
        split = config.split
        described |= {"fractions": [split.train, split.validation, split.test], "split_seed": split.seed}
    return described


def _check_signal(examples: Examples) -> None:
    for j, label in enumerate(examples.labels):
        if not examples.signal[:, j].any():
            raise InputError(
                f"{examples.part.table.source}: objective {label.name!r} (column {label.column}) has no signal in "
                "any training group; expected at least one group of two items with a positive label"
            )


def _checkpoint(out: Path | None, name: str) -> Path | None:
    return None if out is None else out / "checkpoints" / f"{name}.safetensors"
