"""The methods of a comparison and their variants, by the names of the command line. Imports nothing heavy: the help
shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: ``--paper``: a network of its own, w concatenated to its input, one w ~ Dirichlet(0.5) per batch (Algorithm 1). The
#: paper does not print its α; 0.5 is the one that its ablations keep fixed. It allows HyperDPO more epochs.
PAPER: dict[str, Any] = {
    "parametrization": "scratch",
    "scorer": {"conditioning": "input"},
    "training": {
        "alpha": 0.5,
        "weights_per": "batch",
        "vertex_share": 0.0,
        "stratified": False,
        "sampling_factor": 1.75,
    },
}

#: Trained without sampled weights, and so without the penalty on them.
MIXTURE: dict[str, Any] = {"parametrization": "mixture", "training": {"penalty": 0.0}}

#: Method, variant: the settings that differ from the comparison's own (of ``lightgbm-ls``, arguments of its own).
VARIANTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "hyperdpo": {
        "mixture": MIXTURE,
        "exact": {**MIXTURE, "mixture": {"smoothing": 0.0, "power": 1.0}},
        "power": {**MIXTURE, "mixture": {"power": (0.25, 0.5, 1.0)}},
        "scratch": {"parametrization": "scratch"},
        "augmentation": {"parametrization": "augmentation"},
        "temperature": {"parametrization": "temperature"},
        "paper": PAPER,
    },
    # Models for one w take only the parametrisations that need none.
    "dpo-ls": {"scratch": {"parametrization": "scratch"}, "augmentation": {"parametrization": "augmentation"}},
    "dpo-soup": {"scratch": {"parametrization": "scratch"}, "augmentation": {"parametrization": "augmentation"}},
    "mo-dpo": {},
    "lightgbm-ls": {"base": {"with_base": True}},
}


def kept_settings(own: Mapping[str, Any], given: Mapping[str, Any], where: str = "") -> list[str]:
    """Settings that a method has of its own and keeps, whatever is given for all: ``training.alpha=0.5``."""
    kept = []
    for name, value in own.items():
        if name in given:
            if isinstance(value, Mapping) and isinstance(given[name], Mapping):
                kept += kept_settings(value, given[name], f"{where}{name}.")
            elif given[name] != value:
                kept.append(f"{where}{name}={value}")
    return kept
