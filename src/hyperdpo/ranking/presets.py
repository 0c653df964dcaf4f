"""Label columns of known data sets, for ``--preset``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyperdpo.data.groups import RELEVANCE

#: The main label, unless a configuration names another. Grades are taken as they are.
MAIN_LABEL: dict[str, Any] = {"name": RELEVANCE, "target": "softmax", "transform": "none"}


def _mslr(quality: Mapping[str, Any]) -> dict[str, Any]:
    # The paper's objectives I to V are MSLR features 134, 135, 136, 132, 133; m = 5 leaves relevance out.
    sparse = {"target": "l1", "transform": "none"}
    return {
        "objectives": [
            {"name": "query_url_clicks", "column": "134", **sparse},
            {"name": "url_clicks", "column": "135", **sparse},
            {"name": "url_dwell_time", "column": "136", **sparse},
            {"name": "quality", "column": "132", **quality},
            {"name": "quality2", "column": "133", **quality},
        ],
        "main": {**MAIN_LABEL, "column": RELEVANCE},
    }


def _clicks() -> dict[str, Any]:
    """What ``data generate --clicks`` writes: the sparse labels were seen only where the items were looked at."""
    preset = _mslr(_DENSE)
    for objective in preset["objectives"][:3]:
        objective["propensity"] = "138"
    return preset | {"excluded_columns": ["137"]}


_DENSE = {"target": "softmax", "transform": "standardize"}
PRESETS: dict[str, dict[str, Any]] = {
    "mslr": _mslr(_DENSE),
    "mslr_clicks": _clicks(),
    # 255 - value: the quality scores as a cost, conflicting more with clicks.
    "mslr_inverted_quality": _mslr({**_DENSE, "direction": "minimize", "flip_at": 255.0}),
}
