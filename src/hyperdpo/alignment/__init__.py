"""Language models: preference data, conditioned adapters, training and generation at any weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdpo._lazy import lazy_names

if TYPE_CHECKING:
    from hyperdpo.alignment.arguments import HyperDPOConfig
    from hyperdpo.alignment.conditioning import ConditioningConfig
    from hyperdpo.alignment.data.preferences import read_preferences
    from hyperdpo.alignment.model import ConditionedLM
    from hyperdpo.alignment.run import AlignRun
    from hyperdpo.alignment.trainer import HyperDPOTrainer

__all__ = [
    "AlignRun",
    "ConditionedLM",
    "ConditioningConfig",
    "HyperDPOConfig",
    "HyperDPOTrainer",
    "read_preferences",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AlignRun": "hyperdpo.alignment.run",
        "ConditionedLM": "hyperdpo.alignment.model",
        "ConditioningConfig": "hyperdpo.alignment.conditioning",
        "HyperDPOConfig": "hyperdpo.alignment.arguments",
        "HyperDPOTrainer": "hyperdpo.alignment.trainer",
        "read_preferences": "hyperdpo.alignment.data.preferences",
    },
)


def __dir__() -> list[str]:
    return __all__
