"""Compile a guest in a process that can be ended: in this one, wasmtime's compiler heeds neither time nor memory."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, NoReturn

from greenctx.errors import InvalidProgram, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_MEMORY = 4 * 2**30
"""Bytes of address space in which a module is compiled."""

MIN_SIZE = 8192
"""Of a file. Smaller modules are compiled in this process: it takes longer to make another one."""


def compile_apart(load: Callable[[], object], name: str, seconds: float) -> None:
    """Load a program in a child, to see whether that is possible within the limits.

    The child leaves the compiled module in the cache, so that loading it here is quick. Without a cache it is compiled
    again, which takes as long as in the child. Only for a process without threads. Raises `TimeLimitExceeded`, and
    `InvalidProgram` if the memory is not enough. Whatever else is wrong is found once more when it is loaded here.
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
        ended, _, _ = select.select([reading], [], [], seconds)  # which has an end when the child has
        if not ended:
            raise TimeLimitExceeded(seconds)
        status = os.waitpid(child, 0)[1]
    finally:
        os.close(reading)
        if status is None:
            import signal  # which most runs do not need

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
        null = os.open(os.devnull, os.O_RDWR)  # wasmtime says something when it has no memory, and aborts
        for descriptor in range(3):
            os.dup2(null, descriptor)
        load()
        status = 0
    except InvalidProgram:
        status = 0
    finally:
        os._exit(status)
