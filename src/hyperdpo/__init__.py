"""HyperDPO: one trained model, every trade-off between several objectives."""

from __future__ import annotations

from hyperdpo import _moved
from hyperdpo._lazy import lazy_package

__getattr__, __dir__, __all__ = lazy_package(__name__, __file__)

_moved.install()
