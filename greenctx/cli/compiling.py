"""Compile a guest in a child process, which can be ended: wasmtime's compiler heeds no limit of time or memory."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, NoReturn

from greenctx.errors import InvalidProgram, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_MEMORY = 4 * 2**30
"""The address space of the child process, in bytes."""

MIN_SIZE = 8192
"""Of a file, in bytes. Smaller modules are compiled in this process, because making a child takes longer."""


def compile_apart(load: Callable[[], object], name: str, seconds: float) -> None:
    """Load a program in a child process, to check that loading stays within the limits.

    The child leaves the compiled module in the cache, so that loading it here is quick. Without a cache it is compiled
    again, which takes as long as in the child. Only for a process without threads. Raises `TimeLimitExceeded`, and
    `InvalidProgram` if the memory is not enough. Loading the program here raises every other error.
    """
    try:
        if not hasattr(os, "fork") or os.stat(name).st_size < MIN_SIZE:
            return
    except (OSError, ValueError):
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _load_and_exit(load)
    status = None
    try:
        os.close(writing)
        ended, _, _ = select.select([reading], [], [], seconds)  # the pipe ends when the child does
        if not ended:
            raise TimeLimitExceeded(seconds)
        status = os.waitpid(child, 0)[1]
    finally:
        os.close(reading)
        if status is None:
            import signal  # needed by few runs

            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    if status:
        raise InvalidProgram(name, f"it cannot be compiled within {MAX_MEMORY >> 30} GiB of memory")


def _load_and_exit(load: Callable[[], object]) -> NoReturn:
    status = 1
    try:
        import resource
        import signal

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDWR)  # without memory wasmtime prints a message and aborts
        for descriptor in range(3):
            os.dup2(null, descriptor)
        load()
        status = 0
    except InvalidProgram:
        status = 0
    finally:
        os._exit(status)
