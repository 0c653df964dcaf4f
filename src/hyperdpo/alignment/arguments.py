"""The settings of a training, in transformers' idiom, checked by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from transformers import TrainingArguments

from hyperdpo.alignment.settings import BETA, SEED
from hyperdpo.errors import InputError, did_you_mean

_OWN_EVALUATION = "the trainer measures in its own way, in batches of its own"
#: The least value of settings that TrainingArguments takes as they are.
LEAST = {
    "num_train_epochs": 0,
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "max_length": 2,
    "max_prompt_length": 1,
    "eval_points": 1,
    "seed": 0,
}

#: Settings of TrainingArguments that this trainer does not act on, and why: any value but their default is refused.
WITHOUT_EFFECT = {
    "label_smoothing_factor": "the targets come from the labels",
    "prediction_loss_only": _OWN_EVALUATION,
    "per_device_eval_batch_size": _OWN_EVALUATION,
    "bf16_full_eval": _OWN_EVALUATION,
    "fp16_full_eval": _OWN_EVALUATION,
    "batch_eval_metrics": _OWN_EVALUATION,
    "eval_accumulation_steps": _OWN_EVALUATION,
    "eval_do_concat_batches": _OWN_EVALUATION,
    "eval_use_gather_object": _OWN_EVALUATION,
    "include_for_metrics": _OWN_EVALUATION,
    "label_names": _OWN_EVALUATION,
    "remove_unused_columns": "the trainer makes its batches from groups, not from columns",
    "length_column_name": "the trainer makes its batches from groups, not from columns",
    "average_tokens_across_devices": "the loss is a mean over groups, not over tokens",
    "optim_target_modules": "the parameters are those of the adapter",
    "use_cache": "training reads each text once",
    "use_liger_kernel": "the conditioned model has no such kernels",
    "liger_kernel_config": "the conditioned model has no such kernels",
    "do_predict": "it is for scripts",
    "resume_from_checkpoint": "it is for scripts; train(resume_from_checkpoint=...) resumes",
}
#: Optimisers that take no arguments of their own.
_PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "adagrad", "sgd")


@dataclass
class HyperDPOConfig(TrainingArguments):
    """Settings of a :class:`~hyperdpo.alignment.trainer.HyperDPOTrainer`, beside those of ``TrainingArguments``.

    A batch of ``per_device_train_batch_size`` groups has all their responses.

    Attributes:
        beta: β of the objectives that do not bring their own; one for all.
        weights: None samples w anew; m numbers train for this w alone, as a baseline.
        alpha: Dirichlet(α) from which w is drawn; one number, or one per objective (as a list, or as "0.3,0.7").
        weights_per: ``group`` draws one w per prompt (its n responses share it), ``batch`` one per
            optimiser step, whatever its batches and processes.
        vertex_share: part of the draws that is a vertex of the simplex: without, the ends of the front are hardly seen.
        stratified: the draws of a batch cover the simplex evenly.
        penalty: λ, the factor of the cosine penalty.
        max_length, max_prompt_length: in tokens; None: the model's own limit. Longer ones are refused, unless
            ``truncate`` cuts them (the prompt's end and the response's start are kept).
        skip_invalid: leave out groups that are too long or that the chat template refuses, and count them by reason,
            instead of refusing the first.
        eval_points: weightings at which ``evaluate`` measures; the vertices are among them.
        share_prompts: compute a prompt once for its responses; None: where that leaves out a fifth of the tokens. Not
            with gradient checkpointing.
        conditioning_learning_rate: learning rate of what turns w into a mask and gates, in multiples of the others'.
    """

    beta: float = field(default=BETA, metadata={"help": "Temperature of objectives without one of their own."})
    weights: list[float] | None = field(default=None, metadata={"help": "Train for this w alone (a baseline)."})
    # The list first: transformers' HfArgumentParser takes the first type of a union with str.
    alpha: list[float] | str | float = field(
        default_factory=lambda: [0.5], metadata={"help": "Concentration of the Dirichlet distribution: one, or m."}
    )
    weights_per: str = field(default="group", metadata={"help": "One w per group or per batch."})
    vertex_share: float = field(default=0.3, metadata={"help": "Part of the draws that is a vertex."})
    stratified: bool = field(default=False, metadata={"help": "Draws of a batch cover the simplex evenly."})
    penalty: float = field(default=0.0, metadata={"help": "Factor of the cosine penalty."})
    max_length: int | None = field(default=None, metadata={"help": "Most tokens of prompt and response."})
    max_prompt_length: int | None = field(default=None, metadata={"help": "Most tokens of the prompt."})
    truncate: bool = field(default=False, metadata={"help": "Cut what is longer instead of refusing it."})
    skip_invalid: bool = field(default=False, metadata={"help": "Leave out groups that cannot be used."})
    eval_points: int = field(default=5, metadata={"help": "Weightings of the evaluation."})
    share_prompts: bool | None = field(default=None, metadata={"help": "Compute a prompt once for its responses."})
    conditioning_learning_rate: float = field(
        default=1.0, metadata={"help": "Learning-rate multiplier of what sees w."}
    )
    seed: int = field(default=SEED, metadata={"help": "Seed of initialisation, order and sampled weights."})
    learning_rate: float = field(default=5e-4, metadata={"help": "Initial learning rate of AdamW."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two logs."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Batches are made by this trainer."})

    def __post_init__(self) -> None:
        self._check_numbers()
        self.alpha = _alpha(self.alpha)
        self._check_effects()
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
        found = _alpha(self.alpha)
        alphas = tuple(found) if isinstance(found, list) else (found,) * num_objectives
        if len(alphas) != num_objectives:
            raise InputError(f"alpha is {self.alpha}; expected {num_objectives} numbers above 0, or one")
        return alphas

    def _check_effects(self) -> None:
        """Refuse what would be recorded as a setting and change nothing."""
        defaults = {
            one.name: one.default_factory() if one.default_factory is not MISSING else one.default
            for one in fields(self)
        }
        for name, why in WITHOUT_EFFECT.items():
            value = getattr(self, name, None)
            if name in defaults and value is not None and value != defaults[name]:
                raise InputError(f"{name} is {value!r} and has no effect here ({why}); leave it out")
        if self.train_sampling_strategy in ("group_by_length", "batch_rebalance"):
            raise InputError(
                f"train_sampling_strategy is {self.train_sampling_strategy!r}, which needs columns of tokens; expected "
                "random or sequential"
            )
        if self.optim_args and str(getattr(self.optim, "value", self.optim)) in _PLAIN_OPTIMIZERS:
            raise InputError(f"optim_args is {self.optim_args!r} and has no effect on {self.optim}; leave it out")
        drawn = ("alpha", "weights_per", "vertex_share", "stratified")
        if self.weights is not None:
            for name in drawn:
                value, default = getattr(self, name), defaults[name]
                if value != (_alpha(default) if name == "alpha" else default):
                    raise InputError(
                        f"{name} is {value!r} and has no effect beside weights, which fixes w; leave it out"
                    )
        elif self.stratified and self.weights_per == "batch":
            raise InputError("stratified has no effect with weights_per batch, one w per step; expected one of them")

    def _check_numbers(self) -> None:
        """Numbers are numbers; those that are written as text (YAML reads 1e-4 as such) become numbers."""
        names = {one.name for one in fields(self)}
        for name, hint in get_type_hints(type(self)).items():
            kinds = set(get_args(hint) or (hint,)) - {NoneType}
            value = getattr(self, name, None)
            if name not in names or value is None or kinds not in ({int}, {float}):
                continue
            whole = kinds == {int}
            try:
                number = math.nan if isinstance(value, bool) else float(value)
            except (TypeError, ValueError):
                number = math.nan
            if math.isnan(number) or (whole and not number.is_integer()):
                raise InputError(f"{name} is {value!r}; expected {'an integer' if whole else 'a number'}")
            if not isinstance(value, Real):
                setattr(self, name, int(number) if whole else number)
            if number < LEAST.get(name, -math.inf):
                raise InputError(f"{name} is {value}; expected at least {LEAST[name]}")


def _alpha(given: Any) -> float | list[float]:
    """One number, or a list of several.

    Raises:
        InputError: something else, or a number that is not positive.
    """
    values = given.strip("[] ").split(",") if isinstance(given, str) else given
    try:
        found = [float(one) for one in (values if isinstance(values, Sequence | np.ndarray) else [values])]
    except (TypeError, ValueError):
        found = []
    if not found or not all(0 < one < math.inf for one in found):
        raise InputError(f"alpha is {given!r}; expected a number above 0, or one for each objective")
    return found[0] if len(found) == 1 else found


def training_arguments(directory: str | Path, settings: Mapping[str, Any]) -> HyperDPOConfig:
    """The settings of a configuration file or of ``--set training.*``, for a training that writes to ``directory``.

    On a CPU no memory is pinned, unless it is asked for: there is nothing to copy it to, and PyTorch would say so.

    Raises:
        InputError: a name that is not a setting, or a value that cannot be.
    """
    known = [one.name for one in fields(HyperDPOConfig) if one.init and one.name != "output_dir"]
    for name in settings:
        if name not in known:
            hint = did_you_mean(f"training.{name}", (f"training.{one}" for one in known))
            raise InputError(f"training.{name} is not a setting of {HyperDPOConfig.__name__}{hint}")
    on_gpu = torch.cuda.is_available() and not settings.get("use_cpu", False)
    try:
        return HyperDPOConfig(str(directory), **{"dataloader_pin_memory": on_gpu, **settings})
    except InputError as error:  # it begins with the setting's name
        raise InputError(f"training.{error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"training: {' '.join(str(error).split())}") from None
