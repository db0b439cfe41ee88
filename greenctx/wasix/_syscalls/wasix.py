"""WASIX's calls besides contexts, as far as programs of its toolchain import them: signals, locks, files, the process.

A guest has one thread here, and there is no other process. Where that leaves nothing to do, a call does nothing. A wait
that nothing could ever end raises `Deadlock`.
"""

from __future__ import annotations

from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, NoReturn

from greenctx._core.scope import current_context_id
from greenctx.errors import Deadlock
from greenctx.wasix._modules import abi
from greenctx.wasix._native._fiber import monotonic
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.of_wasix.files import FILE_TYPES, FileCalls
from greenctx.wasix._syscalls.of_wasix.timers import can_be_signalled, wait
from greenctx.wasix._syscalls.of_wasix.types import pointers_as
from greenctx.wasix._syscalls.process import process_of
from greenctx.wasix._syscalls.table import SystemCall, calls_of
from greenctx.wasix._syscalls.wasi import proc_exit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables

PROCESS_ID = 1
"""The process id of every program, because each is alone; and the id of its thread."""

_FALSE, _TRUE = b"\0", b"\1"
_TIMEOUT = Struct("<B 7x Q")  # option_timestamp (wasi/api_wasix.h): 1 if there is a timeout, nanoseconds

SHARED_TYPES = {
    "callback_signal": "p p ->",
    "futex_wait": "p i32 p p -> i32",
    "futex_wake": "p p -> i32",
    "futex_wake_all": "p p -> i32",
    "proc_id": "p -> i32",
    "proc_signals_get": "p -> i32",
    "proc_signals_sizes_get": "p -> i32",
    "thread_signal": "i32 i32 -> i32",
}
"""The calls whose data in memory are the same for 32 and 64 bits. ``p`` is a pointer or a size."""


def thread_exit(_: int) -> NoReturn:
    """End the only thread, and with it the program, whose status is 0 then. (WASIX ignores the argument.)"""
    proc_exit(abi.SUCCESS)


class WasixCalls:
    """The calls of one linker."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors
        self._files = FileCalls(descriptors)

    def calls(self, *, files: bool) -> Iterator[SystemCall]:
        """Yield the calls: with ``files``, those about files as well."""
        types = {name: pointers_as(abi.WASIX_MODULE, ty) for name, ty in SHARED_TYPES.items()}
        yield from calls_of(self, abi.WASIX_MODULE, types)
        if files:
            yield from calls_of(self._files, abi.WASIX_MODULE, FILE_TYPES)
        yield SystemCall(abi.WASIX_MODULE, "proc_exit2", "i32 ->", proc_exit, needs_caller=False)
        yield SystemCall(abi.WASIX_MODULE, "thread_exit", "i32 ->", thread_exit, needs_caller=False)
        yield SystemCall(abi.THREADS_MODULE, "thread-spawn", "i32 -> i32", lambda _: -abi.AGAIN, needs_caller=False)

    # Start-up and signals. Each store is one process.

    def proc_signals_sizes_get(self, caller: Caller, result_pointer: int) -> int:
        """Store for how many signals the host sets the guest's disposition: none.

        Every program of WASIX's libc begins with this call, so it tells them from WASI's programs.
        """
        self._descriptors.of(caller).copies = True
        GuestMemory(caller).write_u32(result_pointer, 0)
        return abi.SUCCESS

    def proc_signals_get(self, _: Caller, __: int) -> int:
        """Store these dispositions: none."""
        return abi.SUCCESS

    def proc_id(self, caller: Caller, result_pointer: int) -> int:
        """Store the id of the process."""
        GuestMemory(caller).write_u32(result_pointer, PROCESS_ID)
        return abi.SUCCESS

    def callback_signal(self, caller: Caller, name: int, length: int) -> None:
        """Set which exported function is called for signals. While there is no such function, signals wait."""
        signals = process_of(caller.store).signals
        with suppress(UnicodeDecodeError):  # then the handler stays as it was
            signals.name_handler(caller, GuestMemory(caller).read_path(name, length).decode())
        signals.deliver(caller.store)

    def thread_signal(self, caller: Caller, _: int, signal: int) -> int:
        """Raise a signal in the only thread: in the running context."""
        return process_of(caller.store).signals.raise_(caller.store, signal)

    # Locks. A context that waits keeps the only thread, so no other context can unlock.

    def futex_wait(self, caller: Caller, futex: int, expected: int, timeout: int, result_pointer: int) -> int:
        """Wait while the futex has the expected value; store whether the wait ended otherwise than by its timeout.

        WASIX's libc traps on any errno, so both another value and the timeout return success.
        """
        memory = GuestMemory(caller)
        has_timeout, nanoseconds = _TIMEOUT.unpack(memory.read(timeout, _TIMEOUT.size))
        until = monotonic() + nanoseconds / 1e9 if has_timeout == 1 else None
        memory.check(futex, 4)
        memory.check(result_pointer, 1)
        while memory.read_u32(futex) == expected:
            if until is None and not can_be_signalled(caller):
                raise Deadlock(current_context_id(), f"for the lock or condition at {futex:#x}")
            wait(caller, None if until is None else max(0.0, until - monotonic()))
            if until is not None and monotonic() >= until:
                memory.write(result_pointer, _FALSE)
                return abi.SUCCESS
        memory.write(result_pointer, _TRUE)
        return abi.SUCCESS

    def futex_wake(self, caller: Caller, _: int, result_pointer: int) -> int:
        """Wake a context that waits; store whether there was one: never."""
        GuestMemory(caller).write(result_pointer, _FALSE)
        return abi.SUCCESS

    futex_wake_all = futex_wake
