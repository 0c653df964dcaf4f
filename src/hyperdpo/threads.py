"""The number of threads that a command computes with: one for each free core."""

from __future__ import annotations

import os

import click

from hyperdpo.errors import counted
from hyperdpo.progress import note

#: Users set it, and torch reads it: it takes precedence.
VARIABLE = "OMP_NUM_THREADS"
#: Key in a command's context: the number was already printed.
_TOLD = "hyperdpo.threads"


def available_cores() -> int:
    """The cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def load_average() -> float:
    """Mean number of processes that ran or waited in the last minute; 0 where the system does not report it."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return 0.0


def free_cores() -> int:
    """Available cores minus the load average, at least 1.

    Threads that share a core with another process wait for each other far longer than they work.
    """
    return max(1, available_cores() - round(load_average()))


def use_free_cores() -> None:
    """Let torch compute with :func:`free_cores` threads, and print that once per command.

    Commands call it just before they compute. It does nothing outside of a command, if ``OMP_NUM_THREADS`` is set, or
    with several processes.
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
