"""The WASI calls that are done here: those that wait, those on redirected stdio, and ``proc_exit``.

wasmtime's own run on the guest's fiber, where neither Ctrl-C nor a time limit can end a wait, and no other context's
host code could decide how to wait. These run on the context's greenlet. They hand on to wasmtime's what is not theirs.
"""

from __future__ import annotations

import errno as host_errno
from struct import Struct
from typing import TYPE_CHECKING, NoReturn

from wasmtime import FuncType, ValType

from greenctx.errors import GuestExit, TimeLimitExceeded
from greenctx.wasix import abi
from greenctx.wasix.memory import GuestMemory, MemoryFault
from greenctx.wasix.native_wasi import NativeWasi
from greenctx.wasix.stdio import Stdio
from greenctx.wasix.stores import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Engine

    from greenctx.wasix.stores import Caller

# Of one call, however much memory its arguments name: reading and writing may always do less than was asked for.
MOST_AT_ONCE = 1 << 20  # bytes
MOST_BUFFERS = 1024

# iovec, subscription and event of WASI preview 1 (wasi/api.h)
_IOVEC = Struct("<I I")
_SUBSCRIPTION = Struct("<Q B7x I4x Q Q H6x")  # userdata, tag, clock id or fd, timeout, precision, flags
_EVENT = Struct("<Q H B5x Q H6x")  # userdata, error, type, nbytes, flags
_CLOCK, _FD_READ = 0, 1
_ABSOLUTE = 1

_PARAMETERS = {"poll_oneoff": 4, "fd_read": 4, "fd_write": 4, "fd_close": 1, "fd_renumber": 2}


def proc_exit(status: int) -> NoReturn:
    """Unwind everything up to whoever runs the program. (wasmtime's refuses statuses of 126 and more.)"""
    raise GuestExit(status & abi.U32_MASK)


