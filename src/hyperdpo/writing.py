"""How every file and directory is written: under a temporary name, flushed, then renamed; so it is there whole or not.

All writers use :func:`written`, or what is built on it. A test looks for others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from hyperdpo.errors import InputError
from hyperdpo.processes import MARK, has_gone, mark

#: The name of what is being written, or replaced: the final name, and the process.
_LEFTOVER = re.compile(rf"\.(.+)\.({MARK.pattern.replace('(', '(?:')})\.(tmp|old)", re.DOTALL)
#: Bytes of a final name that fit into the name of a temporary file, of which most systems allow 255.
_LONGEST = 180
#: A number of the operating system in the message of a library, such as safetensors or tokenizers.
_SYSTEM_ERROR = re.compile(r"[oO]s error (\d+)|Os \{ code: (\d+)")
#: With fewer free bytes, a disk is full.
_FULL = 4096


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
