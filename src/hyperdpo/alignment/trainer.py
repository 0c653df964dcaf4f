"""HyperDPO for causal language models as a `transformers` trainer: one run for all weightings of the objectives.

A batch is G groups (prompts) of n responses: B rows. All m losses of a response come from its one score, the summed
log-probability. The base's scores do not depend on w, so they are computed once, before the first step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
)
from transformers.trainer_utils import IntervalStrategy

from hyperdpo.alignment.bases import longest_text, tokenizer_of
from hyperdpo.alignment.checkpoints import CheckpointTrainer
from hyperdpo.alignment.collation import Collator, TokenGroup, padding_token, tokenize_groups, worth_sharing
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.targets import to_targets
from hyperdpo.alignment.evaluation import (
    AlignmentFront,
    base_scores,
    conditioned_scores,
    front_of_scores,
    row_scores,
)
from hyperdpo.alignment.loss_options import LossOptions
from hyperdpo.alignment.model import ConditionedLM, ConditioningConfig
from hyperdpo.alignment.reference import kept_base_scores
from hyperdpo.alignment.trainer_inputs import conditioned_model, objectives_of, preferences_of
from hyperdpo.alignment.training_config import HyperDPOConfig
from hyperdpo.alignment.training_metrics import (
    add_sums,
    evaluation_metrics,
    group_of_rows,
    loss_sums,
    means,
    reward_sums,
)
from hyperdpo.core.losses import average_counts, hypernet_loss, sum_over_processes
from hyperdpo.core.point import check_weights
from hyperdpo.core.preferences import stream, weight_grid
from hyperdpo.core.sampling import WeightSampler
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective

if TYPE_CHECKING:
    from peft import LoraConfig

__all__ = ["HyperDPOConfig", "HyperDPOTrainer", "tokenizer_of"]

#: Random stream of a run for the sampled weights.
WEIGHTS = 2
#: Key of a batch for the average number of groups of a step's batches.
BATCH_GROUPS = "batch_groups"


class HyperDPOTrainer(CheckpointTrainer):
    """Trains one language model for all weightings of its objectives.

    >>> args = HyperDPOConfig("run", beta=0.1, num_train_epochs=3)
    >>> trainer = HyperDPOTrainer(model, args, train_dataset, eval_dataset, processing_class=tokenizer)
    >>> trainer.train()
    >>> inputs = tokenizer(["Hello"], return_tensors="pt")
    >>> trainer.model.generate(**inputs, weights=[0.3, 0.7], scale=2.0, max_new_tokens=64)

    Logs the metrics of TRL's DPO trainer, and the same per objective, as means over the groups of all processes since
    the last log. An evaluation logs means over its weightings, with the prefix ``eval_``:

    - ``rewards/chosen``, ``rewards/rejected``: β (s - s_base) of a group's best and worst response by the weighted
      targets, where β is the weighted temperature; ``rewards/margins``, their difference; ``rewards/accuracies``, how
      often it is positive;
    - ``logps/chosen``, ``logps/rejected``: s of these two responses; ``logps/mean``, of all responses;
    - ``loss/{objective}``, ``rewards/{objective}/margins`` (of the objective's own best and worst response),
      ``rewards/{objective}/accuracies`` (of all pairs that it orders); with ``rpo_alpha`` also ``nll/{objective}``.

    Args:
        model: a causal LM, its name or path, or a :class:`~hyperdpo.alignment.model.ConditionedLM` to go on with.
        train_dataset, eval_dataset: columns ``prompt``, ``completions``, ``labels``; or whatever
            :func:`~hyperdpo.alignment.data.preferences.read_preferences` takes. A dictionary of several
            ``eval_dataset`` is measured one by one, as ``eval_{name}_loss`` and so on.
        processing_class: the tokenizer; None: that of the model's path.
        peft_config: a ``LoraConfig`` for rank, α, dropout and target modules; None: those of ``conditioning``.
        conditioning: how w enters the model. Neither of them beside a ``ConditionedLM``, which has its own.
        objectives: with targets and temperatures; None: one for each label. Names alone choose among them.

    Raises:
        InputError: data, settings and model that do not fit.
    """

    def __init__(
        self,
        model: str | PreTrainedModel | ConditionedLM,
        args: HyperDPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: LoraConfig | None = None,
        *,
        conditioning: ConditioningConfig | None = None,
        objectives: Sequence[str | Objective] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
    ):
        args = HyperDPOConfig("hyperdpo-output") if args is None else args
        if train_dataset is None:
            raise InputError("train_dataset: found none; expected preferences to train on")
        train = preferences_of(train_dataset)
        self.objectives = objectives_of(objectives, train, args.beta)
        names = tuple(o.name for o in self.objectives)
        self.fixed_weights = None if args.weights is None else check_weights(args.weights, len(names))
        self._sampler = WeightSampler(
            args.alphas(len(names)), cast(Any, args.weights_per), args.vertex_share, args.stratified
        )
        if processing_class is None:
            processing_class = tokenizer_of(model)
        model = conditioned_model(model, names, conditioning, peft_config, args.seed)
        self.pad_token_id = padding_token(processing_class)
        self.limits: dict[str, Any] = {
            "max_prompt_length": args.max_prompt_length,
            "max_length": longest_text(model, args.max_length),
            "truncate": args.truncate,
        }
        if args.skip_invalid:
            self.limits["skip_invalid"] = True
        self.settings = args
        self.train_groups = self.tokenized(train, processing_class)
        #: By name; one that has none is called "".
        self.eval_sets: dict[str, list[TokenGroup]] = {}
        if eval_dataset is not None:
            sets = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
            self.eval_sets = {name: self.tokenized(preferences_of(one), processing_class) for name, one in sets.items()}
        strategy = IntervalStrategy(args.eval_strategy).value
        if not self.eval_sets and strategy != "no":
            raise InputError(
                f"eval_strategy is {strategy}, and eval_dataset has nothing; expected preferences to measure on, or "
                "eval_strategy no"
            )
        share = worth_sharing(self.train_groups) if args.share_prompts is None else args.share_prompts
        if args.gradient_checkpointing and args.share_prompts:
            raise InputError("share_prompts: not with gradient checkpointing, which has no cache; expected one of them")
        #: That the base scores of the training groups took; 0 where they were known.
        self.base_seconds = 0.0
        self._sums: dict[str, Tensor] = {}
        self._step: int | None = None
        self._micro = 0
        signal = torch.from_numpy(np.stack([group.signal for group in self.train_groups]))
        #: (m,): groups with signal per group.
        self._group_counts = average_counts(signal, len(signal))
        self.options = LossOptions.of(args, self.train_groups)
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(self.pad_token_id, share_prompts=share and not args.gradient_checkpointing),
            train_dataset=cast(Any, self.train_groups),  # lists of groups: not datasets in name, but in what they do
            eval_dataset=cast(Any, self.eval_sets.get("", self.eval_sets or None)),
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self.loss_is_scaled_for_ga = False  # a mean per batch
        self.model_accepts_loss_kwargs = False
        self.label_names = []

    @property
    def betas(self) -> tuple[float, ...]:
        """The m temperatures."""
        return tuple(o.beta for o in self.objectives)

    def tokenized(self, data: Preferences, tokenizer: PreTrainedTokenizerBase) -> list[TokenGroup]:
        """The groups as tokens and targets, within the limits of this training."""
        return tokenize_groups(data, to_targets(data, self.objectives), tokenizer, **self.limits)

    def score_base(self) -> None:
        """Score all groups that are not yet with the base, or read what was scored before in the output directory;
        :meth:`train` does it itself."""
        for name, sets in (("train", [self.train_groups]), ("eval", list(self.eval_sets.values()))):
            groups = [group for one in sets for group in one]
            started = time.monotonic()
            if any(group.reference_logps is None for group in groups):
                scored = kept_base_scores(
                    self.own_model,
                    groups,
                    self.pad_token_id,
                    self.args.device,
                    # A push to the hub leaves out what begins like this.
                    path=Path(str(self.args.output_dir)) / f"_base-{name}.safetensors",
                    write=self.is_world_process_zero(),
                    accelerator=self.accelerator,
                    ld_alpha=self.options.ld_alpha if name == "train" else None,
                )
                left = iter(scored)
                for one in sets:
                    one[:] = [replace(group, reference_logps=next(left)) for group in one]
            if name == "train":
                self.base_seconds = time.monotonic() - started

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`transformers.Trainer.train`."""
        self.own_model.to(self.args.device)
        self.score_base()
        return super().train(*args, **kwargs)

    # --- the loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of one batch, such that the mean over an epoch's groups is the loss of all of them together.

        An objective's sum is divided by the share of the training groups that have its label, times the batch's groups.
        Its own number of groups with signal may be 0 in a small batch.
        """
        targets, signal, mask, base = (inputs[k] for k in ("targets", "signal", "mask", "reference_logps"))
        weights = self.draw_weights(len(mask)).to(targets)  # (m,) or (G, m)
        per_group = weights.expand(len(mask), -1) if weights.dim() == 1 else weights
        at = per_group[group_of_rows(inputs["rows"], mask)]
        scores, logps = (
            one.float()[inputs["rows"]].masked_fill(~mask, 0)
            for one in row_scores(model, inputs, at, self.options.ld_alpha)
        )
        labelled = inputs.get("labelled")  # where an objective has no label for some responses
        known = mask if labelled is None else labelled
        losses, anchors = self.options.losses(scores, base, targets, known, self.betas, logps)
        reduce = sum_over_processes if self.accelerator.num_processes > 1 else None
        counts = self._group_counts.to(losses) * inputs.get(BATCH_GROUPS, len(mask) * self.accelerator.num_processes)
        loss = hypernet_loss(losses, signal, weights, self.settings.penalty, reduce, counts)
        # DDP takes the mean of the processes' gradients, and this is the loss of all their groups together.
        loss = loss + (self.accelerator.num_processes - 1) * (loss - loss.detach())
        if model.training:
            with torch.no_grad():
                rewards = reward_sums(self.objectives, scores, base, targets, signal, mask, per_group, labelled)
                add_sums(self._sums, rewards | loss_sums(self.objectives, losses, signal))
                if anchors is not None:
                    add_sums(self._sums, loss_sums(self.objectives, anchors, signal, "nll"))
        return (loss, {"scores": scores}) if return_outputs else loss

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The batches of one step, each with how many groups they have on average, over all processes.

        The trainer takes the mean of their losses. With this factor every group of a step weighs the same, however the
        step is divided into batches.
        """
        batches, items = super().get_batch_samples(*args, **kwargs)
        self._step = None  # a step that is run again, with smaller batches, draws the same weights
        groups = sum(len(batch["mask"]) for batch in batches)
        if self.accelerator.num_processes > 1:
            groups = int(self.accelerator.reduce(torch.tensor(groups, device=self.args.device), "sum"))
        for batch in batches:
            batch[BATCH_GROUPS] = groups / len(batches)
        return batches, items

    def draw_weights(self, groups: int) -> Tensor:
        """(m,) weights of a step or (G, m) of a batch's groups: they depend on seed, step, batch and process alone."""
        args = self.settings
        if self.fixed_weights is not None:
            return torch.from_numpy(self.fixed_weights)
        per_batch = self._sampler.per == "batch"
        # One w is that of the whole step. Draws of each group differ between its micro-batches and processes.
        self._micro = self._micro + 1 if self._step == self.state.global_step and not per_batch else 0
        self._step = self.state.global_step
        rank = 0 if per_batch else self.accelerator.process_index
        rng = stream(args.seed, WEIGHTS, self.state.global_step, self._micro, rank)
        return torch.from_numpy(self._sampler.draw(groups, rng))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the trainer's, with the means over all processes since the last log."""
        if "loss" in logs and self._sums:
            total = self.accelerator.reduce(torch.stack(list(self._sums.values())), "sum")
            logs = logs | means(dict(zip(self._sums, total, strict=True)))
            self._sums.clear()
        super().log(logs, start_time)

    # --- evaluation

    def front(
        self,
        dataset: Any = None,
        *,
        points: int = 11,
        scales: Sequence[float] = (1.0,),
        weights: np.ndarray | None = None,
        show: bool = False,
    ) -> AlignmentFront:
        """Losses at a fixed grid of weights.

        Args:
            dataset: None: all evaluation groups; or the name of an evaluation set.
            points: of the grid.
            weights: (P, m), instead of the grid.
            show: a progress bar.

        Raises:
            InputError: there are no groups to measure on.
        """
        groups = [group for one in self._eval_sets(dataset).values() for group in one]
        grid = weight_grid(len(self.objectives), points) if weights is None else np.atleast_2d(weights)
        scores, base = self._scores(groups, grid, "front" if show else "")
        names = [o.name for o in self.objectives]
        return front_of_scores(names, groups, scores, base, grid, self.betas, scales)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss (the mean of w·L over the grid), hypervolume, each objective's loss and control span, and what training
        logs of rewards. Of several sets each has its name in the prefix, as in transformers. Objectives that a set has
        no label of are left out, and its hypervolume with them."""
        metrics: dict[str, float] = {}
        for name, groups in self._eval_sets(eval_dataset).items():
            grid = weight_grid(len(self.objectives), max(self.settings.eval_points, len(self.objectives)))
            prefix = f"{metric_key_prefix}_{name}" if name else metric_key_prefix
            measured = evaluation_metrics(self.objectives, groups, *self._scores(groups, grid), grid)
            found = {f"{prefix}_{key}": value for key, value in measured.items()}
            self.log(found)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
            metrics |= found
        return metrics

    def _scores(
        self, groups: list[TokenGroup], grid: np.ndarray, name: str = ""
    ) -> tuple[list[list[np.ndarray]], list[np.ndarray]]:
        """(n,) scores of each group, at each of the (P, m) weights and under the base."""
        model, pad, device = self.own_model, self.pad_token_id, self.args.device
        known = [group.reference_logps for group in groups if group.reference_logps is not None]
        with self.accelerator.autocast():  # as in training
            base = known if len(known) == len(groups) else base_scores(model, groups, pad, device)
            return conditioned_scores(model, groups, grid, pad, device, name=name), base

    def _eval_sets(self, given: Any) -> dict[str, list[TokenGroup]]:
        """Groups to measure on, by name: those of the constructor, one of them, or others.

        Raises:
            InputError: there are none.
        """
        if isinstance(given, str) and given in self.eval_sets:
            found = {"": self.eval_sets[given]}
        elif given is None:
            found = self.eval_sets
        else:
            tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
            sets = given if isinstance(given, dict) else {"": given}
            found = {name: self.tokenized(preferences_of(one), tokenizer) for name, one in sets.items()}
        if not found:
            raise InputError("eval_dataset: found none; expected preferences to measure on")
        return found

    # --- optimiser

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a learning rate of its own for what sees w."""
        if self.optimizer is None:
            rate, factor = self.args.learning_rate, self.settings.conditioning_learning_rate
            groups = [
                {
                    "params": parameters,
                    "lr": rate * (factor if part in ("mask", "gates") else 1),
                    "weight_decay": self.args.weight_decay,
                }
                for part, parameters in self.own_model.parts().items()
            ]
            kind, kwargs = self.get_optimizer_cls_and_kwargs(self.args, None)
            self.optimizer = kind(groups, **kwargs)
        return self.optimizer

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Operations of a step: 6 for each parameter and token."""
        return 6 * int(inputs["input_ids"].numel()) * self.own_model.num_parameters(only_trainable=False)
