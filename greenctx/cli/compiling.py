"""Compile a guest in a process that can be ended: in this one, wasmtime's compiler heeds neither time nor memory."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from greenctx.errors import InvalidProgram, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_MEMORY = 4 * 2**30
"""Bytes of address space in which a module is compiled."""

MIN_SIZE = 256
"""Of a module, in bytes. Smaller ones are compiled in this process: it takes longer to make another one.

A function of ten bytes can declare 50,000 locals, which take ten milliseconds to compile.
"""


def compile_apart(work: Callable[[], T], name: str, size: int, seconds: float | None) -> T | None:
    """Do work that compiles a module of that size in a child, within the limits; return the result of the work.

    Return None where the work has to be done here instead: where the module is small, the system has no fork, or the
    work raises `InvalidProgram` or ImportError. Only for a process without threads. Raises `TimeLimitExceeded`, and
    `InvalidProgram` if the memory is not enough.
    """
    if not hasattr(os, "fork") or size < MIN_SIZE:
        return None
    result, result_of_child = os.pipe()
    parent_lives, writing = os.pipe()  # nothing is written: the child hears when the parent's end is closed
    child = os.fork()
    if child == 0:
        os.close(writing)
        _work_and_exit(work, result_of_child, parent_lives)
    status = None
    try:
        os.close(parent_lives)
        os.close(result_of_child)
        data = _read_to_the_end(result, seconds)  # which has an end when the child has
        status = os.waitpid(child, 0)[1]
    finally:
        os.close(result)
        if status is None:
            import signal  # which most runs do not need

            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(writing)
    if status:
        raise InvalidProgram(name, f"it cannot be compiled within {MAX_MEMORY >> 30} GiB of memory")
    if not data:
        return None
    import pickle

    return cast("T", pickle.loads(data))


def _read_to_the_end(descriptor: int, seconds: float | None) -> bytes:
    ends_at = None if seconds is None else time.monotonic() + seconds
    data = bytearray()
    while select.select([descriptor], [], [], None if ends_at is None else max(0.0, ends_at - time.monotonic()))[0]:
        part = os.read(descriptor, 65536)
        if not part:
            return bytes(data)
        data += part
    raise TimeLimitExceeded(seconds or 0.0)


def _work_and_exit(work: Callable[[], object], result: int, parent_lives: int) -> NoReturn:
    status = 1
    try:
        import resource
        import signal
        from fcntl import F_SETFL, F_SETOWN, fcntl

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        # SIGIO, which ends a process, comes when the parent has ended. Nothing else would end the compiler then.
        with suppress(OSError):  # not every system has it for pipes
            fcntl(parent_lives, F_SETOWN, os.getpid())
            fcntl(parent_lives, F_SETFL, os.O_ASYNC)
        if select.select([parent_lives], [], [], 0)[0]:
            os._exit(status)
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDWR)  # wasmtime says something when it has no memory, and aborts
        for descriptor in range(3):
            os.dup2(null, descriptor)
        returned = work()
        if returned is not None:
            import pickle

            with os.fdopen(result, "wb") as file:
                pickle.dump(returned, file)
        status = 0
    except (InvalidProgram, ImportError):
        status = 0
    finally:
        os._exit(status)
