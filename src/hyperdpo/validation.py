"""Settings: dataclasses that check their values, the types of their fields, and mistakes as one line in plain words."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from hyperdpo.errors import InputError, did_you_mean, shown

T = TypeVar("T")


def _not_bool(value: Any) -> Any:
    """Python counts true as 1; a setting does not."""
    if isinstance(value, bool):
        raise PydanticCustomError("bool", "found true or false")
    return value


_NUMBER = BeforeValidator(_not_bool)
Int = Annotated[int, _NUMBER]
NonNegativeInt = Annotated[int, _NUMBER, Field(ge=0)]
PositiveInt = Annotated[int, _NUMBER, Field(ge=1)]
Float = Annotated[float, _NUMBER]
NonNegativeFloat = Annotated[float, _NUMBER, Field(ge=0)]
PositiveFloat = Annotated[float, _NUMBER, Field(gt=0)]
#: A share of something.
Fraction = Annotated[float, _NUMBER, Field(ge=0, le=1)]


@dataclass_transform(kw_only_default=True, field_specifiers=(Field,))
def settings(*, frozen: Literal[True] = True, kw_only: bool = True) -> Callable[[type[T]], type[T]]:
    """A decorator: a frozen dataclass that refuses unknown settings, wrong types and values out of bounds.

    Text is read as a number where a number is due (YAML reads 1e-3 as text), and a number as text (``column: 41``).
    A ``__post_init__`` checks what concerns several settings. Every mistake is an InputError.
    """

    def make(kind: type[T]) -> type[T]:
        config: Any = {"extra": "forbid", "coerce_numbers_to_str": True, "allow_inf_nan": False}
        made = dataclass(frozen=frozen, kw_only=kw_only, config=config)(kind)
        check = made.__init__

        @functools.wraps(check)
        def checked(self: Any, *args: Any, **values: Any) -> None:
            try:
                check(self, *args, **values)
            except ValidationError as error:
                raise _refusal(error, "", made, f"{values['name']!r}: " if values.get("name") else "") from None

        made.__init__ = checked  # type: ignore[method-assign]
        return cast(type[T], made)

    return make


def parsed(kind: type[T], values: Any, where: str, section: str = "") -> T:
    """Settings from plain values (YAML, JSON).

    Args:
        kind: a class of :func:`settings`.
        where: the file or option that they are from.
        section: what their names begin with, such as ``objectives.0.``.

    Raises:
        InputError: an unknown setting, a wrong type or a value out of bounds; names the first one with its path.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: found {type(values).__name__}; expected settings as `name: value`")
    try:
        found: T = kind.__pydantic_validator__.validate_python(dict(values))  # type: ignore[attr-defined]
    except ValidationError as error:
        raise _refusal(error, where, kind, section) from None
    return found


