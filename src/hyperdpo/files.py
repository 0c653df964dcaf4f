"""Reading and writing of files: JSON, YAML, and tensors with plain values in safetensors.

How a file is written whole or not at all is in :mod:`hyperdpo.writing`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperdpo.errors import InputError
from hyperdpo.writing import check_space, check_writable, write_atomically, writing, written, written_into

if TYPE_CHECKING:
    import torch

__all__ = [
    "check_space",
    "check_writable",
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


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all. NaN is refused."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); the file may be truncated") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Settings from a YAML file.

    Raises:
        InputError: the file cannot be read, is not YAML, or is not a mapping.
    """
    import yaml

    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise InputError(f"{path}:{line}: not valid YAML ({error.problem})") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: found {type(settings).__name__}; expected settings as `name: value`")
    return settings


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], values: Any = None) -> None:
    """Write tensors, and plain values in the file's header."""
    from safetensors.torch import save

    metadata = None if values is None else {"values": json.dumps(values)}
    write_atomically(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """What :func:`write_tensors` wrote.

    Raises:
        InputError: the file is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads(metadata.get("values", "null"))  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected safetensors") from None
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); it may be truncated") from None


def with_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under ``prefix.name``."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that :func:`with_prefix` put under ``prefix``."""
    start = prefix + "."
    return {name[len(start) :]: tensor for name, tensor in tensors.items() if name.startswith(start)}
