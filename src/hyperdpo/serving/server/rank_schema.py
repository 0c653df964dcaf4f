"""Requests and answers of ``POST /rank`` and ``POST /components``.

Bodies are read without pydantic, which would check 16,000 numbers of a list one by one; its models describe them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pybase64
from pydantic import BaseModel, ConfigDict, Field

from hyperdpo.core.point import Point, PointReader
from hyperdpo.errors import InputError, brief
from hyperdpo.serving.server.errors import Refusal
from hyperdpo.serving.server.rank_body import FLOAT32, amounts, parsed
from hyperdpo.serving.server.rank_model import ListToScore, RankModel


@dataclass(frozen=True)
class RankLimits:
    """Limits of requests to a ranker.

    Attributes:
        max_items: items of a list.
        max_groups: lists of a request.
        max_batch: lists that are scored together.
        max_queue: queued lists.
    """

    max_items: int = 1000
    max_groups: int = 64
    max_batch: int = 32
    max_queue: int = 256


class ComponentsGroup(BaseModel):
    """A list whose components are asked for."""

    model_config = ConfigDict(extra="forbid")

    features: list[list[float | None]] | None = Field(
        None,
        description="A row of raw features for each item, in the order that /info says; null where a value is missing.",
    )
    feature_names: list[str] | None = Field(
        None, description="What the columns of features are called, where they may be in another order, or others."
    )
    features_base64: str | None = Field(
        None,
        description="Instead of features: the rows as little-endian numbers of the type that /info says (float32 as a "
        "rule), in base64; NaN where a value is missing. Read several times faster.",
    )
    scale: float | None = Field(None, gt=0, description="c: above 1 is nearer to the base. 1 if left out.")
    base_scores: list[float] | None = Field(None, description="One per item, where the run has no base of its own.")
    ids: list[str | int] | None = Field(None, description="What items are called in the answer; else 0, 1, ...")


class RankGroup(ComponentsGroup):
    """A list that is to be ranked."""

    weights: list[float] | dict[str, float] | None = Field(
        None,
        description="One number >= 0 per objective, sum 1, in order or by name (what is not named counts 0). "
        "The server's own point if left out, if it has one.",
    )
    temperatures: list[float] | None = Field(None, description="β, one per objective; the run's if left out.")
    main_share: float | None = Field(
        None, ge=0, lt=1, description="λ, the main label's share, for mixture.form gain; the run's if left out."
    )
    explain: bool | None = Field(
        None,
        description="Whether to say why items are where they are. Only where /info names components.",
    )


class RankBatch(BaseModel):
    """Several lists."""

    model_config = ConfigDict(extra="forbid")

    groups: list[RankGroup] = Field(min_length=1)


class ComponentsBatch(BaseModel):
    """Several lists."""

    model_config = ConfigDict(extra="forbid")

    groups: list[ComponentsGroup] = Field(min_length=1)


class ListComponents(BaseModel):
    """The components of a list."""

    components: dict[str, list[float]] = Field(
        description="Column by name, one number >= 0 per item in the order of the request. The sum of weight times "
        "column ranks this list; with main, the weights are (1 - λ) w and λ."
    )
    ids: list[str | int] = Field(description="Items, in the order of the columns: their ids, or their places.")
    scale: float = Field(description="That was used.")


class ComponentsAnswer(BaseModel):
    """The lists, in the order of the request."""

    groups: list[ListComponents]


class RankedGroup(BaseModel):
    """A ranked list."""

    scores: list[float] = Field(description="Of the items, in the order of the request.")
    ranking: list[str | int] = Field(description="Items, best first: their ids, or their places in the request.")
    weights: dict[str, float] = Field(description="That were used.")
    scale: float = Field(description="That was used.")
    main_share: float | None = Field(None, description="That was used, by a ranker that takes one.")
    explanation: list[dict[str, Any]] | None = Field(
        None,
        description="With explain: of each item, best first, its `place` and `id`, the `parts` that objectives (and "
        "main) have in its `sum`, and `over_next`: the `parts` of its `lead` over the next item (negative ones favour "
        "the next), and the weight of each objective at which the two swap while the others shrink in proportion; "
        "null: at none. With trees, too: the `sources` of these parts (trees, neural, base), and the `features` with "
        "the largest TreeSHAP in the difference, by column.",
    )
    contributions_in: dict[str, str] | None = Field(
        None, description="With explain and trees: what TreeSHAP of a column is measured in, gain or log-odds."
    )
    explanation_lacks: str | None = Field(None, description="What an explanation lacks here, and why: one line.")


class RankAnswer(BaseModel):
    """The lists, in the order of the request."""

    groups: list[RankedGroup]


class Info(BaseModel):
    """What is served."""

    name: str
    objectives: list[str] = Field(description="In the order of the weights.")
    features: list[str] = Field(description="In the order of a row.")
    feature_type: str = Field(description="Of features_base64: float32 or float64.")
    needs_base_scores: bool
    point: dict[str, Any] | None = Field(description="Where requests that name no point are answered; null: nowhere.")
    backend: str = Field(description="onnx or torch.")
    components: list[str] = Field(description="Columns that POST /components answers with; none where it cannot.")


class Problem(BaseModel):
    """What was wrong: one line."""

    detail: str


@dataclass(frozen=True)
class AskedGroup:
    """A list with what its answer repeats."""

    work: ListToScore
    point: Point
    ids: list[str | int] | None
    columns: ListToScore | None = None
    """The same list for its components, where an explanation is asked for."""


def read_groups(
    body: bytes,
    model: RankModel,
    points: PointReader,
    limits: RankLimits,
    kind: type[ComponentsGroup] = RankGroup,
) -> list[AskedGroup]:
    """The lists of a request.

    Args:
        kind: of the groups: to be ranked, or for their components.

    Raises:
        Refusal: 422, with one line about the first thing that is wrong.
    """
    _check_amounts(body, len(model.features), limits)
    try:
        request = parsed(body, limits.max_groups, len(kind.model_fields), model.feature_type)
    except ValueError as error:
        hint = "; JSON has no NaN or Infinity" if re.search(rb"[\[,:\s]-?(NaN|Infinity)\b", body) else ""
        raise Refusal(422, f"the body: not JSON ({error}){hint}") from None
    if not isinstance(request, dict):
        raise Refusal(422, "the body: expected an object: a group, or groups")
    groups, named = [request], False
    if "groups" in request:
        groups, named = request["groups"], True
        if len(request) > 1:
            other = next(name for name in request if name != "groups")
            raise Refusal(422, f"{brief(other)}: no field beside groups; expected it inside of a group")
        if not isinstance(groups, list) or not 1 <= len(groups) <= limits.max_groups:
            found = f"{len(groups)} groups" if isinstance(groups, list) else brief(groups)
            raise Refusal(422, f"groups: found {found}; expected a list of 1 to {limits.max_groups}")
    listed = any(isinstance(group, dict) and isinstance(group.get("features"), list) for group in groups)
    literals = not listed or _may_hold_literals(body, groups, named)  # of base scores alone: looked for at once
    try:
        return [
            _group(group, f"groups[{i}]." if named else "", model, points, limits, literals, kind)
            for i, group in enumerate(groups)
        ]
    except InputError as error:
        raise Refusal(422, str(error)) from None


def _check_amounts(body: bytes, width: int, limits: RankLimits) -> None:
    """Raise where a body would become far more objects than any list within the limits.

    Raises:
        Refusal: 422.
    """
    begun, commas = amounts(body)
    fields = 16  # of a group, generously
    values = begun * (width + 1) + limits.max_groups * (3 * limits.max_items + 2 * width + fields)
    if begun > limits.max_groups * (limits.max_items + fields) or commas > values:
        message = (
            f"the body: found {begun} lists and objects, and {commas} commas; expected at most {limits.max_groups} "
        )
        raise Refusal(422, f"{message}groups of {limits.max_items} items with {width} features")


def _may_hold_literals(body: bytes, groups: list[Any], named: bool) -> bool:
    """Whether there may be a true or a false among the numbers: letters of theirs that no field's name accounts for.

    Counting a byte takes a tenth of the time that looking for the words does.
    """
    names = "".join(name for group in groups if isinstance(group, dict) for name in group) + "groups" * named
    return any(body.count(letter.encode()) != names.count(letter) for letter in "ul")


def _group(
    group: Any,
    where: str,
    model: RankModel,
    points: PointReader,
    limits: RankLimits,
    literals: bool,
    kind: type[ComponentsGroup],
) -> AskedGroup:
    if not isinstance(group, dict):
        raise InputError(f"{where.rstrip('.')}: found {brief(group)}; expected an object")
    for name in group:
        if name not in kind.model_fields:
            raise InputError(f"{where}{brief(name)}: no such field; expected some of {', '.join(kind.model_fields)}")
    width = len(model.features)
    rows, packed = group.get("features"), group.get("features_base64")
    if (rows is None) == (packed is None):
        raise InputError(f"{where}features: expected them, or features_base64, one of the two")
    if packed is None:
        features = _matrix(
            rows, width, f"{where}features", limits.max_items, literals, model.feature_type, missing=True
        )
    else:
        features = _unpacked(packed, width, f"{where}features_base64", limits.max_items, model.feature_type)
    if group.get("feature_names") is not None:
        features = features[:, _order(group["feature_names"], model.features, f"{where}feature_names")]
    asked = (group.get("weights"), group.get("scale"), group.get("temperatures"))
    point = points.read(*asked, where, main_share=group.get("main_share"))
    if kind is RankGroup and not point.weights:
        raise points.missing(where)
    base, ids = group.get("base_scores"), group.get("ids")
    if base is not None:
        if not isinstance(base, list) or len(base) != len(features):
            found = f"{len(base)} values" if isinstance(base, list) else brief(base)
            raise InputError(f"{where}base_scores: found {found}; expected {len(features)}, one per item")
        base = _matrix([base], len(base), f"{where}base_scores", 1, literals, FLOAT32)[0]
    if ids is not None:
        if not isinstance(ids, list) or len(ids) != len(features):
            found = f"{len(ids)} values" if isinstance(ids, list) else brief(ids)
            raise InputError(f"{where}ids: found {found}; expected {len(features)}, one per item")
        if any(isinstance(one, bool) or not isinstance(one, str | int) for one in ids):
            raise InputError(f"{where}ids: expected texts or integers")
    why = group.get("explain")
    if why is not None and not isinstance(why, bool):
        raise InputError(f"{where}explain: found {brief(why)}; expected true or false")
    try:
        work = (model.prepare if kind is RankGroup else model.prepare_components)(features, point, base)
        columns = model.prepare_components(features, point, base, with_sources=True) if why else None
    except InputError as error:
        raise InputError(where + str(error)) from None
    return AskedGroup(work, point, ids, columns)


def _order(names: Any, features: Sequence[str], where: str) -> list[int]:
    """Positions in a row of the model's features.

    Raises:
        InputError: a feature is not among the names, or a name is no feature.
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: found {brief(names)}; expected a list of texts")
    if (missing := [name for name in features if name not in names]) or len(names) != len(features):
        other = next((name for name in names if name not in features or names.count(name) > 1), None)
        found = f"no {missing[0]!r}" if missing else f"{other!r}"
        raise InputError(f"{where}: found {found}; expected the {len(features)} features of /info, each once")
    return [names.index(name) for name in features]


