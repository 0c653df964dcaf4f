"""Reading and writing of files: JSON, YAML, and tensors with plain values in safetensors.

How a file is written whole or not at all is in :mod:`hyperdpo.writing`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperdpo import checksums
from hyperdpo.errors import InputError, brief, one_line
from hyperdpo.writing import check_space, check_writable, write_atomically, writing, written, written_into

if TYPE_CHECKING:
    import torch

#: The largest integer of settings and options: 64 bits.
LARGEST = 2**63 - 1
#: What YAML's loader raises besides its own errors: a 13th month, a list as a name, brackets within brackets.
NO_YAML = (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError)

__all__ = [
    "LARGEST",
    "NO_YAML",
    "check_space",
    "check_writable",
    "parse_yaml",
    "read_json",
    "read_tensors",
    "read_yaml",
    "with_prefix",
    "without_prefix",
    "write_atomically",
    "write_json",
    "write_tensors",
    "writing",
    "written",
    "written_into",
]


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write JSON, whole or not at all. NaN is refused.

    Args:
        sealed: with a checksum, which :func:`read_json` compares: for an object that this package reads back.
    """
    whole = {**value, checksums.KEY: checksums.ZEROS} if sealed else value
    content = json.dumps(whole, indent=2, allow_nan=False).encode() + b"\n"
    write_atomically(path, checksums.sealed(content, checksums.JSON_SEAL) if sealed else content)


def _integer(digits: str) -> int:
    """An integer of at most 64 bits.

    Raises:
        ValueError: it has more.
    """
    if abs(value := int(digits)) > LARGEST:
        raise ValueError(f"{brief(digits, 30)} is no integer of 64 bits")
    return value


def read_json(path: Path, *, sealed: bool = False, remedy: str = "") -> Any:
    """Read a JSON file. Of a sealed one the checksum is compared, and left out of what is returned.

    Args:
        sealed: refuse a file without a checksum.
        remedy: what to do about a damaged one, for the message.

    Raises:
        InputError: it is missing, unreadable, not JSON, or sealed and damaged.
    """
    value, intact = read_sealed(path, remedy=remedy)
    if sealed and not intact:
        raise checksums.damaged(path, remedy)
    return value


def read_sealed(path: Path, *, remedy: str = "", compare: bool = True) -> tuple[Any, bool]:
    """As :func:`read_json`, and whether the file has a checksum. Integers of more than 64 bits are no valid JSON here.

    Args:
        compare: False: take the file as it is, whatever its checksum says.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    intact = checksums.is_intact(content, checksums.JSON_SEAL)
    if compare and intact is False:
        raise checksums.damaged(path, remedy)
    try:
        value = json.loads(content, parse_int=_integer)
    except RecursionError:
        raise InputError(f"{path}: not valid JSON (brackets within brackets, too deep to read)") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such; so is a number of 5,000 digits
        raise InputError(f"{path}: not valid JSON ({one_line(error)}); the file may be truncated") from None
    if intact is not None:
        del value[checksums.KEY]
    elif compare and isinstance(value, dict) and value and checksums.is_nearly_key(list(value)[-1]):
        raise checksums.damaged(path, remedy)
    return value, bool(intact)


@functools.cache
def _loader() -> Any:
    """YAML's safe loader, with a limit for integers."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_yaml_int(self, node: Any) -> int:
            try:
                number = int(super().construct_yaml_int(node))
            except ValueError:  # a number of 5,000 digits, or none: `0o`
                number = LARGEST + 1
            if abs(number) > LARGEST:
                raise yaml.constructor.ConstructorError(
                    problem=f"{brief(node.value, 30)} is no integer of 64 bits", problem_mark=node.start_mark
                )
            return number

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_yaml_int)
    return Loader


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Integers of more than 64 bits are refused, since libraries fail in ways of their own.

    Raises:
        yaml.YAMLError: it is no YAML; or one of :data:`NO_YAML`.
    """
    import yaml

    return yaml.load(text, Loader=_loader())


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Settings from a YAML file.

    Raises:
        InputError: the file cannot be read, is not YAML, or is not a mapping.
    """
    import yaml

    try:
        settings = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"{path}:{line}: not valid YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({one_line(error)})") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML (brackets within brackets, too deep to read)") from None
    except NO_YAML as error:
        raise InputError(f"{path}: not valid YAML ({one_line(error)})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: found {type(settings).__name__}; expected settings as `name: value`")
    return settings


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], values: Any = None) -> None:
    """Write tensors, and plain values and a checksum in the file's header."""
    from safetensors.torch import save

    # In one text: several ones are written in an order that differs from process to process.
    metadata = {"values": json.dumps({checksums.KEY: checksums.ZEROS, "values": values})}
    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata)
    write_atomically(path, checksums.sealed(content, checksums.TENSORS_SEAL, _header_end(content)))


def read_tensors(path: Path, *, remedy: str = "", compare: bool = True) -> tuple[dict[str, torch.Tensor], Any]:
    """What :func:`write_tensors` wrote. Files of older versions have no checksum.

    Args:
        remedy: what to do about a damaged file, for the message.
        compare: False: take the file as it is, whatever its checksum says.

    Raises:
        InputError: the file is missing, damaged, truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        content = path.read_bytes()
        intact = checksums.is_intact(content, checksums.TENSORS_SEAL, _header_end(content))
        if compare and intact is False:
            raise checksums.damaged(path, remedy)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        values = json.loads(metadata.get("values", "null"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected safetensors") from None
    except InputError:
        raise
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({one_line(error)}); it may be truncated") from None
    if intact is not None:
        return tensors, values["values"]
    if not compare:
        return tensors, values
    if (metadata and "values" not in metadata) or (
        isinstance(values, dict) and any(map(checksums.is_nearly_key, values))
    ):
        raise checksums.damaged(path, remedy)
    return tensors, values


def _header_end(content: bytes) -> int:
    """Where the header of safetensors ends."""
    return min(8 + int.from_bytes(content[:8], "little"), len(content))


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under ``prefix.name``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that :func:`with_prefix` put under ``prefix``."""
    start = prefix + "."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}
