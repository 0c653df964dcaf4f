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
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperdpo import checksums
from hyperdpo.errors import InputError, one_line
from hyperdpo.processes import MARK, has_gone, mark

if TYPE_CHECKING:
    import torch

#: The name of what is being written, or replaced: the final name, and the process.
_LEFTOVER = re.compile(rf"\.(.+)\.({MARK.pattern.replace('(', '(?:')})\.(tmp|old)", re.DOTALL)
#: Bytes of a final name that fit into the name of a temporary file, of which most systems allow 255.
_LONGEST = 180
#: A number of the operating system in the message of a library, such as safetensors or tokenizers.
_SYSTEM_ERROR = re.compile(r"[oO]s error (\d+)|Os \{ code: (\d+)")
#: With fewer free bytes, a disk is full.
_FULL = 4096


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write JSON, whole or not at all. NaN is refused.

    Args:
        sealed: with a checksum, which :func:`read_json` compares: for an object that this package reads back.
    """
    whole = {**value, checksums.KEY: checksums.ZEROS} if sealed else value
    content = json.dumps(whole, indent=2, allow_nan=False).encode() + b"\n"
    write_atomically(path, checksums.sealed(content, checksums.JSON_SEAL) if sealed else content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    if len(content) > 2**20 and not _is_device(path):
        check_space(path, len(content), "it")
    with written(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def written(path: Path, *, directory: bool = False) -> Iterator[Path]:
    """A temporary path to write to in a ``with`` block. At its end it is renamed to ``path``; if it fails, removed.

    What was written is on the disk before it is renamed. No two calls have the same temporary path, and what a killed
    process left beside ``path`` is removed. A link stays, and what it points to is replaced. A device or a pipe
    gets the content at the end.

    Args:
        directory: make a directory. One that exists already is replaced as a whole.

    Raises:
        InputError: it cannot be written.
    """
    shown = path
    device = not directory and _is_device(path)
    if device:
        path = Path(tempfile.gettempdir()) / path.name
    elif path.is_symlink():
        path = Path(os.path.realpath(path))
    temporary = _temporary(path)
    try:
        with writing(shown):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            if directory:
                temporary.mkdir()
            yield temporary
            if device:
                _send(temporary, shown)
            else:
                put(temporary, path)
    finally:
        _remove(temporary)


@contextlib.contextmanager
def written_into(directory: Path) -> Iterator[Path]:
    """A temporary directory in a ``with`` block; at its end, its files are renamed into ``directory``, each as a whole.

    Raises:
        InputError: one of them cannot be written.
    """
    temporary = _temporary(directory / "files")
    try:
        with writing(directory):
            temporary.mkdir(parents=True)
            remove_leftovers(directory)
            yield temporary
            for made in sorted(temporary.iterdir()):
                put(made, directory / made.name)
    finally:
        _remove(temporary)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the disk in a ``with`` block, and what libraries make of them, become one line.

    Raises:
        InputError: such an error.
    """
    try:
        yield
    except Exception as error:
        reason = _why_not_written(error, path)
        if reason is None:
            raise
        raise InputError(f"{path}: cannot be written ({reason})") from None


