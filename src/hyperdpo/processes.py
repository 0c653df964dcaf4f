"""Which process made a file or a lock, and whether it still runs.

A number alone does not tell: numbers are used again, and mean something else on another host or in another container.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import secrets
from pathlib import Path

#: The start of a process of which no more is known.
UNKNOWN = "00000000"
#: The part of a name that says which process made it: host, number, start, and a few random digits.
MARK = re.compile(r"([0-9a-f]{8})-(\d+)-([0-9a-f]{8})-[0-9a-f]{8}")


def mark() -> str:
    """A text for names: it says which process made them, and no two calls give the same, on any host."""
    return f"{_this_host()}-{os.getpid()}-{started(os.getpid())}-{secrets.token_hex(4)}"


def has_gone(marked: str) -> bool:
    """Whether a process of this host made a name with this :func:`mark`, and runs no more.

    False for one of another host: nothing here can tell.
    """
    found = MARK.fullmatch(marked)
    return found is not None and found[1] == _this_host() and not runs(int(found[2]), found[3])


def runs(number: int, start: str | None = None) -> bool:
    """Whether a process of this number runs on this host.

    Args:
        start: :func:`started` of the process that is meant; None: any of this number.
    """
    now = started(number)
    return now is not None and (start is None or start == now or UNKNOWN in (start, now))


def started(number: int) -> str | None:
    """What tells a process from a later one of the same number.

    Returns:
        Eight hexadecimal digits; :data:`UNKNOWN` where it runs, as far as the system tells; None where it does not.
    """
    if os.name != "posix":
        return UNKNOWN
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # of another user
    try:  # of Linux
        # The process's name, in parentheses, may hold anything.
        facts = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return UNKNOWN
    return None if facts[0] in (b"Z", b"X") else _short(f"{boot} {facts[19].decode()}")


def is_first_process() -> bool:
    """Whether this is the only process of a command, or the first one of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


@functools.cache
def _this_host() -> str:
    """A short hash of the host's name and, in a container, of what numbers mean there."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return _short(f"{platform.node()} {numbers}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
