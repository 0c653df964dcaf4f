"""Short hashes of plain values, to tell one configuration, file or measurement from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from hashlib import _Hash

    import numpy as np


def fingerprint(value: Any, bits: Literal[64, 128] = 128) -> str:
    """A hash of settings that does not depend on their order; values that JSON cannot hold count as their text."""
    import xxhash

    of = xxhash.xxh3_64_hexdigest if bits == 64 else xxhash.xxh3_128_hexdigest
    return of(json.dumps(value, sort_keys=True, default=str).encode())


def sha256_of(*parts: Any) -> _Hash:
    """A hash of plain values, for the names of files that are kept. More bytes may be added to it."""
    return hashlib.sha256(json.dumps(parts).encode())


def digest(values: np.ndarray) -> str:
    """A hash of an array's numbers."""
    import numpy as np
    import xxhash

    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data)


#: Settings that are newer than files with a fingerprint in their name. Where they are not used they are left out of it,
#: so that what was kept before is found.
NEWER = frozenset({"propensity", "position", "position_power", "weight", "categorical", "monotone"})
UNUSED: tuple[Any, ...] = (None, (), [], {})


def without_unused(settings: Any) -> Any:
    """The settings without the :data:`NEWER` ones that are not used, at every depth."""
    if isinstance(settings, Mapping):
        return {
            name: without_unused(value) for name, value in settings.items() if name not in NEWER or value not in UNUSED
        }
    return [without_unused(one) for one in settings] if isinstance(settings, list | tuple) else settings
