"""What a trainer is given, made into what it works with: preferences, objectives, a conditioned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hyperdpo.alignment.conditioning import ConditioningConfig
from hyperdpo.alignment.data.groups import Preferences
from hyperdpo.alignment.data.preferences import read_preferences
from hyperdpo.alignment.data.targets import default_objectives, fit_objectives
from hyperdpo.alignment.model import ConditionedLM
from hyperdpo.errors import InputError
from hyperdpo.objectives import Objective

if TYPE_CHECKING:
    from peft import LoraConfig


def preferences_of(data: Any) -> Preferences:
    """Preferences as they are, or read from what :func:`read_preferences` takes."""
    return data if isinstance(data, Preferences) else read_preferences(data)


def objectives_of(given: Sequence[str | Objective] | None, train: Preferences, beta: float) -> tuple[Objective, ...]:
    """Fitted objectives: those that are given, by name or whole, or one for each label."""
    known = {o.name: replace(o, beta=beta) for o in default_objectives(train)}
    if given is None:
        chosen = list(known.values())
    else:
        for one in given:
            if isinstance(one, str) and one not in known:
                raise InputError(f"objectives: no label {one!r}; choose from {', '.join(known)}")
        chosen = [known[one] if isinstance(one, str) else one for one in given]
    return fit_objectives(train, chosen)


def conditioned_model(
    model: Any,
    names: tuple[str, ...],
    conditioning: ConditioningConfig | None,
    peft_config: LoraConfig | None,
    seed: int,
) -> ConditionedLM:
    """The model with an adapter for these objectives around it; a ``ConditionedLM`` as it is.

    Args:
        names: the m objectives.
        conditioning, peft_config: as of :class:`~hyperdpo.alignment.trainer.HyperDPOTrainer`.
        seed: of new parameters.

    Raises:
        InputError: a ``ConditionedLM`` of other objectives, or settings beside it.
    """
    if isinstance(model, ConditionedLM):
        if conditioning is not None or peft_config is not None:
            given = "conditioning" if peft_config is None else "peft_config"
            raise InputError(f"{given}: the model is a ConditionedLM, which has its own; expected none beside it")
        if model.conditioning.objectives != names:
            raise InputError(
                f"model: was conditioned on {', '.join(model.conditioning.objectives)}; found data for "
                f"{', '.join(names)}"
            )
        return model
    settings = {} if conditioning is None else conditioning.to_dict()
    if peft_config is None:
        config = ConditioningConfig.from_dict(settings | {"objectives": names})
    else:
        kept = {k: v for k, v in settings.items() if not k.startswith(("lora_r", "lora_a", "lora_d", "target"))}
        kept.pop("objectives", None)
        config = ConditioningConfig.from_lora_config(peft_config, names, **kept)
    return ConditionedLM.create(model, config, seed=seed)
