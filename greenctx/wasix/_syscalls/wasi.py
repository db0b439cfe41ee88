"""The WASI calls that greenctx serves itself: those that wait, those on standard streams, and ``proc_exit``.

wasmtime's own run on the guest's fiber, where neither Ctrl-C nor a time limit can end a wait. These run on the
context's greenlet. For files that wasmtime has opened they call wasmtime's, and from then on guests call it directly.
"""

from __future__ import annotations

import errno as host_errno
from struct import Struct
from typing import TYPE_CHECKING, Any, NoReturn

from greenctx.errors import GreenctxError, GuestExit
from greenctx.wasix._files.pipes import WriteEnd
from greenctx.wasix._files.stdio import Sink, Source
from greenctx.wasix._modules import abi
from greenctx.wasix._modules.exhaustion import check_resources
from greenctx.wasix._syscalls.descriptors import DescriptorCalls
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.of_wasix.clocks import ClockCalls
from greenctx.wasix._syscalls.of_wasix.timers import wait
from greenctx.wasix._syscalls.paths import PathCalls
from greenctx.wasix._syscalls.poll import poll_oneoff
from greenctx.wasix._syscalls.process import process_of
from greenctx.wasix._syscalls.signals import PIPE
from greenctx.wasix._syscalls.table import SystemCall, wasi_calls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenctx.wasix._clock.readiness import Wait
    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables

# The most bytes that one call reads or writes: a call may always do less than it was asked for.
MAX_BYTES = 1 << 20  # bytes
MAX_BUFFERS = 1024

_IOVEC = Struct("<I I")

_ERRNOS = {
    host_errno.EACCES: abi.ACCES,
    host_errno.EAGAIN: abi.AGAIN,
    host_errno.EBADF: abi.BADF,
    host_errno.ECONNRESET: abi.CONNRESET,
    host_errno.EFBIG: abi.FBIG,
    host_errno.EINVAL: abi.INVAL,
    host_errno.EISDIR: abi.ISDIR,
    host_errno.ENOSPC: abi.NOSPC,
    host_errno.EPERM: abi.PERM,
    host_errno.EPIPE: abi.PIPE,
}


def proc_exit(status: int) -> NoReturn:
    """Raise `GuestExit`, which unwinds the program. wasmtime's own refuses statuses of 126 and more."""
    raise GuestExit(status)


