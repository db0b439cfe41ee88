"""WASIX's calls about threads and processes, as far as a program with one thread, and no other process, can be served.

Old programs use thread locals of the host. These are here in the form in which a program that starts no threads needs
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Trap

from greenctx.wasix._modules import abi
from greenctx.wasix._native._fiber import monotonic
from greenctx.wasix._syscalls.guest_memory import GuestMemory, MemoryFault
from greenctx.wasix._syscalls.of_wasix.timers import wait
from greenctx.wasix._syscalls.process import process_of
from greenctx.wasix._syscalls.signals import MAX_SIGNAL
from greenctx.wasix._syscalls.wasix import PROCESS_ID

if TYPE_CHECKING:
    from greenctx.wasix._fibers.stores import Caller

PARENT_ID = 0
"""The parent's id in a program without a parent, as in Wasmer."""

MAX_THREAD_LOCALS = 4096

_TRUE = 1  # bool (wasi/api_wasix.h)

LONE_PROCESS_TYPES = {
    "callback_reactor": "p p ->",
    "callback_thread": "p p ->",
    "callback_thread_local_destroy": "p p ->",
    "proc_parent": "i32 p -> i32",
    "proc_raise": "i32 -> i32",
    "proc_raise_interval": "i32 i64 i32 -> i32",
    "proc_signal": "i32 i32 -> i32",
    "stack_checkpoint": "p p -> i32",
    "stack_restore": "p i64 ->",
    "thread_id": "p -> i32",
    "thread_local_create": "i64 p -> i32",
    "thread_local_destroy": "i32 -> i32",
    "thread_local_get": "i32 p -> i32",
    "thread_local_set": "i32 i64 -> i32",
    "thread_parallelism": "p -> i32",
    "thread_sleep": "i64 -> i32",
}


class LoneProcessCalls:
    """Host functions for any linker. ``p`` in their types is a pointer."""

    def thread_id(self, caller: Caller, result_pointer: int) -> int:
        """Store the id of the thread."""
        GuestMemory(caller).write_u32(result_pointer, PROCESS_ID)
        return abi.SUCCESS

    def thread_parallelism(self, caller: Caller, result_pointer: int) -> int:
        """Store how many threads can run at one time."""
        GuestMemory(caller).write_u32(result_pointer, 1)
        return abi.SUCCESS

    def thread_sleep(self, caller: Caller, nanoseconds: int) -> int:
        """Sleep. All contexts do, because they share the thread."""
        until = monotonic() + nanoseconds / 1e9
        wait(caller, nanoseconds / 1e9)
        while (left := until - monotonic()) > 0:  # a signal has come meanwhile
            wait(caller, left)
        return abi.SUCCESS

    # Thread locals: one value of each, because there is one thread. Contexts share the values.

    def thread_local_create(self, caller: Caller, _: int, result_pointer: int) -> int:
        """Create a thread local; store its key. Its value is 0."""
        values = process_of(caller.store).thread_locals
        if len(values) >= MAX_THREAD_LOCALS:
            return abi.AGAIN
        key = next(key for key in range(1, MAX_THREAD_LOCALS + 1) if key not in values)
        GuestMemory(caller).write_u32(result_pointer, key)
        values[key] = 0
        return abi.SUCCESS

    def thread_local_destroy(self, caller: Caller, key: int) -> int:
        """Destroy a thread local. As in POSIX, nothing is called with the last value."""
        return abi.SUCCESS if process_of(caller.store).thread_locals.pop(key, None) is not None else abi.INVAL

    def thread_local_get(self, caller: Caller, key: int, result_pointer: int) -> int:
        """Store the value of a thread local: 0 for an unknown one, as in POSIX."""
        GuestMemory(caller).write_u64(result_pointer, process_of(caller.store).thread_locals.get(key, 0))
        return abi.SUCCESS

    def thread_local_set(self, caller: Caller, key: int, value: int) -> int:
        """Set the value of a thread local."""
        values = process_of(caller.store).thread_locals
        if key not in values:
            return abi.INVAL
        values[key] = value
        return abi.SUCCESS

    def callback_thread(self, _: Caller, __: int, ___: int) -> None:
        """Do nothing: the function of that name would be called in new threads, which do not exist."""

    callback_reactor = callback_thread_local_destroy = callback_thread

    # Processes.

    def proc_join(self, _: Caller, *__: int) -> int:
        """Wait for a child, in any version of the call: there is no child."""
        return abi.CHILD

    def proc_parent(self, caller: Caller, process_id: int, result_pointer: int) -> int:
        """Store the id of a process's parent."""
        if process_id != PROCESS_ID:
            return abi.BADF
        GuestMemory(caller).write_u32(result_pointer, PARENT_ID)
        return abi.SUCCESS

    def proc_raise(self, caller: Caller, signal: int) -> int:
        """Raise a signal in the running context."""
        return process_of(caller.store).signals.raise_(caller.store, signal)

    def proc_raise_interval(self, caller: Caller, signal: int, nanoseconds: int, repeats: int) -> int:
        """Have a signal raised after that time, in whatever context runs then: once or, if it repeats, again and again.

        No time: not any more. (WASI's type and WASIX's libc have nanoseconds here; Wasmer has milliseconds.)
        """
        if signal > MAX_SIGNAL:
            return abi.INVAL
        process_of(caller.store).timers.set(caller, signal, nanoseconds / 1e9, repeats=repeats == _TRUE)
        return abi.SUCCESS

    def proc_signal(self, caller: Caller, process_id: int, signal: int) -> int:
        """Send a signal to a process: to itself, because there is no other."""
        return self.proc_raise(caller, signal) if process_id == PROCESS_ID else abi.SRCH

    # setjmp and longjmp of programs that Asyncify has changed.

    def stack_checkpoint(self, caller: Caller, snapshot: int, result_pointer: int) -> int:
        """Return from ``setjmp``: the first time with 0, and once more for each restore, with its value."""
        return process_of(caller.store).checkpoints.checkpoint(caller, snapshot, result_pointer)

    def stack_restore(self, caller: Caller, snapshot: int, value: int) -> None:
        """Return from ``setjmp`` once more. This cannot report an error, so what cannot be done is a trap."""
        try:
            process_of(caller.store).checkpoints.restore(caller, snapshot, value)
        except MemoryFault as error:
            raise Trap("the guest called stack_restore (longjmp) with a pointer to outside its memory") from error
