"""The paper's mathematics on tensors. Knows no files and no models."""

from __future__ import annotations

from hyperdpo._lazy import lazy_package

__getattr__, __dir__, __all__ = lazy_package(__name__, __file__)
