"""A lock on a directory that a command writes: two commands at one place would destroy each other's files.

The lock is a file. While its process lives, the operating system holds it (``fcntl``), also on shared disks that
support that. The file says which process it is, for a message and for disks without such locks.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from hyperdpo.errors import InputError
from hyperdpo.files import check_writable
from hyperdpo.processes import UNKNOWN, is_first_process, runs, started
from hyperdpo.progress import note

try:
    import fcntl
except ImportError:  # not on this operating system: the file alone has to do
    fcntl = None  # type: ignore[assignment]

P = ParamSpec("P")
T = TypeVar("T")

#: The lock's file, in the directory that it protects.
LOCK = ".hyperdpo.lock"
#: Seconds that a holder has to write its name into the file.
PATIENCE = 1.0

_mine: set[str] = set()  # a second file of the same lock in this process would end the first
_guard = threading.Lock()


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock."""

    host: str
    process: int
    started: str
    since: str

    @staticmethod
    def here() -> Holder:
        since = time.strftime("%Y-%m-%d %H:%M")
        return Holder(platform.node(), os.getpid(), started(os.getpid()) or UNKNOWN, since)

    @staticmethod
    def of(text: bytes) -> Holder | None:
        """What a file says; None where it is empty or says something else."""
        try:
            found = json.loads(text)
            return Holder(str(found["host"]), int(found["process"]), str(found["started"]), str(found["since"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} (since {self.since})"


def writes_to(name: str, *, beside: bool = False) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator for a command that writes a directory: it is locked while the command runs.

    Args:
        name: the command's argument that holds the path.
        beside: the directory is replaced as a whole, so the lock lies beside it.
    """

    def decorate(command: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(command)

        @functools.wraps(command)
        def locking(*args: P.args, **kwargs: P.kwargs) -> T:
            with locked(Path(signature.bind(*args, **kwargs).arguments[name]), beside=beside):
                return command(*args, **kwargs)

        return locking

    return decorate


@contextlib.contextmanager
def locked(out: Path, *, beside: bool = False) -> Iterator[None]:
    """Hold the lock of a path in a ``with`` block. Of the processes of one command, the first one does.

    A lock whose process on this host has gone is taken over, with a note. Afterwards the file is gone, and so are
    directories that were made for it and are empty.

    Args:
        beside: see :func:`writes_to`.

    Raises:
        InputError: another process holds it, one of another host may hold it, or no file can be made there.
    """
    if not is_first_process():
        yield
        return
    place = Path(os.path.realpath(out))
    check_writable(out.absolute().parent if beside else out)
    path = place.with_name(f".{place.name}.lock") if beside else place / LOCK
    missing = [one for one in path.parents if not one.exists()]
    try:
        number = _taken(path, out)
    except (OSError, InputError) as error:
        _remove_empty(missing)
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(number)
        with _guard:
            _mine.discard(str(path))
        _remove_empty(missing)


def _taken(path: Path, out: Path) -> int:
    """The open file of a lock, which is ours now."""
    with _guard:
        if str(path) in _mine:
            raise InputError(f"{out}: being written by this process; wait for it, or choose another place (--out)")
        _mine.add(str(path))
    try:
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the directory has just been removed
                if (number := _opened(path, out)) is not None:
                    return number
    except BaseException:
        with _guard:
            _mine.discard(str(path))
        raise


def _opened(path: Path, out: Path) -> int | None:
    """The file if the lock is ours now; None if another process removed it meanwhile.

    Raises:
        InputError: the lock is another process's.
    """
    try:
        number, is_new = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
    except FileExistsError:
        try:
            number, is_new = os.open(path, os.O_RDWR), False
        except FileNotFoundError:
            return None
    try:
        held = _held_by_the_system(number)
        if held is False:
            raise _refusal(out, _holder(number))
        if not _is_at(number, path):
            os.close(number)
            return None
        holder, here = _holder(number, wait=held is None and not is_new), Holder.here()
        if holder is not None:
            _check_gone(holder, path, out)
        elif held is None and not is_new:
            raise _refusal(out, None)
        os.ftruncate(number, 0)
        os.pwrite(number, json.dumps(asdict(here)).encode() + b"\n", 0)
        os.fsync(number)
        if holder is not None:
            if held is None:  # two that find the same lock left behind: the one that wrote last has it
                time.sleep(0.1)
                if (last := _holder(number)) != here:
                    raise _refusal(out, last)
            note(f"{out}: {holder} left its lock behind and runs no more; taken over")
        return number
    except BaseException:
        os.close(number)
        raise


def _held_by_the_system(number: int) -> bool | None:
    """Whether the operating system gives us the lock; None where it has none for this disk."""
    if fcntl is None:
        return None
    try:
        # Not flock: children that outlive a killed process would hold on to it.
        fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _holder(number: int, *, wait: bool = True) -> Holder | None:
    """Who holds a lock, by its open file. (To open it again and close that would end the system's lock.)"""
    end = time.monotonic() + (PATIENCE if wait else 0)
    while True:
        found = Holder.of(os.pread(number, 10_000, 0))
        if found is not None or time.monotonic() >= end:
            return found
        time.sleep(0.02)


def _check_gone(holder: Holder, path: Path, out: Path) -> None:
    """Refuse a lock whose process may still run."""
    if holder.host != platform.node():
        raise InputError(
            f"{out}: being written by {holder}, as far as this host can tell; wait for it, choose another place "
            f"(--out), or remove {path} if that process has ended"
        )
    if runs(holder.process, holder.started):
        raise _refusal(out, holder)


def _refusal(out: Path, holder: Holder | None) -> InputError:
    who = "another process" if holder is None else str(holder)
    return InputError(f"{out}: being written by {who}; wait for it, or choose another place (--out)")


def _is_at(number: int, path: Path) -> bool:
    """Whether an open file is the one at a path: the lock that it was may have been removed."""
    try:
        return os.path.samestat(os.fstat(number), os.stat(path))
    except FileNotFoundError:
        return False


def _remove_empty(directories: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for one in directories:
            one.rmdir()