class WasiCalls:
    """Host functions for one linker."""

    def __init__(self, engine: Engine, stdio: Stdio | None) -> None:
        """Without ``stdio``, reading and writing is left to wasmtime."""
        self._native = NativeWasi(engine)
        self._stdio = Stdio(stdin=b"") if stdio is None else stdio
        self._names = ["poll_oneoff"] if stdio is None else [*_PARAMETERS]

    def define(self, define_func: Callable[..., None]) -> None:
        """Define the functions with a linker's ``define_func``."""
        i32 = ValType.i32()
        for name in self._names:
            ty = FuncType([i32] * _PARAMETERS[name], [i32])
            define_func(abi.WASI_MODULE, name, ty, getattr(self, name), access_caller=True)
        define_func(abi.WASI_MODULE, "proc_exit", FuncType([i32], []), proc_exit)

    def fd_read(self, caller: Caller, fd: int, iovecs: int, count: int, stored: int) -> int:
        """Read from stdin when it has something; from anything else as wasmtime does."""
        native = self._native.of(caller)
        source = self._stdio.source(native.stdio_of(fd))
        if source is None:
            return native.call(caller, "fd_read", fd, iovecs, count, stored)
        try:
            memory = GuestMemory(caller)
            buffers = _buffers(memory, iovecs, count)
            memory.check(stored, 4)
        except MemoryFault:
            return abi.FAULT
        data = b""
        if wanted := sum(length for _, length in buffers):
            try:
                if source.descriptor is not None:
                    state_of(caller.store).time_limit.wait(None, source.descriptor)
                data = source.read(wanted)
            except TimeLimitExceeded:  # which is an OSError, as every TimeoutError
                raise
            except OSError as error:
                return _errno(error)
        memory.write_u32(stored, len(data))
        for start, length in buffers:
            memory.write(start, data[:length])
            data = data[length:]
        return abi.SUCCESS

    def fd_write(self, caller: Caller, fd: int, iovecs: int, count: int, stored: int) -> int:
        """Write to redirected stdout or stderr; to anything else as wasmtime does."""
        native = self._native.of(caller)
        sink = self._stdio.sink(native.stdio_of(fd))
        if sink is None:
            return native.call(caller, "fd_write", fd, iovecs, count, stored)
        try:
            memory = GuestMemory(caller)
            data = b"".join(memory.read(start, length) for start, length in _buffers(memory, iovecs, count))
            memory.check(stored, 4)
        except MemoryFault:
            return abi.FAULT
        try:
            sink.write(data)
        except OSError as error:
            return _errno(error)
        memory.write_u32(stored, len(data))
        return abi.SUCCESS

    def fd_close(self, caller: Caller, fd: int) -> int:
        native = self._native.of(caller)
        result = native.call(caller, "fd_close", fd)
        if result == abi.SUCCESS:
            native.stdio.pop(fd, None)
        return result

    def fd_renumber(self, caller: Caller, fd: int, to: int) -> int:
        native = self._native.of(caller)
        result = native.call(caller, "fd_renumber", fd, to)
        if result == abi.SUCCESS and fd != to:
            moved = native.stdio.pop(fd, None)
            native.stdio.pop(to, None)
            if moved is not None:
                native.stdio[to] = moved
        return result

    def poll_oneoff(self, caller: Caller, subscriptions: int, events: int, count: int, stored: int) -> int:
        """Wait until one of the subscriptions is ready; report all that are."""
        count &= abi.U32_MASK
        if count == 0:
            return abi.INVAL
        native = self._native.of(caller)
        try:
            memory = GuestMemory(caller)
            asked = _SUBSCRIPTION.iter_unpack(memory.read(subscriptions, count * _SUBSCRIPTION.size))
            memory.check(events, count * _EVENT.size)
            memory.check(stored, 4)
        except MemoryFault:
            return abi.FAULT
        ready: list[bytes] = []
        clocks: list[tuple[float, int]] = []  # seconds to wait, userdata
        readers: dict[int, list[int]] = {}  # userdata by the host's file descriptor
        for userdata, tag, subject, timeout, _, flags in asked:
            if tag == _CLOCK:
                result = native.call(caller, "clock_time_get", subject, 1, events)
                if result == abi.SUCCESS:
                    # wasmtime's clocks begin when they like, so the guest's times mean something only beside theirs.
                    now = int.from_bytes(memory.read(events, 8), "little") if flags & _ABSOLUTE else 0
                    clocks.append((max(0, timeout - now) / 1e9, userdata))
                    continue
            else:
                source = self._stdio.source(native.stdio_of(subject)) if tag == _FD_READ else None
                if source is not None and source.descriptor is not None:
                    readers.setdefault(source.descriptor, []).append(userdata)
                    continue
                # Files are always ready, unless there is no such file.
                result = native.call(caller, "fd_fdstat_get", subject, events)
            ready.append(_EVENT.pack(userdata, result, tag, int(tag != _CLOCK and result == abi.SUCCESS), 0))
        left = 0.0 if ready else min((seconds for seconds, _ in clocks), default=None)
        try:
            readable = state_of(caller.store).time_limit.wait(left, *readers)
        except TimeLimitExceeded:
            raise
        except OSError as error:
            return _errno(error)
        for descriptor in readable:
            ready += [_EVENT.pack(userdata, abi.SUCCESS, _FD_READ, 1, 0) for userdata in readers[descriptor]]
        if not readable and left is not None:
            over = [userdata for seconds, userdata in clocks if seconds <= left]
            ready += [_EVENT.pack(userdata, abi.SUCCESS, _CLOCK, 0, 0) for userdata in over]
        memory.write(events, b"".join(ready))
        memory.write_u32(stored, len(ready))
        return abi.SUCCESS


def _buffers(memory: GuestMemory, iovecs: int, count: int) -> list[tuple[int, int]]:
    """The address and length of each buffer, all within the memory: the first ones, `MOST_AT_ONCE` bytes at most."""
    count &= abi.U32_MASK
    memory.check(iovecs, count * _IOVEC.size)
    left, buffers = MOST_AT_ONCE, []
    for start, length in _IOVEC.iter_unpack(memory.read(iovecs, min(count, MOST_BUFFERS) * _IOVEC.size)):
        memory.check(start, length)
        buffers.append((start, min(length, left)))
        left -= buffers[-1][1]
    return buffers


def _errno(error: OSError) -> int:
    return {host_errno.EBADF: abi.BADF, host_errno.EPIPE: abi.PIPE, host_errno.ENOSPC: abi.NOSPC}.get(
        error.errno or 0, abi.IO
    )
