"""HyperDPO for causal language models as a `transformers` trainer: one run for all weightings of the objectives.

A batch is G groups (prompts) of n responses: B rows. All m losses of a response come from its one score, the summed
log-probability; the base's scores do not depend on w, so they are computed once, before the first step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from hyperdpo.alignment.adapters import TENSORS
from hyperdpo.alignment.batches import Collator, TokenGroup, padding_token, tokenize_groups, worth_sharing
from hyperdpo.alignment.data import Preferences, default_objectives, fit_objectives, read_preferences, to_targets
from hyperdpo.alignment.evaluation import (
    AlignmentFront,
    base_scores,
    conditioned_scores,
    front_of_scores,
    pair_accuracy,
    row_logps,
)
from hyperdpo.alignment.model import ConditionedLM, ConditioningConfig, check_base
from hyperdpo.alignment.reference import kept_base_scores
from hyperdpo.core.losses import hypernet_loss, listnet_dpo_loss
from hyperdpo.core.preferences import check_weights, sample_weights, stream, weight_grid
from hyperdpo.errors import InputError
from hyperdpo.files import read_tensors
from hyperdpo.objectives import Objective

if TYPE_CHECKING:
    from peft import LoraConfig

#: Random stream of a run for the sampled weights.
WEIGHTS = 2


@dataclass
class HyperDPOConfig(TrainingArguments):
    """Settings of a :class:`HyperDPOTrainer`, beside those of :class:`transformers.TrainingArguments`.

    A batch of ``per_device_train_batch_size`` groups has all their responses.

    Attributes:
        beta: β of the objectives that do not bring their own; one for all.
        weights: None samples w anew; m numbers train for this w alone, as a baseline.
        alpha: Dirichlet(α) from which w is drawn; one number, or one per objective.
        weights_per: ``group`` draws one w per prompt (its n responses share it), ``batch`` one per step.
        vertex_share: part of the draws that is a vertex of the simplex: without, the ends of the front are hardly seen.
        stratified: the draws of a batch cover the simplex evenly.
        penalty: λ, the factor of the cosine penalty.
        max_length, max_prompt_length: in tokens; None: the model's own limit. Longer ones are refused, unless
            ``truncate`` cuts them (the prompt's end and the response's start are kept).
        eval_points: weightings at which ``evaluate`` measures; the vertices are among them.
        share_prompts: compute a prompt once for its responses; None: where that leaves out a fifth of the tokens. Not
            with gradient checkpointing.
        conditioning_learning_rate: learning rate of what turns w into a mask and gates, in multiples of the others'.
    """

    beta: float = field(default=0.1, metadata={"help": "Temperature of objectives without one of their own."})
    weights: list[float] | None = field(default=None, metadata={"help": "Train for this w alone (a baseline)."})
    alpha: Any = field(default=0.5, metadata={"help": "Concentration of the Dirichlet distribution: one number, or m."})
    weights_per: str = field(default="group", metadata={"help": "One w per group or per batch."})
    vertex_share: float = field(default=0.3, metadata={"help": "Part of the draws that is a vertex."})
    stratified: bool = field(default=False, metadata={"help": "Draws of a batch cover the simplex evenly."})
    penalty: float = field(default=0.0, metadata={"help": "Factor of the cosine penalty."})
    max_length: int | None = field(default=None, metadata={"help": "Most tokens of prompt and response."})
    max_prompt_length: int | None = field(default=None, metadata={"help": "Most tokens of the prompt."})
    truncate: bool = field(default=False, metadata={"help": "Cut what is longer instead of refusing it."})
    eval_points: int = field(default=5, metadata={"help": "Weightings of the evaluation."})
    share_prompts: bool | None = field(default=None, metadata={"help": "Compute a prompt once for its responses."})
    conditioning_learning_rate: float = field(
        default=1.0, metadata={"help": "Learning-rate multiplier of what sees w."}
    )
    learning_rate: float = field(default=5e-4, metadata={"help": "Initial learning rate of AdamW."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two logs."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Batches are made by this trainer."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights_per not in ("group", "batch"):
            raise InputError(f"weights_per is {self.weights_per!r}; expected group or batch")
        for name in ("beta", "conditioning_learning_rate", "learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected a number above 0")
        if not 0 <= self.vertex_share <= 1:
            raise InputError(f"vertex_share is {self.vertex_share}; expected a part of the draws, from 0 to 1")
        if not self.penalty >= 0:
            raise InputError(f"penalty is {self.penalty}; expected at least 0")

    def alphas(self, num_objectives: int) -> tuple[float, ...]:
        """α as m numbers.

        Raises:
            InputError: another length, or a number that is not positive.
        """
        values = self.alpha if isinstance(self.alpha, Sequence) else [self.alpha] * num_objectives
        alphas = tuple(map(float, values))
        if len(alphas) != num_objectives or not all(a > 0 for a in alphas):
            raise InputError(f"alpha is {self.alpha}; expected {num_objectives} numbers above 0, or one")
        return alphas


def training_arguments(directory: str | Path, settings: Mapping[str, Any]) -> HyperDPOConfig:
    """The settings of a configuration file or of ``--set training.*``, for a training that writes to ``directory``.

    On a CPU no memory is pinned, unless it is asked for: there is nothing to copy it to, and PyTorch would say so.

    Raises:
        InputError: a name that is not a setting, or a value that cannot be.
    """
    known = [one.name for one in fields(HyperDPOConfig) if one.init and one.name != "output_dir"]
    for name in settings:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean training.{near[0]}?" if near else ""
            raise InputError(f"training.{name} is not a setting of {HyperDPOConfig.__name__}{hint}")
    on_gpu = torch.cuda.is_available() and not settings.get("use_cpu", False)
    try:
        return HyperDPOConfig(str(directory), **{"dataloader_pin_memory": on_gpu, **settings})
    except (TypeError, ValueError) as error:
        raise InputError(f"training: {' '.join(str(error).split())}") from None


class HyperDPOTrainer(Trainer):
    """Trains one language model for all weightings of its objectives.

    >>> args = HyperDPOConfig("run", beta=0.1, num_train_epochs=3)
    >>> trainer = HyperDPOTrainer(model, args, train_dataset, eval_dataset, processing_class=tokenizer)
    >>> trainer.train()
    >>> inputs = tokenizer(["Hello"], return_tensors="pt")
    >>> trainer.model.generate(**inputs, weights=[0.3, 0.7], scale=2.0, max_new_tokens=64)

    Logs what users of TRL's DPO trainer expect (``rewards/chosen`` and the like: a group's best and worst response by
    the weighted targets), and ``loss/{objective}``, ``rewards/{objective}/margins``,
    ``rewards/{objective}/accuracies``.

    Args:
        model: a causal LM, its name or path, or a :class:`~hyperdpo.alignment.model.ConditionedLM` to go on with.
        train_dataset, eval_dataset: columns ``prompt``, ``completions``, ``labels``; or whatever
            :func:`~hyperdpo.alignment.data.read_preferences` takes.
        processing_class: the tokenizer; None: that of the model's path.
        peft_config: a ``LoraConfig`` for rank, α, dropout and target modules; None: those of ``conditioning``.
        conditioning: how w enters the model.
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
        train = _preferences(train_dataset)
        self.objectives = _objectives(objectives, train, args.beta)
        names = tuple(o.name for o in self.objectives)
        self.fixed_weights = None if args.weights is None else check_weights(args.weights, len(names))
        self.alphas = args.alphas(len(names))
        if processing_class is None:
            processing_class = tokenizer_of(model)
        if not isinstance(model, ConditionedLM):
            settings = {} if conditioning is None else conditioning.to_dict()
            if peft_config is None:
                conditioning = ConditioningConfig.from_dict(settings | {"objectives": names})
            else:
                kept = {k: v for k, v in settings.items() if not k.startswith(("lora_r", "lora_a", "lora_d", "target"))}
                kept.pop("objectives", None)
                conditioning = ConditioningConfig.from_lora_config(peft_config, names, **kept)
            model = ConditionedLM.create(model, conditioning, seed=args.seed)
        elif model.conditioning.objectives != names:
            raise InputError(
                f"model: was conditioned on {', '.join(model.conditioning.objectives)}; found data for "
                f"{', '.join(names)}"
            )
        self.pad_token_id = padding_token(processing_class)
        self.limits: dict[str, Any] = {
            "max_prompt_length": args.max_prompt_length,
            "max_length": longest_text(model, args.max_length),
            "truncate": args.truncate,
        }
        self.settings = args
        self.train_groups = self._tokenized(train, processing_class)
        self.eval_groups = [] if eval_dataset is None else self._tokenized(_preferences(eval_dataset), processing_class)
        share = worth_sharing(self.train_groups) if args.share_prompts is None else args.share_prompts
        if args.gradient_checkpointing and args.share_prompts:
            raise InputError("share_prompts: not with gradient checkpointing, which has no cache; expected one of them")
        self._sums: dict[str, list[float]] = defaultdict(list)
        super().__init__(
            model=model,
            args=args,
            data_collator=Collator(self.pad_token_id, share_prompts=share and not args.gradient_checkpointing),
            train_dataset=cast(Any, self.train_groups),  # lists of groups: not datasets in name, but in what they do
            eval_dataset=cast(Any, self.eval_groups or None),
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

    def _tokenized(self, data: Preferences, tokenizer: PreTrainedTokenizerBase) -> list[TokenGroup]:
        return tokenize_groups(data, to_targets(data, self.objectives), tokenizer, **self.limits)

    def score_base(self) -> None:
        """Score all groups that are not yet with the base, or read what was scored before in the output directory;
        :meth:`train` does it itself."""
        for name, groups in (("train", self.train_groups), ("eval", self.eval_groups)):
            if any(g.reference_logps is None for g in groups):
                scored = kept_base_scores(
                    self.own_model,
                    groups,
                    self.pad_token_id,
                    self.args.device,
                    path=Path(str(self.args.output_dir)) / f"base-{name}.safetensors",
                    write=self.is_world_process_zero(),
                )
                groups[:] = [replace(g, reference_logps=s) for g, s in zip(groups, scored, strict=True)]

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
        """Eq. (13) of one batch."""
        targets, signal, mask, base = (inputs[k] for k in ("targets", "signal", "mask", "reference_logps"))
        weights = self._draw(len(mask)).to(targets)  # (m,) or (G, m)
        per_group = weights.expand(len(mask), -1) if weights.dim() == 1 else weights
        logps = row_logps(model, inputs, per_group[group_of_rows(inputs["rows"], mask)])
        scores = logps.float()[inputs["rows"]].masked_fill(~mask, 0)
        losses = listnet_dpo_loss(scores, base, targets, mask, self.betas)
        reduce = _sum_over_processes if self.accelerator.num_processes > 1 else None
        loss = hypernet_loss(losses, signal, weights, self.settings.penalty, reduce) * self.accelerator.num_processes
        if model.training:
            with torch.no_grad():
                self._note(losses, scores - base, scores, targets, signal, mask, per_group)
        return (loss, {"scores": scores}) if return_outputs else loss

    def _draw(self, groups: int) -> Tensor:
        """(m,) weights of a batch or (G, m) of its groups: they depend on seed, step and process alone."""
        args = self.settings
        if self.fixed_weights is not None:
            return torch.from_numpy(self.fixed_weights)
        per_batch = args.weights_per == "batch"
        # Micro-batches of one step differ, processes too unless they share one w.
        self._micro = getattr(self, "_micro", 0) + 1 if getattr(self, "_step", None) == self.state.global_step else 0
        self._step = self.state.global_step
        rank = 0 if per_batch else self.accelerator.process_index
        rng = stream(args.seed, WEIGHTS, self.state.global_step, self._micro, rank)
        drawn = sample_weights(
            self.alphas,
            1 if per_batch else groups,
            rng,
            vertex_share=args.vertex_share,
            stratified=args.stratified and not per_batch and groups > 1,
        )
        return torch.from_numpy(drawn[0] if per_batch else drawn)

    def _note(
        self, losses: Tensor, rewards: Tensor, scores: Tensor, targets: Tensor, signal: Tensor, mask: Tensor, w: Tensor
    ) -> None:
        """Collect what is logged: rewards are β (s - s_base)."""
        counts = signal.sum(0).clamp_min(1)
        betas = torch.tensor(self.betas, device=rewards.device)
        weighted = betas @ w.mT  # (G,): of the scalarised objective
        best, worst, margins = best_and_worst(
            (targets * w.unsqueeze(-1)).sum(1), rewards * weighted.unsqueeze(-1), mask
        )
        values = {
            "rewards/chosen": best.mean(),
            "rewards/rejected": worst.mean(),
            "rewards/margins": margins.mean(),
            "rewards/accuracies": (margins > 0).float().mean(),
            "logps/mean": scores[mask].mean(),
        }
        per_objective = (losses.masked_fill(~signal, 0).sum(0) / counts).tolist()
        accuracies = pair_accuracy(rewards, targets, mask, signal).tolist()
        for j, objective in enumerate(self.objectives):
            if not signal[:, j].any():
                continue
            own = best_and_worst(targets[:, j], rewards * objective.beta, mask)[2][signal[:, j]]
            self._sums[f"loss/{objective.name}"].append(per_objective[j])
            self._sums[f"rewards/{objective.name}/margins"].append(float(own.mean()))
            self._sums[f"rewards/{objective.name}/accuracies"].append(accuracies[j])
        for name, value in values.items():
            self._sums[name].append(float(value))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the trainer's, with the means since the last log."""
        if "loss" in logs:
            logs = logs | {name: sum(values) / len(values) for name, values in self._sums.items()}
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
            dataset: None: the evaluation groups.
            points: of the grid.
            weights: (P, m), instead of the grid.
            show: a progress bar.

        Raises:
            InputError: there are no groups to measure on.
        """
        model = self.own_model
        tokenizer = cast(PreTrainedTokenizerBase, self.processing_class)
        groups = self.eval_groups if dataset is None else self._tokenized(_preferences(dataset), tokenizer)
        if not groups:
            raise InputError("eval_dataset: found none; expected preferences to measure on")
        known = [g.reference_logps for g in groups if g.reference_logps is not None]
        base = known if len(known) == len(groups) else base_scores(model, groups, self.pad_token_id, self.args.device)
        grid = weight_grid(len(self.objectives), points) if weights is None else np.atleast_2d(weights)
        scores = conditioned_scores(
            model, groups, grid, self.pad_token_id, self.args.device, name="front" if show else ""
        )
        names = [o.name for o in self.objectives]
        return front_of_scores(names, groups, scores, base, grid, self.betas, scales)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss (the mean of w·L over the grid), hypervolume, and each objective's loss and control span."""
        m = len(self.objectives)
        front = self.front(eval_dataset, points=max(self.settings.eval_points, m))
        prefix = metric_key_prefix
        metrics = {
            f"{prefix}_loss": float((front.weights * front.losses).sum(1).mean()),
            f"{prefix}_hypervolume": front.hypervolume,
        }
        spans = front.control_span if m > 1 else {}
        for j, name in enumerate(front.objectives):
            metrics[f"{prefix}_loss/{name}"] = float(front.losses[:, j].mean())
            if name in spans:
                metrics[f"{prefix}_control_span/{name}"] = spans[name]
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # --- optimiser, files

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
        """Of a step: 6 for each parameter and token."""
        return 6 * int(inputs["input_ids"].numel()) * self.own_model.num_parameters(only_trainable=False)

    @property
    def own_model(self) -> ConditionedLM:
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, ConditionedLM)
        return model

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Not the trainer's own: it would write the frozen base, and its arguments as a pickle.
        out = Path(str(self.settings.output_dir if output_dir is None else output_dir))
        self.own_model.save_pretrained(out)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(out)
        (out / "training_args.json").write_text(self.args.to_json_string())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self.own_model.load_adapter_state(read_tensors(Path(resume_from_checkpoint) / TENSORS)[0])

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """A README.md beside the adapter: objectives, base, how to generate."""
        if self.is_world_process_zero():
            out = Path(str(self.settings.output_dir))
            out.mkdir(parents=True, exist_ok=True)
            (out / "README.md").write_text(model_card(self.own_model, self.objectives))


