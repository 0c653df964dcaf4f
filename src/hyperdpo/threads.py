"""How many threads a command computes with: those cores that nobody else uses."""

from __future__ import annotations

import os

import click

from hyperdpo.errors import counted
from hyperdpo.progress import note

#: Set by users, and read by torch itself: it wins.
VARIABLE = "OMP_NUM_THREADS"
#: Key of a command's context: it was said.
_TOLD = "hyperdpo.threads"


def available_cores() -> int:
    """The cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def load_average() -> float:
    """Processes that ran or waited during the last minute, on average; 0 where the system does not say."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def free_cores() -> int:
    """Available cores minus the load average, at least 1: threads that share a core with another process wait for each
    other far longer than they work."""
    return max(1, available_cores() - round(load_average()))


def use_free_cores() -> None:
    """Let torch compute with :func:`free_cores` threads, and say so once per command.

    For commands, just before they compute. Nothing is changed from Python, where ``OMP_NUM_THREADS`` is set, and where
    several processes share the machine.
    """
    context = click.get_current_context(silent=True)
    if context is None or os.environ.get(VARIABLE) or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    meta = context.find_root().meta
    if _TOLD in meta:
        return
    import torch

    number, cores = free_cores(), available_cores()
    torch.set_num_threads(number)
    meta[_TOLD] = number
    note(
        f"{counted(number, 'thread')} ({counted(cores, 'core')}, load "
        f"{load_average():.1f}); {VARIABLE} sets another number"
    )
