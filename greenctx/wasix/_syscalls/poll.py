"""WASI's ``poll_oneoff``: sleeping, and waiting for the standard streams, in a way that can be interrupted."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from greenctx._core.scope import current_context_id
from greenctx.errors import Deadlock
from greenctx.wasix._files.pipes import InMemory
from greenctx.wasix._files.stdio import Sink, Source
from greenctx.wasix._modules import abi
from greenctx.wasix._native._fiber import monotonic
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.of_wasix.timers import can_be_signalled, wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._files.descriptors import Descriptors
    from greenctx.wasix._files.wasmtime_wasi import WasmtimeWasi

T = TypeVar("T")

MAX_SUBSCRIPTIONS = 65536  # as a system's poll refuses more than a process can have open

# subscription and event of WASI preview 1 (wasi/api.h)
_SUBSCRIPTION = Struct("<Q B7x I4x Q Q H6x")  # userdata, tag, clock id or fd, timeout, precision, flags
_EVENT = Struct("<Q H B5x Q H6x")  # userdata, error, type, nbytes, flags
_CLOCK, _FD_READ, _FD_WRITE = 0, 1, 2
_ABSOLUTE = 1
_HANGUP = 1  # the other end is closed
# Realtime and monotonic. No guest can wait for processor time, and in wasmtime's clock_time_get an unknown id traps.
_CLOCKS = (0, 1)


class Subscription(NamedTuple):
    """What a guest waits for: that the time of a clock comes, or that a descriptor is ready."""

    userdata: int
    tag: int
    subject: int
    timeout: int
    precision: int
    flags: int

    def event(self, found: Found | None = None) -> bytes:
        """Encode the event. Of a pipe the size is known, and 0 once the other end is closed."""
        error, size = (abi.SUCCESS, 0) if found is None else (found.error, found.size)
        if size is None:  # how much can be read is not known, but something can
            size = int(error == abi.SUCCESS)
        hangs_up = found is not None and found.size == 0
        return _EVENT.pack(self.userdata, error, self.tag, size, _HANGUP if hangs_up else 0)


class Found:
    """What a guest finds when it reads from a descriptor, or writes to it: an error, or so many bytes, if known."""

    __slots__ = ("error", "size")

    def __init__(self, error: int = abi.SUCCESS, size: int | None = None) -> None:
        self.error = error
        self.size = size


Readiness = Found | tuple[int, bool] | None
"""Of a descriptor: it is ready, or the host has to be asked (a `Wait`), or only another context could make it ready."""


def readiness(file: Source | Sink, *, to_write: bool) -> Readiness:
    """Return whether a guest could read from the file, or write to it, without waiting."""
    if not isinstance(file, Sink if to_write else Source):
        return Found(abi.BADF)
    if isinstance(file, InMemory):
        size = file.writable() if to_write else file.readable()
        return None if size is None else Found(size=size)
    return Found() if file.descriptor is None else (file.descriptor, to_write)


def wait_until_found(caller: Caller, asked: Mapping[T, Readiness], seconds: float | None) -> dict[T, Found]:
    """Wait for so long, or without end, until one of those is ready; return all that are.

    Returns nothing when the time is over, and when a signal has come: then look at the descriptors again. Only other
    contexts could make a pipe ready, and they do not run meanwhile. So a wait without end for nothing but pipes raises
    `Deadlock`. Raises OSError.
    """
    found = {key: one for key, one in asked.items() if isinstance(one, Found)}
    waits = {key: one for key, one in asked.items() if isinstance(one, tuple)}
    if not found and not waits and seconds is None and not can_be_signalled(caller):
        raise Deadlock(current_context_id(), "for a pipe")
    ready = wait(caller, 0.0 if found else seconds, {*waits.values()})
    return found | {key: Found() for key, one in waits.items() if one in ready}


def poll_oneoff(
    wasi: WasmtimeWasi,
    descriptors: Descriptors,
    caller: Caller,
    subscriptions: int,
    events: int,
    count: int,
    result_pointer: int,
    layout: Struct = _SUBSCRIPTION,
    decode: Callable[..., Subscription] = Subscription,
) -> int:
    """Wait until one of the subscriptions is ready; report all that are. Raises as `wait_until_found`.

    A subscription is decoded from the fields of its layout.
    """
    memory = GuestMemory(caller)
    memory.check(subscriptions, count * layout.size)
    if not 0 < count <= MAX_SUBSCRIPTIONS:
        return abi.INVAL
    data = memory.read(subscriptions, count * layout.size)
    asked = [decode(*fields) for fields in layout.iter_unpack(data)]
    memory.check(events, count * _EVENT.size)
    memory.check(result_pointer, 4)
    if any(one.tag > _FD_WRITE or (one.tag == _CLOCK and one.flags > _ABSOLUTE) for one in asked):
        return abi.INVAL

    begin = monotonic()
    ready: list[bytes] = []
    clocks: list[tuple[float, Subscription]] = []  # and when their time has come
    for one in asked:
        if one.tag == _CLOCK:
            result = abi.INVAL
            if one.subject in _CLOCKS:
                result = wasi.call(caller, "clock_time_get", one.subject, 1, events)
            if result == abi.SUCCESS:
                # wasmtime's clocks begin anywhere, so an absolute time is compared with wasmtime's own clock.
                now = int.from_bytes(memory.read(events, 8), "little") if one.flags & _ABSOLUTE else 0
                clocks.append((begin + max(0, one.timeout - now) / 1e9, one))
            else:
                ready.append(one.event(Found(result)))
    while True:
        files: dict[int, Readiness] = {}
        for index, one in enumerate(asked):
            if one.tag == _CLOCK:
                continue
            file = descriptors.get(one.subject)
            if file is not None:
                files[index] = readiness(file, to_write=one.tag == _FD_WRITE)
            else:  # a file of wasmtime's is always ready, unless it is not open
                files[index] = Found(wasi.call(caller, "fd_fdstat_get", one.subject, events))
        left = 0.0 if ready else min((max(0.0, end - monotonic()) for end, _ in clocks), default=None)
        found = wait_until_found(caller, files, left)
        ready += [asked[index].event(one) for index, one in found.items()]
        passed = monotonic()
        ready += [one.event() for end, one in clocks if end <= passed]
        if ready:
            break
    memory.write(events, b"".join(ready))
    memory.write_u32(result_pointer, len(ready))
    return abi.SUCCESS