def model_card(model: ConditionedLM, objectives: Sequence[Objective]) -> str:
    """Markdown for the hub."""
    names = ", ".join(o.name for o in objectives)
    base = str(getattr(model.config, "_name_or_path", "") or "a local model")
    equal = ", ".join(["..."] * len(objectives))
    lines = [f"| {o.name} | {o.target} | {o.beta:g} |" for o in objectives]
    return "\n".join(
        [
            "---",
            "library_name: hyperdpo",
            f"base_model: {base}",
            "tags: [hyperdpo, dpo, multi-objective, lora]",
            "---",
            "",
            f"# {Path(base).name}, aligned to {names} at any weighting",
            "",
            "One adapter for every trade-off of its objectives, trained with HyperDPO (arXiv:2410.08316).",
            "",
            "| objective | target | β |",
            "|---|---|---|",
            *lines,
            "",
            "```python",
            "from hyperdpo.alignment.model import ConditionedLM",
            "",
            'model = ConditionedLM.from_pretrained("path")',
            f"model.generate(**inputs, weights=[{equal}], max_new_tokens=64)  # weights of {names}",
            "```",
            "",
        ]
    )


def longest_text(model: ConditionedLM, wanted: int | None) -> int | None:
    """Tokens that a prompt and its response may have: what is asked for, if the model's positions are enough."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is None:
        return wanted
    limit = int(positions) - model.conditioning.prompt_tokens
    if wanted is not None and wanted > limit:
        raise InputError(
            f"max_length is {wanted}; the model has {positions} positions and {model.conditioning.prompt_tokens} "
            f"virtual tokens, expected at most {limit}"
        )
    return limit if wanted is None else wanted


def group_of_rows(rows: Tensor, mask: Tensor) -> Tensor:
    """(B,): the group that each row belongs to.

    Args:
        rows: (G, n) places of a group's rows in the batch.
        mask: (G, n).
    """
    owner = torch.empty(int(mask.sum()), dtype=torch.long, device=rows.device)
    groups = torch.arange(len(rows), device=rows.device).unsqueeze(1).expand_as(rows)
    owner[rows[mask]] = groups[mask]
    return owner


def best_and_worst(targets: Tensor, rewards: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards (G,) of the response with the largest target and of the one with the least, and their difference."""
    top = targets.masked_fill(~mask, -torch.inf).argmax(-1, keepdim=True)
    low = targets.masked_fill(~mask, torch.inf).argmin(-1, keepdim=True)
    best, worst = rewards.gather(-1, top).squeeze(-1), rewards.gather(-1, low).squeeze(-1)
    return best, worst, best - worst


def _preferences(data: Any) -> Preferences:
    return data if isinstance(data, Preferences) else read_preferences(data)


def _objectives(given: Sequence[str | Objective] | None, train: Preferences, beta: float) -> tuple[Objective, ...]:
    """Fitted objectives: those that are given, or one for each label."""
    known = {o.name: replace(o, beta=beta) for o in default_objectives(train)}
    if given is None:
        chosen = list(known.values())
    else:
        for one in given:
            if isinstance(one, str) and one not in known:
                raise InputError(f"objectives: no label {one!r}; found {', '.join(known)}")
        chosen = [known[one] if isinstance(one, str) else one for one in given]
    return fit_objectives(train, chosen)


def tokenizer_of(model: str | PreTrainedModel | ConditionedLM) -> PreTrainedTokenizerBase:
    name = model if isinstance(model, str) else model.config._name_or_path
    if isinstance(model, str):
        check_base(model)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: no tokenizer there ({str(error).splitlines()[0]}); expected one") from None
    return tokenizer


def _sum_over_processes(local: Tensor) -> Tensor:
    """The sum over processes, whose gradient reaches the local part."""
    total = local.detach().clone()
    torch.distributed.all_reduce(total)
    return local + (total - local.detach())
