"""Reading and writing of files: JSON, YAML, and tensors with plain values in safetensors.

A file is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperdpo.errors import InputError, brief

if TYPE_CHECKING:
    import torch

#: A file's name, or a directory's: neither hidden, nor ``..``.
_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all. NaN is refused."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False).encode() + b"\n")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    with written(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def written(path: Path, *, directory: bool = False) -> Iterator[Path]:
    """A temporary path to write to in a ``with`` block. At its end it is renamed to ``path``; if it fails, removed.

    Args:
        directory: make a directory. One that exists already is replaced as a whole.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if directory:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _put(temporary, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        if directory:
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _put(made: Path, path: Path) -> None:
    """Rename what is finished; an old directory is removed once the new one is in its place."""
    if not (made.is_dir() and path.exists()):
        os.replace(made, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, old)
    try:
        os.replace(made, path)
    except OSError:
        os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def named_inside(directory: Path, name: Any, where: str | Path) -> Path:
    """The path of a file in a directory whose name a file gives, such as ``model.safetensors`` or ``trees/0-a.txt``.

    Args:
        where: the file that gives the name, for the message.

    Raises:
        InputError: not a plain name, or a place outside the directory.
    """
    parts = name.split("/") if isinstance(name, str) else [""]
    if not all(_PLAIN_NAME.fullmatch(part) for part in parts):
        raise InputError(f"{where}: names a file {brief(name)}; expected a plain name without .. or a leading /")
    return directory.joinpath(*parts)


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


def check_writable(out: Path) -> None:
    """Check before a training that a directory can be made and written to.

    Nothing is made yet: for a missing directory, its nearest existing parent is tried. So a command that is refused
    later leaves no empty directory behind.

    Raises:
        InputError: it cannot be made or written to.
    """
    place = out
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); expected a directory") from None
