"""Short hashes of plain values, to tell one configuration, file or measurement from another."""

from __future__ import annotations

import hashlib
import json
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
