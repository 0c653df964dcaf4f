"""The JSON of a request to a ranker, with rows of features as an array where they are one.

Turning 16,000 numbers into Python objects, and those into an array, takes longer than anything else in a request. So
simdjson writes them into an array directly. It reads well-formed bodies only, and of those only the numbers of
``features``. Everything unusual is read by orjson; :mod:`hyperdpo.serving.server.rank_schema` says what is wrong with
it.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import orjson
import simdjson

FLOAT32 = np.dtype(np.float32)

#: Bytes of a body that is worth a look before it is parsed. After it the parser's memory, ten times as much, is freed.
LARGE_BODY = 2**20

#: A parser's memory is worth keeping: new memory for every body costs as much as half of the reading.
_kept = threading.local()


def parsed(body: bytes, max_groups: int, max_fields: int, dtype: np.dtype[Any] = FLOAT32) -> Any:
    """What the body holds; ``features`` of the request or of its ``groups`` as (n, F) arrays, finite, where possible.

    Args:
        dtype: of the arrays.
        max_groups, max_fields: of a body that is as it should be. simdjson looks a field up by going through those
            before it, which takes long where there are many.

    Raises:
        ValueError: it is not JSON.
    """
    if not hasattr(_kept, "parser"):
        _kept.parser = simdjson.Parser()
    try:
        request = _with_arrays(_kept.parser.parse(body), body, max_groups, max_fields, dtype)
    except (ValueError, TypeError, RuntimeError, AttributeError, LookupError):  # simdjson's own, or not of this shape
        del _kept.parser  # which refuses the next body as long as anything holds a part of this one
        request = None
    if len(body) > LARGE_BODY:
        vars(_kept).pop("parser", None)
    return orjson.loads(body) if request is None else request


def amounts(body: bytes) -> tuple[int, int]:
    """How many lists and objects a body begins, and how many commas it has; those in texts count, too.

    Each may become a Python object of 50 to 100 bytes. Bodies up to :data:`LARGE_BODY` are not looked at: 0, 0.
    """
    begun = commas = 0
    if len(body) > LARGE_BODY:
        for start in range(0, len(body), LARGE_BODY):
            part = np.frombuffer(body, np.uint8, min(LARGE_BODY, len(body) - start), start)
            begun += int(np.count_nonzero(part == ord("[")) + np.count_nonzero(part == ord("{")))
            commas += int(np.count_nonzero(part == ord(",")))
    return begun, commas


def _with_arrays(request: Any, body: bytes, max_groups: int, max_fields: int, dtype: np.dtype[Any]) -> Any:
    """None: orjson has to read it."""
    if not isinstance(request, simdjson.Object):
        return None
    if "groups" in request:
        groups = request["groups"]
        if len(request) > 1 or not isinstance(groups, simdjson.Array) or len(groups) > max_groups:
            return None
        read = [_group(groups[i], max_fields, dtype) for i in range(len(groups))]
        found: Any = {"groups": [group for group, _ in read]}
        brackets = 1 + sum(count for _, count in read)
    else:
        found, brackets = _group(request, max_fields, dtype)
    # A number inside of one more pair of brackets would be taken for a number.
    there = np.count_nonzero(np.frombuffer(body, np.uint8) == ord("["))
    return found if there == brackets else None


def _group(group: Any, max_fields: int, dtype: np.dtype[Any]) -> tuple[dict[str, Any], int]:
    """The fields of a group, and how many lists they are made of.

    Raises:
        TypeError, ValueError: it has to be read otherwise.
    """
    if not isinstance(group, simdjson.Object) or len(group) > max_fields:
        raise TypeError("no object, or none with the fields of a group")
    found: dict[str, Any] = {}
    brackets = 0
    for name in group:
        if name in found:
            raise ValueError("a field that is there twice")
        value: Any = group[name]  # not of items(), which makes Python objects of everything
        if name == "features":
            rows = len(value)
            found[name] = _rows(value, dtype)
            brackets += 1 + rows
        elif isinstance(value, simdjson.Array):
            found[name] = value.as_list()
            brackets += 1
        else:
            found[name] = value.as_dict() if isinstance(value, simdjson.Object) else value
    return found, brackets


def _rows(rows: Any, dtype: np.dtype[Any]) -> np.ndarray:
    widths = set(map(len, rows))
    if len(widths) != 1:
        raise ValueError("rows of different widths, or none")
    with np.errstate(over="ignore"):
        values = np.frombuffer(rows.as_buffer(of_type="d")).astype(dtype)
    if not np.isfinite(values).all():
        raise ValueError("numbers beyond single precision")
    return values.reshape(len(rows), widths.pop())