class WasiCalls:
    """The calls of one linker. Without standard streams, it leaves reading and writing to wasmtime."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors

    def calls(self) -> Iterator[SystemCall]:
        """Yield the calls that greenctx serves for every guest."""
        yield SystemCall(abi.WASI_MODULE, "proc_exit", "i32 ->", proc_exit, needs_caller=False)
        yield SystemCall(abi.WASI_MODULE, "poll_oneoff", "i32 i32 i32 i32 -> i32", self.poll_oneoff)
        yield from PathCalls(self._descriptors).calls()
        yield from DescriptorCalls(self._descriptors).calls()
        if self._descriptors.stdio is not None:
            yield from wasi_calls_of(self, "fd_read", "fd_write")

    def calls_for_wasix(self) -> Iterator[SystemCall]:
        """Yield the calls that differ once there are WASIX's calls about files. They take longer than wasmtime's."""
        if self._descriptors.stdio is not None:
            self._descriptors.has_duplicates = True
            yield from DescriptorCalls(self._descriptors).calls_with_pipes()
            yield from PathCalls(self._descriptors).calls_with_absolute_paths()
            yield from wasi_calls_of(ClockCalls(), "clock_res_get", "clock_time_get")

    def fd_read(self, caller: Caller, fd: int, iovecs: int, count: int, result_pointer: int) -> int:
        """Read from stdin, once it has something, or from a pipe. wasmtime reads from all other files."""
        source = self._descriptors.of(caller).get(fd)
        if source is None:
            return self._descriptors.call_wasmtime("fd_read", caller, fd, iovecs, count, result_pointer)
        if not isinstance(source, Source):
            return abi.BADF
        if source.direct >= 0:
            self._descriptors.read_or_write_directly(caller)
        memory = GuestMemory(caller)
        buffers = _buffers(memory, iovecs, count)
        memory.check(result_pointer, 4)
        wanted = sum(length for _, length in buffers)
        data: bytes | None = b""
        while wanted:
            if source.descriptor is not None and (failed := _wait(caller, (source.descriptor, False))):
                return failed
            try:
                data = source.read(wanted)
                break
            except OSError as error:
                if source.descriptor is None or not isinstance(error, BlockingIOError):  # another reader was quicker
                    return _errno(error)
        if data is None:
            return abi.AGAIN
        memory.write_u32(result_pointer, len(data))
        for start, length in buffers:
            memory.write(start, data[:length])
            data = data[length:]
        return abi.SUCCESS

    def fd_write(self, caller: Caller, fd: int, iovecs: int, count: int, result_pointer: int) -> int:
        """Write to stdout or stderr, once it takes something, or to a pipe. wasmtime writes to all other files."""
        sink = self._descriptors.of(caller).get(fd)
        if sink is None:
            return self._descriptors.call_wasmtime("fd_write", caller, fd, iovecs, count, result_pointer)
        if not isinstance(sink, Sink):
            return abi.BADF
        if sink.direct >= 0:
            self._descriptors.read_or_write_directly(caller)
        memory = GuestMemory(caller)
        data = b"".join(memory.read(start, length) for start, length in _buffers(memory, iovecs, count))
        memory.check(result_pointer, 4)
        written = failed = 0
        while written < len(data) and not failed:
            if sink.descriptor is not None and (failed := _wait(caller, (sink.descriptor, True))):
                break
            try:
                written += sink.write(data[written:]) or 0
            except OSError as error:
                if sink.descriptor is None or not isinstance(error, BlockingIOError):
                    failed = _errno(error)
            if sink.descriptor is None:  # nothing to wait for: the guest may try the rest
                break
        if failed and not written:
            if failed == abi.PIPE and isinstance(sink, WriteEnd):
                process_of(caller.store).signals.raise_(caller.store, PIPE)
            return failed
        if data and not written:
            return abi.AGAIN
        memory.write_u32(result_pointer, written)
        return abi.SUCCESS

    def poll_oneoff(
        self, caller: Caller, subscriptions: int, events: int, count: int, result_pointer: int, **layout: Any
    ) -> int:
        """Wait until a subscription is ready; report all ready ones."""
        process, descriptors = process_of(caller.store), self._descriptors.of(caller)
        try:
            return poll_oneoff(process, descriptors, caller, subscriptions, events, count, result_pointer, **layout)
        except OSError as error:
            if error.errno is None:
                raise
            return _errno(error)


def _wait(caller: Caller, wanted: Wait) -> int:
    """Wait until the descriptor can be read from, or written to; return an errno.

    An OSError without an errno is not the system's, and propagates unchanged: `TimeLimitExceeded`, or a TimeoutError
    that a signal's handler has raised.
    """
    try:
        while not wait(caller, None, [wanted]):
            pass  # a signal has come meanwhile
    except OSError as error:
        if error.errno is None:
            raise
        return _errno(error)
    return abi.SUCCESS


def _buffers(memory: GuestMemory, iovecs: int, count: int) -> list[tuple[int, int]]:
    """Return the address and length of each buffer: of the first ones, up to `MAX_BYTES` bytes together."""
    memory.check(iovecs, count * _IOVEC.size)
    left, buffers = MAX_BYTES, []
    for start, length in _IOVEC.iter_unpack(memory.read(iovecs, min(count, MAX_BUFFERS) * _IOVEC.size)):
        memory.check(start, length)
        buffers.append((start, min(length, left)))
        left -= buffers[-1][1]
    return buffers


def _errno(error: OSError) -> int:
    if isinstance(error, GreenctxError):  # `TimeLimitExceeded`, for one, is an OSError, too
        raise error
    check_resources(error)  # the host, not the guest, has too many files
    return _ERRNOS.get(error.errno or 0, abi.IO)
