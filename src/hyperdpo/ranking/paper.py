"""The settings of ``--paper``. Imports nothing heavy: the help of the command line needs them."""

from __future__ import annotations

from typing import Any

#: ``--paper``: a network of its own, w concatenated to its input, one w ~ Dirichlet(0.5) per batch (Algorithm 1). The
#: paper does not print its α; 0.5 is the one that its ablations keep fixed. HyperDPO is allowed more epochs.
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
