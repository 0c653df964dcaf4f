"""HyperDPO: one trained model, every trade-off between several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hyperdpo import _moved
from hyperdpo._lazy import lazy_names
from hyperdpo._version import __version__
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from hyperdpo.alignment.arguments import HyperDPOConfig
    from hyperdpo.alignment.model import ConditionedLM
    from hyperdpo.alignment.run import AlignRun
    from hyperdpo.alignment.trainer import HyperDPOTrainer
    from hyperdpo.choosing.commands import choose
    from hyperdpo.objectives import Objective
    from hyperdpo.ranking.estimator import HyperRanker
    from hyperdpo.ranking.run import RankRun

__all__ = [
    "AlignRun",
    "ConditionedLM",
    "HyperDPOConfig",
    "HyperDPOTrainer",
    "HyperRanker",
    "InputError",
    "Objective",
    "RankRun",
    "__version__",
    "choose",
]

__getattr__ = lazy_names(
    __name__,
    {
        "AlignRun": "hyperdpo.alignment.run",
        "ConditionedLM": "hyperdpo.alignment.model",
        "HyperDPOConfig": "hyperdpo.alignment.arguments",
        "HyperDPOTrainer": "hyperdpo.alignment.trainer",
        "HyperRanker": "hyperdpo.ranking.estimator",
        "Objective": "hyperdpo.objectives",
        "RankRun": "hyperdpo.ranking.run",
        "choose": "hyperdpo.choosing.commands",
    },
)


def __dir__() -> list[str]:
    return __all__


_moved.install()