def put(made: Path, path: Path) -> None:
    """Rename what is finished, once it is on the disk; an old directory is removed when the new one is in its place.

    Raises:
        OSError: it is not on the disk, or cannot be renamed.
    """
    flush(made)
    if not (made.is_dir() and path.exists()):
        os.replace(made, path)
        _flush_names(path.parent)
        return
    old = path.with_name(f".{path.name}.{mark()}.old")
    os.replace(path, old)
    try:
        os.replace(made, path)
    except OSError:
        os.replace(old, path)
        raise
    _flush_names(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(directory: Path) -> None:
    """Remove what processes of this host that run no more were writing in a directory.

    A directory that one of them was about to replace gets its name back if it has no successor.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            found = _LEFTOVER.fullmatch(name)
            if found is None or not has_gone(found[2]):
                continue
            place, target = directory / name, directory / found[1]
            if found[3] == "old" and not os.path.lexists(target):
                os.replace(place, target)
            else:
                _remove(place)


def flush(path: Path) -> None:
    """See to it that a file, or all that is in a directory, is on the disk.

    Raises:
        OSError: it is not, and will not be.
    """
    for one in (path, *(sorted(path.rglob("*")) if path.is_dir() else ())):
        if one.is_dir():
            _flush_names(one)
        else:
            with open(one, "rb") as file:
                os.fsync(file.fileno())


def check_space(path: Path, needed: int, what: str) -> None:
    """Check before a long work that what it writes has room.

    Args:
        path: where it will be; it need not exist.
        needed: bytes, as far as can be told.
        what: is written, such as "the export".

    Raises:
        InputError: there is less room.
    """
    try:
        free = shutil.disk_usage(_existing(path)).free
    except OSError:
        return
    if free < needed:
        raise InputError(
            f"{path}: {what} needs about {_amount(needed)}, and {_amount(free)} are free; make room, or choose "
            "another place"
        )


def _amount(number: float) -> str:
    """A number of bytes."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _temporary(path: Path) -> Path:
    name = path.name if len(os.fsencode(path.name)) <= _LONGEST else path.name[:40]
    return path.with_name(f".{name}.{mark()}.tmp")


def _is_device(path: Path) -> bool:
    """Whether a path is a device, a pipe, or a name of this process's own open files: nothing can be renamed to it."""
    try:
        kind = os.stat(path).st_mode
    except OSError:
        return False
    own = path.absolute().is_relative_to("/proc") or (path.absolute().parent == Path("/dev") and path.is_symlink())
    return (own and not stat.S_ISDIR(kind)) or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))


def _send(made: Path, device: Path) -> None:
    with open(made, "rb") as source, open(device, "ab") as target:
        shutil.copyfileobj(source, target)


def _flush_names(directory: Path) -> None:
    """See to it that a directory's list of names is on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _why_not_written(error: Exception, place: Path) -> str | None:
    """Why something could not be written; None where the error is about something else.

    Libraries have errors of their own for a full disk, and some do not say that it is full.
    """
    if isinstance(error, InputError):
        return None
    if isinstance(error, OSError):
        return str(error.strerror or error)
    text = " ".join(str(error).split())
    if found := _SYSTEM_ERROR.search(text):
        return os.strerror(int(found[1] or found[2]))
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_existing(place)).free < _FULL:
            return os.strerror(errno.ENOSPC)
    return text if "file write failed" in text or "failed writing file" in text else None


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
    """As :func:`read_json`, and whether the file has a checksum.

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
        value = json.loads(content)
    except RecursionError:
        raise InputError(f"{path}: not valid JSON (brackets within brackets, too deep to read)") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are such; so is a number of 5,000 digits
        raise InputError(f"{path}: not valid JSON ({one_line(error)}); the file may be truncated") from None
    if intact is not None:
        del value[checksums.KEY]
    elif compare and isinstance(value, dict) and value and checksums.is_nearly_key(list(value)[-1]):
        raise checksums.damaged(path, remedy)
    return value, bool(intact)


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
        raise InputError(f"{path}: not valid YAML ({one_line(error)})") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML (brackets within brackets, too deep to read)") from None
    except (ValueError, TypeError, ArithmeticError, AttributeError) as error:  # a 13th month, a number of 5,000 digits
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


def check_writable(out: Path) -> None:
    """Check before a training that a directory can be made and written to.

    Nothing is made yet: for a missing directory, its nearest existing parent is tried. So a command that is refused
    later leaves no empty directory behind.

    Raises:
        InputError: it cannot be made or written to.
    """
    place = _existing(out)
    try:
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); expected a directory") from None


def _existing(path: Path) -> Path:
    """A path, or the nearest place above it that exists."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path