def checked(kind: Any, value: Any, name: str) -> Any:
    """One value, as the type that it is checked for.

    Args:
        kind: the type, such as :data:`PositiveInt`.
        name: what a message calls it.

    Raises:
        InputError: a wrong type, or a value out of bounds.
    """
    try:
        found = TypeAdapter(kind).validate_python(value)
    except ValidationError:
        found = math.nan
    if isinstance(found, float) and not math.isfinite(found):
        raise InputError(f"{name} is {shown(value, 200)}; expected {allowed(kind)}")
    return found


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``: mappings are merged at every depth, anything else is replaced."""
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def not_a_setting(where: str, name: str, kind: Any, section: str = "") -> InputError:
    """The error for a name that is no setting of a class; it suggests the nearest one, in the same place of a list."""
    name = " ".join(name.split())  # a name in a file may have several lines
    plain, known = (re.sub(r"\.\d+", "", one) for one in (name, section))
    near = did_you_mean(plain, setting_names(kind, known))
    near = near.replace(f" mean {plain.rpartition('.')[0]}", f" mean {name.rpartition('.')[0]}")
    return InputError(f"{where}{name} is not a setting{near or '; see docs/settings.md for the settings'}")


def setting_names(kind: Any, prefix: str = "") -> list[str]:
    """The names of all settings of a class, those of a section as ``section.setting``."""
    found, hints = [], get_type_hints(kind)
    for one in fields(kind):
        found.append(f"{prefix}{one.name}")
        for kind_of_one in _alternatives(hints[one.name]):
            held = get_args(kind_of_one)[0] if get_origin(kind_of_one) is tuple else kind_of_one
            if is_dataclass(held):
                found += setting_names(held, f"{prefix}{one.name}.")
    return found


def allowed(hint: Any, *, many: bool = False) -> str:
    """What a field's type allows, in words, such as ``a number above 0``.

    Args:
        many: in the plural.
    """
    kinds = get_args(hint)
    if get_origin(hint) is Annotated:
        return allowed(kinds[0], many=many) + _bounds(kinds[1:])
    if get_origin(hint) in (Union, UnionType):
        return ", or ".join(allowed(kind, many=many) for kind in kinds)
    if get_origin(hint) is Literal:
        return " or ".join(filter(None, (", ".join(map(str, kinds[:-1])), str(kinds[-1]))))
    if get_origin(hint) in (tuple, list):
        return f"{'lists' if many else 'a list'} of {allowed(kinds[0], many=True)}"
    if get_origin(hint) is dict:
        return f"a mapping of names to {allowed(kinds[1])}"
    if is_dataclass(hint):
        first = fields(hint)[0]
        return f"settings such as {{{first.name}: {'...' if first.default is MISSING else first.default}}}"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    plural = {int: "integers", float: "numbers", str: "texts"}
    return (plural if many else words).get(hint, "settings such as {name: value}")


def _bounds(marks: tuple[Any, ...]) -> str:
    """The end of :func:`allowed`: " from 0 to 1"."""
    found: dict[str, float] = {}
    for bound in (bound for mark in marks for bound in getattr(mark, "metadata", ())):
        found |= {name: getattr(bound, name) for name in ("ge", "gt", "le", "lt") if hasattr(bound, name)}
    if "ge" in found and len(found) > 1:
        return (
            f" from {_plain(found['ge'])} to "
            + ("below " if "lt" in found else "")
            + _plain(found.get("lt", found.get("le")))
        )
    words = {"ge": " of at least {}", "gt": " above {}", "le": " and at most {}", "lt": " and below {}"}
    return "".join(text.format(_plain(found[name])) for name, text in words.items() if name in found)


def _plain(bound: Any) -> str:
    """A bound in words: 4,294,967,295, 0.5."""
    return f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"


def _refusal(error: ValidationError, where: str, kind: Any, section: str) -> InputError:
    """The first mistake in settings, as one line."""
    where = where and f"{where}: "
    first = error.errors()[0]
    names, hint = [], kind
    for part in first["loc"]:
        for one in _alternatives(hint):
            if isinstance(part, int) and get_origin(one) is tuple:
                hint = get_args(one)[0]
            elif part in (known := get_type_hints(one, include_extras=True) if isinstance(one, type) else {}):
                hint = known[part]
            else:
                continue
            names.append(str(part))
            break
    if first["type"] == "unexpected_keyword_argument":
        return not_a_setting(where, section + ".".join([*names, str(first["loc"][-1])]), kind, section)
    place = section + ".".join(names)
    if first["type"] == "value_error":  # an InputError of __post_init__
        return InputError(f"{where}{f'{place}: ' if names else ''}{first['ctx']['error']}")
    if first["type"] == "missing":
        return InputError(f"{where}{place} is missing")
    if hint is kind or first["type"] in ("missing_argument", "unexpected_positional_argument"):
        return InputError(f"{where}{first['msg']}")
    expected = "a finite number" if first["type"] == "finite_number" else allowed(hint)
    return InputError(f"{where}{place} is {shown(first['input'], 200)}; expected {expected}")


def _alternatives(hint: Any) -> list[Any]:
    """The types that a field may have, without bounds."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return [one for kind in get_args(hint) for one in _alternatives(kind)]
    return [hint]