def _matrix(
    rows: Any, width: int, where: str, most: int, literals: bool, dtype: np.dtype[Any], *, missing: bool = False
) -> np.ndarray:
    """(n, width) from lists of numbers, or from the array that they have become.

    Args:
        missing: whether null stands for a missing value: NaN.

    Raises:
        InputError: too many rows or none, a row of another width, or a value that is no finite number.
    """
    if not isinstance(rows, list | np.ndarray):
        raise InputError(f"{where}: found {brief(rows)}; expected a list of rows")
    if not 1 <= len(rows) <= most:
        raise InputError(f"{where}: found {len(rows)} items; expected 1 to {most}")
    if isinstance(rows, np.ndarray):
        if rows.shape[1] != width:
            raise InputError(f"{where}[0]: found {rows.shape[1]} values; expected {width}")
        return rows
    size = dtype.itemsize
    buffer, step = bytearray(size * width * len(rows)), size * width
    pack = struct.Struct(f"={width}{dtype.char}").pack_into
    absent = missing and any(isinstance(row, list) and None in row for row in rows)
    if absent:
        rows = [[np.nan if value is None else value for value in row] if isinstance(row, list) else row for row in rows]
    try:
        # Checks the width, takes numbers only, refuses those beyond single precision: the fastest of what was tried.
        for i, row in enumerate(rows):
            pack(buffer, i * step, *row)
    except (struct.error, TypeError, OverflowError):
        raise _wrong_value(rows, width, where) from None
    found = np.frombuffer(buffer, dtype).reshape(len(rows), width)
    if (np.isinf(found) if absent else ~np.isfinite(found)).any() or (
        literals and any(bool in map(type, row) for row in rows)
    ):
        raise _wrong_value(rows, width, where)
    return found


