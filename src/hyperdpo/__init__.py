"""HyperDPO: one trained model, every trade-off between several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyperdpo._version import __version__
from hyperdpo.errors import InputError

if TYPE_CHECKING:
    from hyperdpo.alignment.run import AlignRun
    from hyperdpo.choosing.commands import choose
    from hyperdpo.objectives import Objective
    from hyperdpo.ranking.ranker import HyperRanker
    from hyperdpo.ranking.run import RankRun

#: Where a public name lives; imported when it is first used, so that ``import hyperdpo`` loads no torch.
_HOMES = {
    "AlignRun": "hyperdpo.alignment.run",
    "HyperRanker": "hyperdpo.ranking.ranker",
    "Objective": "hyperdpo.objectives",
    "RankRun": "hyperdpo.ranking.run",
    "choose": "hyperdpo.choosing.commands",
}

__all__ = ["AlignRun", "HyperRanker", "InputError", "Objective", "RankRun", "__version__", "choose"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'hyperdpo' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
