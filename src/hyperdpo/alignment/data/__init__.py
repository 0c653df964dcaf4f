"""Preference data: layouts of files, groups, targets, and their report."""

from __future__ import annotations

from hyperdpo._lazy import lazy_package

__getattr__, __dir__, __all__ = lazy_package(__name__, __file__)