def _wrong_value(rows: list[Any], width: int, where: str) -> InputError:
    """What to say about the first value that is wrong."""
    largest = float(np.finfo(np.float32).max)
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            return InputError(f"{where}[{i}]: found {brief(row)}; expected a list of {width} numbers")
        if len(row) != width:
            return InputError(f"{where}[{i}]: found {len(row)} values; expected {width}")
        for j, value in enumerate(row):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and (value != value or abs(value) <= largest)):
                return InputError(f"{where}[{i}][{j}]: found {brief(value)}; expected a finite number")
    return InputError(f"{where}: expected finite numbers of single precision")


def _unpacked(packed: Any, width: int, where: str, most: int, dtype: np.dtype[Any]) -> np.ndarray:
    """(n, width) from base64; NaN stands for a missing value."""
    try:
        content = pybase64.b64decode(packed, validate=True)
    except (TypeError, ValueError):
        raise InputError(f"{where}: found {brief(packed)}; expected base64") from None
    items, rest = divmod(len(content), dtype.itemsize * width)
    if rest or not 1 <= items <= most:
        raise InputError(
            f"{where}: found {len(content)} bytes; expected {dtype.itemsize * width} for each of 1 to {most} items "
            f"({dtype.name})"
        )
    found = np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype).reshape(items, width)
    if np.isinf(found).any():
        i, j = np.argwhere(np.isinf(found))[0]
        raise InputError(f"{where}: item {i}, feature {j}: found {found[i, j]}; expected finite numbers")
    return found


