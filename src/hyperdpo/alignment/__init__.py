"""Language models: preference data, conditioned adapters, training and generation at any weights."""

from __future__ import annotations

from hyperdpo._lazy import lazy_package

__getattr__, __dir__, __all__ = lazy_package(__name__, __file__)
