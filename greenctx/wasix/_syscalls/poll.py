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
    from greenctx.wasix._syscalls.process import Process

T = TypeVar("T")

MAX_SUBSCRIPTIONS = 65536  # as a system's poll refuses more than a process can have open

# subscription and event of WASI preview 1 (wasi/api.h)
_SUBSCRIPTION = Struct("<Q B7x I4x Q Q H6x")  # userdata, tag, clock id or fd, timeout, precision, flags
_EVENT = Struct("<Q H B5x Q H6x")  # userdata, error, type, nbytes, flags
_CLOCK, _FD_READ, _FD_WRITE = 0, 1, 2
_ABSOLUTE = 1
_HANGUP = 1  # the other end is closed, or nothing more can be read
_CLOCKS = (0, 1)  # realtime and monotonic: no guest can wait for processor time
_READ, _WRITE = 1 << 1, 1 << 6  # rights
_RIGHTS, _SIZE = 8, 32  # the offsets of the rights in an fdstat, and of the size in a filestat


class Subscription(NamedTuple):
    """A subscription: the guest waits for the time of a clock, or for a ready descriptor."""

    userdata: int
    tag: int
    subject: int
    timeout: int
    precision: int
    flags: int

    def event(self, found: Found | None = None) -> bytes:
        """Encode the event, of a clock if nothing was found."""
        if found is None:
            return _EVENT.pack(self.userdata, abi.SUCCESS, self.tag, 0, 0)
        size = found.size
        if size is None:  # how much is not known, but something is there
            size = int(found.error == abi.SUCCESS)
        return _EVENT.pack(self.userdata, found.error, self.tag, size, _HANGUP if found.is_end else 0)


class Found:
    """The state of a descriptor for a read or write: an error, or so many bytes, if known.

    ``is_end``: the other end of a pipe is closed, or the file is at its end.
    """

    __slots__ = ("error", "is_end", "size")

    def __init__(self, error: int = abi.SUCCESS, size: int | None = None, *, is_end: bool = False) -> None:
        self.error = error
        self.size = size
        self.is_end = is_end or size == 0


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
    """Wait for so long, or without end, until a descriptor is ready; return all ready ones.

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


def readiness_in_wasmtime(process: Process, caller: Caller, fd: int, *, to_write: bool) -> Found:
    """Return the state of one of wasmtime's descriptors: a file is always ready, a directory EBADF, as in wasmtime."""
    scratch = process.scratch(caller)

    def ask(name: str, address: int) -> int | None:
        """Return the number at that address of what wasmtime stores, or None for an error."""
        if scratch.call(caller, name, fd, 0):
            return None
        return int.from_bytes(scratch.get(caller, address, 8), "little")

    place = ask("fd_tell", 0)
    if place is not None:
        size = ask("fd_filestat_get", _SIZE)
        return Found(is_end=not to_write and size is not None and size <= place)
    if scratch.call(caller, "fd_tell", fd, 0) == abi.SPIPE:  # a standard stream that wasmtime serves
        rights = ask("fd_fdstat_get", _RIGHTS) or 0
        if rights & (_WRITE if to_write else _READ):
            return Found()
    return Found(abi.BADF)


def poll_oneoff(
    process: Process,
    descriptors: Descriptors,
    caller: Caller,
    subscriptions: int,
    events: int,
    count: int,
    result_pointer: int,
    layout: Struct = _SUBSCRIPTION,
    decode: Callable[..., Subscription] = Subscription,
) -> int:
    """Wait until a subscription is ready; report all ready ones. Raises as `wait_until_found`.

    As in wasmtime, the first wrong subscription fails the whole call. ``layout`` and ``decode`` are those of the
    subscriptions.
    """
    memory = GuestMemory(caller)
    memory.check(subscriptions, count * layout.size)
    if not 0 < count <= MAX_SUBSCRIPTIONS:
        return abi.INVAL
    data = memory.read(subscriptions, count * layout.size)
    asked = [decode(*fields) for fields in layout.iter_unpack(data)]
    memory.check(events, count * _EVENT.size)
    memory.check(result_pointer, 4)

    def readiness_of(one: Subscription) -> Readiness:
        file, to_write = descriptors.get(one.subject), one.tag == _FD_WRITE
        if file is not None:
            return readiness(file, to_write=to_write)
        return readiness_in_wasmtime(process, caller, descriptors.wasmtime_fd(one.subject), to_write=to_write)

    begin = monotonic()
    clocks: list[tuple[float, Subscription]] = []  # and when their time has come
    files: dict[int, Readiness] = {}
    for index, one in enumerate(asked):
        if one.tag > _FD_WRITE:
            return abi.INVAL
        if one.tag == _CLOCK:
            if one.subject not in _CLOCKS or one.flags > _ABSOLUTE:
                return abi.INVAL
            now = process.now(caller, one.subject) if one.flags & _ABSOLUTE else 0
            clocks.append((begin + max(0, one.timeout - now) / 1e9, one))
        else:
            files[index] = found = readiness_of(one)
            if isinstance(found, Found) and found.error:
                return found.error
    while True:
        left = min((max(0.0, end - monotonic()) for end, _ in clocks), default=None)
        ready = [asked[index].event(one) for index, one in wait_until_found(caller, files, left).items()]
        passed = monotonic()
        ready += [one.event() for end, one in clocks if end <= passed]
        if ready:
            break
        files = {index: readiness_of(asked[index]) for index in files}  # a signal has come: its handler may do anything
    memory.write(events, b"".join(ready))
    memory.write_u32(result_pointer, len(ready))
    return abi.SUCCESS
