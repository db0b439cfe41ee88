"""WASI's ``poll_oneoff``: sleeping, and waiting for the standard streams, in a way that can be interrupted."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from greenctx._core.scope import current_context_id
from greenctx.errors import Deadlock
from greenctx.wasix._clock.waiting import wait_until_ready
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._files.pipes import ReadEnd, WriteEnd
from greenctx.wasix._files.stdio import Sink, Source
from greenctx.wasix._modules import abi
from greenctx.wasix._native._fiber import monotonic
from greenctx.wasix._syscalls.guest_memory import GuestMemory

if TYPE_CHECKING:
    from greenctx.wasix._clock.readiness import Wait
    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._files.descriptors import Descriptors
    from greenctx.wasix._files.wasmtime_wasi import WasmtimeWasi

MAX_SUBSCRIPTIONS = 65536  # as a system's poll refuses more than a process can have open

# subscription and event of WASI preview 1 (wasi/api.h)
_SUBSCRIPTION = Struct("<Q B7x I4x Q Q H6x")  # userdata, tag, clock id or fd, timeout, precision, flags
_EVENT = Struct("<Q H B5x Q H6x")  # userdata, error, type, nbytes, flags
_CLOCK, _FD_READ, _FD_WRITE = 0, 1, 2
_ABSOLUTE = 1
_HANGUP = 1  # the other end is closed
# Realtime and monotonic. No guest can wait for processor time, and in wasmtime's clock_time_get an unknown id traps.
_CLOCKS = (0, 1)
_STREAMS = {_FD_READ: Source, _FD_WRITE: Sink}


class _Subscription(NamedTuple):
    userdata: int
    tag: int
    subject: int
    timeout: int
    precision: int
    flags: int

    def event(self, error: int = abi.SUCCESS, size: int | None = None) -> bytes:
        """Encode the event. Of a pipe the size is known, and 0 once the other end is closed."""
        if size is None:  # how much can be read is not known, but something can
            return _EVENT.pack(self.userdata, error, self.tag, int(self.tag != _CLOCK and error == abi.SUCCESS), 0)
        return _EVENT.pack(self.userdata, error, self.tag, size, 0 if size else _HANGUP)


def poll_oneoff(
    wasi: WasmtimeWasi,
    descriptors: Descriptors,
    caller: Caller,
    subscriptions: int,
    events: int,
    count: int,
    result_pointer: int,
) -> int:
    """Wait until one of the subscriptions is ready; report all that are. Raises MemoryFault and OSError.

    Only other contexts could make a pipe ready, and they do not run meanwhile. So a wait for nothing but pipes that are
    not ready raises `Deadlock`.
    """
    memory = GuestMemory(caller)
    memory.check(subscriptions, count * _SUBSCRIPTION.size)
    if not 0 < count <= MAX_SUBSCRIPTIONS:
        return abi.INVAL
    data = memory.read(subscriptions, count * _SUBSCRIPTION.size)
    asked = [_Subscription(*fields) for fields in _SUBSCRIPTION.iter_unpack(data)]
    memory.check(events, count * _EVENT.size)
    memory.check(result_pointer, 4)
    if any(one.tag > _FD_WRITE or (one.tag == _CLOCK and one.flags > _ABSOLUTE) for one in asked):
        return abi.INVAL

    begin = monotonic()
    ready: list[bytes] = []
    clocks: list[tuple[float, _Subscription]] = []  # and the seconds to wait
    waits: list[tuple[Wait, _Subscription]] = []
    for one in asked:
        stream = descriptors.get(one.subject) if one.tag != _CLOCK else None
        if one.tag == _CLOCK:
            result = abi.INVAL
            if one.subject in _CLOCKS:
                result = wasi.call(caller, "clock_time_get", one.subject, 1, events)
            if result == abi.SUCCESS:
                # wasmtime's clocks begin anywhere, so an absolute time is compared with wasmtime's own clock.
                now = int.from_bytes(memory.read(events, 8), "little") if one.flags & _ABSOLUTE else 0
                clocks.append((max(0, one.timeout - now) / 1e9, one))
                continue
        elif stream is not None and not isinstance(stream, _STREAMS[one.tag]):
            result = abi.BADF
        elif isinstance(stream, ReadEnd | WriteEnd):
            if stream.ready is not None:
                ready.append(one.event(size=stream.ready))
            continue
        elif stream is not None and stream.descriptor is not None:
            waits.append(((stream.descriptor, one.tag == _FD_WRITE), one))
            continue
        elif stream is not None:
            result = abi.SUCCESS
        else:  # a file is always ready, unless it is not open
            result = wasi.call(caller, "fd_fdstat_get", one.subject, events)
        ready.append(one.event(result))

    if not (ready or clocks or waits):
        raise Deadlock(current_context_id(), "for a pipe")
    left = 0.0 if ready else min((seconds for seconds, _ in clocks), default=None)
    found = wait_until_ready(state_of(caller.store).deadline, left, {wait for wait, _ in waits})
    ready += [one.event() for wait, one in waits if wait in found]
    passed = monotonic() - begin
    if not ready and left is not None:
        passed = max(passed, left)  # rounding may tell less than was waited for
    ready += [one.event() for seconds, one in clocks if seconds <= passed]
    memory.write(events, b"".join(ready))
    memory.write_u32(result_pointer, len(ready))
    return abi.SUCCESS
