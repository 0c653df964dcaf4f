"""The settings of a training, in transformers' idiom, checked by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_type_hints

import numpy as np
import torch
from pydantic import Field
from transformers import TrainingArguments

from hyperdpo.alignment.settings import BETA, SEED
from hyperdpo.errors import InputError, did_you_mean
from hyperdpo.validation import (
    Float,
    Fraction,
    Int,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    checked,
)

_OWN_EVALUATION = "the trainer measures in its own way, in batches of its own"
#: What settings have to be, where it is more than their type says.
BOUNDS: dict[str, Any] = {
    "beta": PositiveFloat,
    "weights_per": Literal["group", "batch"],
    "vertex_share": Fraction,
    "penalty": NonNegativeFloat,
    "rpo_alpha": NonNegativeFloat | None,
    "ld_alpha": Fraction | None,
    "label_smoothing": Annotated[Float, Field(ge=0, lt=0.5)],
    "smoothing": Literal["robust", "conservative"] | None,
    "max_length": Annotated[Int, Field(ge=2)] | None,
    "max_prompt_length": PositiveInt | None,
    "eval_points": PositiveInt,
    "conditioning_learning_rate": PositiveFloat,
    "learning_rate": PositiveFloat,
    "seed": Annotated[NonNegativeInt, Field(le=2**32 - 1)],  # of numpy's first generator, which the trainer seeds, too
    "num_train_epochs": NonNegativeFloat,
    "per_device_train_batch_size": PositiveInt,
    "per_device_eval_batch_size": PositiveInt,
    "gradient_accumulation_steps": PositiveInt,
}

#: Settings of TrainingArguments that this trainer does not act on, and why: any value but their default is refused.
WITHOUT_EFFECT = {
    "label_smoothing_factor": "the targets come from the labels; label_smoothing smooths them",
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


def _help(text: str) -> dict[str, str]:
    """What HfArgumentParser and docs/settings.md say about a field."""
    return {"help": text}


@dataclass
class HyperDPOConfig(TrainingArguments):
    """Settings of a :class:`~hyperdpo.alignment.trainer.HyperDPOTrainer`, beside those of ``TrainingArguments``.

    A batch of ``per_device_train_batch_size`` groups has all their responses. With ``weights_per="group"`` the n
    responses of a prompt share a w; with ``"batch"`` an optimiser step does, whatever its batches and processes. Texts
    that are too long are refused. ``truncate`` cuts them instead, and keeps the prompt's end and the response's start.
    ``skip_invalid`` leaves out their groups and those that the chat template refuses, counted by reason.
    """

    beta: float = field(default=BETA, metadata=_help("β of the objectives that do not bring their own."))
    weights: list[float] | None = field(
        default=None, metadata=_help("Train for this w alone, a baseline; null: all w.")
    )
    # The list first: transformers' HfArgumentParser takes the first type of a union with str.
    alpha: list[float] | str | float = field(
        default_factory=lambda: [0.5],
        metadata=_help("Dirichlet(α) from which w is drawn; one number, or one per objective (also as text: 0.3,0.7)."),
    )
    weights_per: str = field(default="group", metadata=_help("One w per prompt, or one per optimiser step."))
    vertex_share: float = field(
        default=0.3,
        metadata=_help("Part of the draws that is a vertex; with 0 the ends of the front are hardly seen."),
    )
    stratified: bool = field(default=False, metadata=_help("The draws of a batch cover the simplex evenly."))
    penalty: float = field(default=0.0, metadata=_help("λ, the factor of the cosine penalty."))
    rpo_alpha: float | None = field(
        default=None,
        metadata=_help(
            "Factor of an anchor in each objective's loss: the negative log-likelihood of its best response per token. "
            "TRL's loss type sft with this weight."
        ),
    )
    ld_alpha: float | None = field(
        default=None,
        metadata=_help(
            "What tokens beyond the length of the group's shortest response count, from 0 to 1, in the model and its "
            "base. null and 1 are plain sums."
        ),
    )
    label_smoothing: float = field(
        default=0.0,
        metadata=_help("Chance ε that a pair's labels are swapped; of n labels, that they say nothing: 2 ε."),
    )
    smoothing: str | None = field(
        default=None,
        metadata=_help(
            "What label_smoothing does: robust, the default, undoes the noise (TRL's loss type robust); conservative "
            "mixes the targets with the uniform one (cDPO)."
        ),
    )
    max_length: int | None = field(
        default=None, metadata=_help("Most tokens of prompt and response; null: the model's own limit.")
    )
    max_prompt_length: int | None = field(
        default=None, metadata=_help("Most tokens of the prompt; null: the model's own limit.")
    )
    truncate: bool = field(default=False, metadata=_help("Cut texts that are too long instead of refusing them."))
    skip_invalid: bool = field(
        default=False, metadata=_help("Leave out groups that cannot be used; else the first is refused.")
    )
    eval_points: int = field(default=5, metadata=_help("Weightings at which evaluate measures; vertices included."))
    share_prompts: bool | None = field(
        default=None,
        metadata=_help(
            "Compute a prompt once for its responses; null: where that leaves out a fifth of the tokens. Not with "
            "gradient checkpointing."
        ),
    )
    conditioning_learning_rate: float = field(
        default=1.0, metadata=_help("Learning rate of what turns w into a mask and gates, in multiples of the others'.")
    )
    seed: int = field(default=SEED, metadata=_help("Seed of initialisation, order and sampled weights."))
    learning_rate: float = field(default=5e-4, metadata=_help("Initial learning rate of AdamW."))
    logging_steps: float = field(default=10, metadata=_help("Steps between two logs."))
    remove_unused_columns: bool = field(default=False, metadata=_help("Batches are made by this trainer."))

    def __post_init__(self) -> None:
        self._check_values()
        self.alpha = _alpha(self.alpha)
        self._check_effects()
        super().__post_init__()

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
        if self.fsdp:
            raise InputError(
                f"fsdp is {self.fsdp!r}; the trainer cannot save an adapter in shards (docs/memory.md); expected "
                "several processes that each hold the base, or a base in fewer bytes (model_settings)"
            )
        if self.smoothing is not None and not self.label_smoothing:
            raise InputError("smoothing has no effect without label_smoothing; leave it out, or set label_smoothing")
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

    def _check_values(self) -> None:
        """Refuse what is no number or out of bounds; numbers that are text (YAML reads 1e-4 as such) become numbers."""
        for name, hint in get_type_hints(type(self)).items():
            value = getattr(self, name, None)
            kinds = set(get_args(hint) or (hint,)) - {NoneType}
            kind = BOUNDS.get(name, {int: Int, float: Float}.get(next(iter(kinds))) if len(kinds) == 1 else None)
            if value is not None and kind is not None and name in self.__dataclass_fields__:
                found = checked(kind, value, name)
                if not isinstance(value, Real):
                    setattr(self, name, found)


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
    Where there is nothing but a CPU, bf16 means its bf16: transformers wants to be told ``use_cpu``.

    Raises:
        InputError: a name that is not a setting, or a value that cannot be.
    """
    known = [one.name for one in fields(HyperDPOConfig) if one.init and one.name != "output_dir"]
    for name in settings:
        if name not in known:
            hint = did_you_mean(f"training.{name}", (f"training.{one}" for one in known))
            raise InputError(f"training.{name} is not a setting of {HyperDPOConfig.__name__}{hint}")
    on_gpu = torch.cuda.is_available() and not settings.get("use_cpu", False)
    if settings.get("bf16") and not torch.accelerator.is_available():
        settings = {**settings, "use_cpu": True}
    try:
        return HyperDPOConfig(str(directory), **{"dataloader_pin_memory": on_gpu, **settings})
    except InputError as error:  # it begins with the setting's name
        raise InputError(f"training.{error}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"training: {' '.join(str(error).split())}") from None