def written_components(asked: list[AskedGroup], found: list[np.ndarray], names: Sequence[str]) -> bytes:
    """The body of the answer; (n, k) components of each list, names of the k columns."""
    groups = [
        {
            "components": {name: np.ascontiguousarray(values[:, j]) for j, name in enumerate(names)},
            "ids": list(range(len(values))) if group.ids is None else group.ids,
            "scale": group.point.scale,
        }
        for group, values in zip(asked, found, strict=True)
    ]
    return orjson.dumps({"groups": groups}, option=orjson.OPT_SERIALIZE_NUMPY)


def written(
    asked: list[AskedGroup], scores: list[np.ndarray], names: Sequence[str], explanations: list[dict[str, Any]]
) -> bytes:
    """The body of the answer.

    Args:
        names: of the m objectives.
        explanations: fields of each list, from :func:`~hyperdpo.serving.server.rank_explained.explanations`.
    """
    groups: list[Mapping[str, Any]] = []
    for group, row, explanation in zip(asked, scores, explanations, strict=True):
        order = np.argsort(-row, kind="stable")
        groups.append(
            {
                "scores": np.ascontiguousarray(row),
                "ranking": order if group.ids is None else [group.ids[i] for i in order.tolist()],
                "weights": dict(zip(names, group.point.weights, strict=True)),
                "scale": group.point.scale,
                **({} if group.work.main_share is None else {"main_share": group.work.main_share}),
                **explanation,
            }
        )
    return orjson.dumps({"groups": groups}, option=orjson.OPT_SERIALIZE_NUMPY)
