"""Rankers in a comparison: how a job is trained, how experts are averaged, and how a method's models score."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from hyperdpo.comparison.entries import Entry
from hyperdpo.comparison.methods import (
    Conditioned,
    Fixed,
    Job,
    Margin,
    NetworkJob,
    Recipe,
    Trees,
    jobs_of,
    lightgbm_ls,
    needs_lightgbm,
)
from hyperdpo.comparison.rank_trees import TreeTrainings, lightgbm_base, tree_scores
from hyperdpo.comparison.repeats import RankRepeat
from hyperdpo.comparison.trainings import Trained, Training, Trainings, margin_beta, with_margin
from hyperdpo.comparison.uncorrected import uncorrected
from hyperdpo.core.preferences import weight_grid
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors, write_tensors
from hyperdpo.hashing import fingerprint
from hyperdpo.ranking.base_scores import BaseSource
from hyperdpo.ranking.config import RankConfig, with_overrides
from hyperdpo.ranking.draws import fixed_weights
from hyperdpo.ranking.evaluation import Front, ScoreBatch, evaluate_front, ranker_scores, score_items
from hyperdpo.ranking.examples import Examples, Features, build_examples
from hyperdpo.ranking.fitting import SAMPLING, UNREAD, Prepared, conditioned_training, prepare, seeded
from hyperdpo.ranking.gains import trees_beside
from hyperdpo.ranking.gbdt import choose_main_share
from hyperdpo.ranking.gbdt_model import GbdtModel
from hyperdpo.ranking.new_rankers import fixed_ranker
from hyperdpo.ranking.parametrizations import Ranker
from hyperdpo.ranking.training import History, train
from hyperdpo.ranking.training import Training as RankerTraining
from hyperdpo.ranking.tree_columns import TreeColumns

if TYPE_CHECKING:
    from accelerate import Accelerator

#: What answers for a w.
RankModel: TypeAlias = Ranker | GbdtModel
#: Weightings of the dense view of a method that answers any w at no cost.
DENSE_POINTS = 101
VOLUMES = ("hypervolume", "hypervolume_with_main")
#: Random stream of a repeat for the initial weights that all models for one w share.
FIXED_INIT = 13


class RankTrainings(Trainings[RankModel]):
    """The trainings of one repeat, on one base.

    Args:
        directory: of the trainings.
        reference: the entry whose main score ``lightgbm-ls`` matches.

    Raises:
        InputError: no validation or no test groups, or what :func:`~hyperdpo.ranking.fitting.prepare` raises.
    """

    def __init__(
        self,
        repeat: RankRepeat,
        config: RankConfig,
        directory: Path,
        accelerator: Accelerator,
        reference: Entry | None = None,
    ):
        super().__init__()
        self.repeat, self.directory, self.accelerator, self.reference = repeat, directory, accelerator, reference
        for name in ("validation", "test"):
            if name not in repeat.parts:
                raise InputError(f"{repeat.name}: no {name} groups; expected some, to choose epochs and to measure on")
        config = replace(config, seed=repeat.seed)
        base_source, given = repeat.base_source, repeat.given_base
        if base_source.kind == "lightgbm":
            base_source, given = BaseSource("given"), lightgbm_base(repeat, config, directory)
        self.prepared = prepare(
            config,
            repeat.parts,
            accelerator,
            checkpoint=directory / "base.safetensors",
            base_source=base_source,
            given_base=given,
        )
        self._expert_scores: dict[str, np.ndarray] = {}
        self._trees: dict[bool, TreeTrainings] = {}
        self._shares: dict[str, dict[str, Any]] = {}

    @property
    def validation(self) -> Examples:
        return self.prepared.examples["validation"]

    def test(self) -> Examples:
        """The test part, labelled and with base scores."""
        prepared, part = self.prepared, self.repeat.parts["test"]
        config = prepared.config
        features = Features(part, prepared.transform, config.resident_gib * 2**30)
        base = prepared.base_scores["test"][part.rows()]
        return build_examples(
            part, config.objectives, config.main, features=features, base_scores=base, weight=config.weight
        )

    @functools.cached_property
    def as_logged(self) -> Prepared:
        """What entries are trained on that leave out the corrections of clicks."""
        return uncorrected(self.prepared)

    def config(self, entry: Entry) -> RankConfig:
        """The configuration of an entry, with this repeat's labels and seed.

        Raises:
            InputError: it changes what all entries share.
        """
        config = with_overrides(self.prepared.config, entry.overrides)
        if entry.method == "mo-dpo":
            # Always from scratch, the experts too: an augmentation would need them wherever it is used.
            config = replace(config, parametrization="scratch")
        shared = self.prepared.config
        if (config.objectives, config.beta, config.main) != (shared.objectives, shared.beta, shared.main):
            raise InputError(
                f"{entry.label}: entries of a comparison share objectives, β and main label; remove them from its "
                "settings"
            )
        return config

    # --- trainings

    def training(self, job: Job, entry: Entry) -> Training[RankModel]:
        if isinstance(job, Trees):
            share = self.share(entry)["main_share"] if job.main_share is None else job.main_share
            return self.trees(entry).training(job, share)
        start = self.start(job, entry)
        name = f"{job.name}-{start.fingerprint[:12]}"
        path = self.directory / "models" / f"{name}.safetensors"

        def trained(history: History) -> Trained[RankModel]:
            ranker = start.ranker
            return Trained(
                name, ranker, ranker.num_parameters(), history.seconds, history.epochs[-1], start.config.epochs
            )

        def load() -> Trained[RankModel] | None:
            if not path.exists():
                return None
            tensors, values = read_tensors(path)
            try:
                start.ranker.load_state_dict(tensors)
                history = History(**values["history"])
                start.ranker.use(**history.chosen)
                if "trees" in values:
                    transform = self.prepared.transform
                    origins = transform.origins.tolist()
                    start.ranker.trees = TreeColumns.of(values["trees"], transform.columns, origins)
                start.ranker.to(self.accelerator.device)
            except (KeyError, TypeError, RuntimeError) as error:
                raise InputError(
                    f"{path}: not a finished training ({str(error).splitlines()[0]}); delete it to train again"
                ) from None
            return trained(history)

        def run() -> Trained[RankModel]:
            checkpoint = path.with_suffix(".partial.safetensors")
            whole = self.on_margin(start, job, entry) if isinstance(job, Margin) else start
            history = train(replace(whole, checkpoint=checkpoint), self.accelerator)
            values = {"job": job.name, "history": asdict(history)}
            if start.ranker.trees is not None:
                values["trees"] = start.ranker.trees.texts
            write_tensors(path, start.ranker.state_dict(), values)
            for kept in (checkpoint, trees_beside(checkpoint)):
                kept.unlink(missing_ok=True)
            return trained(history)

        return Training(name, load, run)

    def start(self, job: NetworkJob, entry: Entry) -> RankerTraining:
        """A training with its untrained ranker, and with the base as it is."""
        prepared, config = self.prepared, self.config(entry)
        if isinstance(job, Conditioned):
            if entry.uncorrected:
                prepared = self.as_logged
                config = replace(config, objectives=prepared.config.objectives, main=prepared.config.main)
            return replace(conditioned_training(prepared, config), name="hyperdpo")
        w = np.array(job.weights)
        settings = config.to_dict()
        unread = {*UNREAD, *SAMPLING, "validation_points"}
        known = {name: settings[name] for name in ("scorer", "seed")} | {
            "training": {k: v for k, v in settings["training"].items() if k not in unread},
            "augmentation": config.parametrization == "augmentation",
        }
        return RankerTraining(
            name=("margin, " if isinstance(job, Margin) else "") + "w = " + ",".join(f"{x:.2g}" for x in w),
            ranker=self._new_ranker(config),
            train=prepared.examples["train"],
            validation=self.validation,
            sampler=fixed_weights(w),
            betas=prepared.betas,
            config=config.training,
            metric=config.metric,
            seed=config.seed,
            grid=w[None],
            choice=lambda front: float(np.nansum(w * front.metrics[0])),
            validation_betas=(prepared.betas,),
            fingerprint=fingerprint([prepared.fingerprint, known, job.name]),
        )

    def on_margin(self, start: RankerTraining, job: Margin, entry: Entry) -> RankerTraining:
        """A training on the job's objective alone, from a base that has the other experts' margin in it."""
        examples, i = start.train, job.objective
        alone = replace(
            examples,
            labels=(examples.labels[i],),
            gains=examples.gains[:, [i]],
            targets=examples.targets[:, [i]],
            signal=examples.signal[:, [i]],
            base_scores=with_margin(job, examples.base_scores, lambda expert: self.expert_scores(expert, entry)),
        )
        beta = margin_beta(job, self.prepared.betas)
        return replace(start, train=alone, sampler=fixed_weights(np.ones(1)), betas=(beta,))

    def expert_scores(self, job: Fixed, entry: Entry) -> np.ndarray:
        """(N,) scores of an expert on the training rows. It is frozen, so they are computed once."""
        expert = self.trained(job, entry)
        if expert.name not in self._expert_scores:
            assert isinstance(expert.model, Ranker)
            scores = score_items(expert.model, self.prepared.examples["train"], None, (), self.accelerator.device)
            self._expert_scores[expert.name] = scores
        return self._expert_scores[expert.name]

    def _new_ranker(self, config: RankConfig) -> Ranker:
        """A ranker for one w, the same at each call."""
        with seeded(config.seed, FIXED_INIT):  # the caller's random state stays
            return fixed_ranker(config, self.prepared.transform.width)

    # --- LightGBM

    def trees(self, entry: Entry) -> TreeTrainings:
        """The trainings of a ``lightgbm-ls`` entry."""
        with_base = bool(entry.overrides.get("with_base"))
        if with_base not in self._trees:
            self._trees[with_base] = TreeTrainings(self.prepared, self.directory / "models", with_base)
        return self._trees[with_base]

    def share(self, entry: Entry) -> dict[str, Any]:
        """The main label's share at which a ``lightgbm-ls`` entry has the main score of the reference.

        Returns:
            ``main_share``; ``main_target``, the reference's score (None: no main label, no search);
            ``main_shares_tried``, each with its score; ``search_seconds``, of the models of the search. Those at the
            chosen share count among the entry's models, too.
        """
        fixed = entry.overrides.get("main_share")
        if fixed is not None:
            return {"main_share": fixed, "main_target": None, "main_shares_tried": [], "search_seconds": 0.0}
        if entry.label not in self._shares:
            self._shares[entry.label] = self._found_share(entry)
        return self._shares[entry.label]

    def _found_share(self, entry: Entry) -> dict[str, Any]:
        assert self.reference is not None
        few, seconds = few_weightings(len(self.prepared.betas)), 0.0

        def mean_main(score: ScoreBatch) -> float | None:
            betas, metric = self.prepared.betas, self.prepared.config.metric
            front = evaluate_front(score, self.validation, few, [1.0], betas, metric, with_losses=False)
            return spread_of_main(front)["main_mean"]

        def at(share: float) -> float:
            nonlocal seconds
            jobs = jobs_of(self.recipes(entry, few, share))
            seconds += sum(self.trained(job, entry).seconds for job in jobs)
            found = mean_main(self.score(entry, few, self.prepared.betas, self.validation, main_share=share))
            return float("nan") if found is None else found

        target = mean_main(self.score(self.reference, few, self.prepared.betas, self.validation))
        share, tried = (0.0, []) if target is None else choose_main_share(at, target)
        return {
            "main_share": share,
            "main_target": target,
            "main_shares_tried": [{"share": one, "main": main} for one, main in tried],
            "search_seconds": seconds,
        }

    # --- answers

    def score(
        self,
        entry: Entry,
        weights: np.ndarray,
        betas: Sequence[float],
        examples: Examples,
        *,
        main_share: float | None = None,
    ) -> ScoreBatch:
        """What scores examples at (P, m) weights.

        Args:
            betas: temperatures, for models that take them.
            main_share: λ, for trees and for rankers that take one; None: their own.
        """
        recipes = self.recipes(entry, weights, main_share)
        if needs_lightgbm(entry.method):
            return self._tree_scores(entry, recipes, examples)
        if all(recipe.jobs == (Conditioned(),) for recipe in recipes):
            ranker = self.trained(Conditioned(), entry).model
            assert isinstance(ranker, Ranker)
            device = self.accelerator.device
            score = ranker_scores(ranker, weights, betas, device, main_share)
            if ranker.trees is None:
                return score
            own = replace(examples, trees=ranker.trees)
            return lambda group_batch, _: score(group_batch, own.batch(group_batch, device))
        rankers = [self.answering(recipe, entry) for recipe in recipes]
        return lambda _, batch: torch.stack([ranker(batch) for ranker in rankers])

    def recipes(self, entry: Entry, weights: np.ndarray, main_share: float | None = None) -> list[Recipe]:
        """What answers at (P, m) weights.

        Args:
            main_share: of trees; None: the one at which their main score matches the reference's.
        """
        if needs_lightgbm(entry.method):
            return lightgbm_ls(weights, main_share, entry.overrides.get("models", 1))
        return super().recipes(entry, weights)

    def _tree_scores(self, entry: Entry, recipes: Sequence[Recipe], examples: Examples) -> ScoreBatch:
        """The scores of trees: the mean over the models of each recipe."""
        members = zip(*(recipe.jobs for recipe in recipes), strict=True)
        scores = []
        for jobs in members:
            models = [self.trained(job, entry).model for job in jobs]
            scores.append(tree_scores([model for model in models if isinstance(model, GbdtModel)], examples))
        return lambda *batch: torch.stack([score(*batch) for score in scores]).mean(0)

    def answering(self, recipe: Recipe, entry: Entry) -> Ranker:
        """The ranker of a recipe, ready to score: of several, one with the average of their parameters."""
        models = [model for job in recipe.jobs if isinstance(model := self.trained(job, entry).model, Ranker)]
        if len(models) == 1:
            return models[0].eval()
        states = [model.state_dict() for model in models]
        average = self._new_ranker(self.config(entry))
        average.load_state_dict(
            {
                name: torch.stack(
                    [share * state[name] for share, state in zip(recipe.shares, states, strict=True)]
                ).sum(0)
                for name in states[0]
            }
        )
        return average.to(self.accelerator.device).eval()


def spread_of_main(front: Front) -> dict[str, float | None]:
    """Mean and standard deviation of the main metric over the points."""
    if front.main is None or np.isnan(front.main).all():
        return {"main_mean": None, "main_sd": None}
    return {"main_mean": float(np.nanmean(front.main)), "main_sd": float(np.nanstd(front.main))}


def few_weightings(num_objectives: int) -> np.ndarray:
    """The weightings at which a share of the main label is tried: the vertices and points between them, one of two
    objectives and two of more."""
    return weight_grid(num_objectives, 3 if num_objectives <= 2 else num_objectives + 2)
