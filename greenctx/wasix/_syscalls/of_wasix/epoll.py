"""WASIX's calls about event counters and epoll lists: ``eventfd``, and ``epoll`` on top of ``poll_oneoff``."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from greenctx.wasix._clock.readiness import find_ready
from greenctx.wasix._files.descriptors import TooManyDescriptors
from greenctx.wasix._files.events import MAX_INTERESTS, Epoll, Event, Interest
from greenctx.wasix._files.pipes import InMemory
from greenctx.wasix._files.stdio import Sink, Source
from greenctx.wasix._modules import abi
from greenctx.wasix._native._fiber import monotonic
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.poll import Found, readiness, wait_until_found

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.poll import Readiness
    from greenctx.wasix._syscalls.process import DescriptorTables

EPOLL_TYPES = {
    "epoll_create": "p -> i32",
    "epoll_ctl": "i32 i32 i32 p -> i32",
    "epoll_wait": "i32 p i32 i64 p -> i32",
    "fd_event": "i64 i32 p -> i32",
}

_EVENT = Struct("<I 4x 24s")
"""epoll_event (wasi/api_wasix.h): the events, and the guest's data, whose layout does not matter here."""

_IN, _OUT, _RDHUP, _ERR, _HUP, _EDGE, _ONESHOT = 1 << 0, 1 << 1, 1 << 2, 1 << 4, 1 << 5, 1 << 6, 1 << 7
_ALWAYS = _ERR | _HUP  # are reported even if not asked for

_ADD, _DELETE, _MODIFY = (0, 1), 2, 3
"""As Wasmer has them. WASIX's header numbers them from 0 on; its libc passes on Linux's numbers, from 1 on."""

_FOR_EVER = 2**64 - 1  # a timeout
_SEMAPHORE = 1  # eventfdflags
_MAX_EVENTS = 2**31 - 1

Key = tuple[int, bool]
"""A descriptor, and whether the wait is for writing."""


class EpollCalls:
    """The calls of one linker, for guests with sizes of so many bytes."""

    def __init__(self, descriptors: DescriptorTables, size: int) -> None:
        self._descriptors = descriptors
        self._size = size

    def fd_event(self, caller: Caller, count: int, flags: int, result_pointer: int) -> int:
        """Make an event counter; store its descriptor. Unknown flags are left out, as in Wasmer."""
        return self._add(caller, Event(count, is_semaphore=bool(flags & _SEMAPHORE)), result_pointer)

    def epoll_create(self, caller: Caller, result_pointer: int) -> int:
        """Make an empty list; store its descriptor."""
        return self._add(caller, Epoll(), result_pointer)

    def _add(self, caller: Caller, file: Event | Epoll, result_pointer: int) -> int:
        if self._descriptors.stdio is None:  # then wasmtime reads and writes, and it has neither
            return abi.NOTSUP
        memory = GuestMemory(caller)
        memory.check(result_pointer, 4)
        try:
            (number,) = self._descriptors.of(caller).add(file)
        except TooManyDescriptors:
            return abi.MFILE
        memory.write_u32(result_pointer, number)
        return abi.SUCCESS

    def _find(self, caller: Caller, epfd: int) -> Epoll | int:
        """Return the list, or an errno."""
        file = self._descriptors.of(caller).get(epfd)
        if isinstance(file, Epoll):
            return file
        return abi.INVAL if self._descriptors.is_open(caller, epfd) else abi.BADF

    def epoll_ctl(self, caller: Caller, epfd: int, operation: int, fd: int, event: int) -> int:
        """Add a descriptor to the list, or remove it. Files and lists cannot be in a list, as on Linux."""
        epoll = self._find(caller, epfd)
        if isinstance(epoll, int):
            return epoll
        known = epoll.interests.get(fd)
        if operation == _DELETE:
            if known is None:
                return abi.NOENT
            del epoll.interests[fd]
            return abi.SUCCESS
        if operation not in (*_ADD, _MODIFY) or not event:
            return abi.INVAL
        events, data = _EVENT.unpack(GuestMemory(caller).read(event, _EVENT.size))
        descriptors = self._descriptors.of(caller)
        file = descriptors.get(fd)
        if isinstance(file, Epoll):
            return abi.INVAL
        if file is None:
            return abi.PERM if self._descriptors.is_open(caller, fd) else abi.BADF
        is_known = known is not None and known.file is file  # otherwise the number is another file's by now
        if is_known is not (operation == _MODIFY):
            return abi.EXIST if is_known else abi.NOENT
        if known is None and len(epoll.interests) >= MAX_INTERESTS:
            epoll.forget_closed(descriptors.files())
            if len(epoll.interests) >= MAX_INTERESTS:
                return abi.NOSPC
        epoll.interests[fd] = Interest(file, events, data)
        return abi.SUCCESS

    def epoll_wait(
        self, caller: Caller, epfd: int, events: int, max_events: int, timeout: int, result_pointer: int
    ) -> int:
        """Wait until descriptors in the list are ready; store their events and number. Raises as `wait_until_found`."""
        epoll = self._find(caller, epfd)
        if isinstance(epoll, int):
            return epoll
        if not 0 < max_events <= _MAX_EVENTS:
            return abi.INVAL
        memory, descriptors = GuestMemory(caller), self._descriptors.of(caller)
        memory.check(events, max_events * _EVENT.size)
        memory.check(result_pointer, self._size)
        until = None if timeout == _FOR_EVER else monotonic() + timeout / 1e9
        while True:
            epoll.forget_closed(descriptors.files())
            left = None if until is None else max(0.0, until - monotonic())
            found = wait_until_found(caller, dict(_asked(epoll)), left)
            ready = _take_events(epoll, found, max_events)
            if ready or (until is not None and monotonic() >= until):
                break
        memory.write(events, b"".join(ready))
        memory.write(result_pointer, len(ready).to_bytes(self._size, "little"))
        return abi.SUCCESS


def _asked(epoll: Epoll) -> Iterator[tuple[Key, Readiness]]:
    """Yield the waits of the list."""
    for fd, one in epoll.interests.items():
        if not one.is_enabled:
            continue
        for to_write in (False, True):
            if not isinstance(one.file, Sink if to_write else Source):
                continue
            state = readiness(one.file, to_write=to_write)
            if not one.events & (_OUT if to_write else _IN) and not _is_end(state):
                state = None
            yield (fd, to_write), None if one.events & _EDGE and _was_reported(one, state, to_write) else state


def _is_end(state: Readiness) -> bool:
    return isinstance(state, Found) and state.size == 0


def _was_reported(one: Interest, state: Readiness, to_write: bool) -> bool:
    """Whether the file was reported as ready, and the guest has not used it since.

    Reads from the host's streams are not tracked, so they are always reported.
    """
    if isinstance(state, tuple) and (not to_write or not find_ready([state], 0)):
        state = None
    if state is None:
        one.reported.pop(to_write, None)
    return one.reported.get(to_write) == _changes(one.file)


def _changes(file: Source | Sink) -> int:
    return file.changes() if isinstance(file, InMemory) else 0


def _take_events(epoll: Epoll, found: Mapping[Key, Found], max_events: int) -> list[bytes]:
    """Encode the events, and note that they are reported. Events left out come first the next time."""
    events: dict[int, int] = {}
    for (fd, to_write), one in found.items():
        if fd in events or len(events) < max_events:
            ready, end = (_OUT, _ERR) if to_write else (_IN, _HUP | _RDHUP)
            events[fd] = events.get(fd, 0) | ready | (end if one.size == 0 else 0)
            interest = epoll.interests[fd]
            interest.reported[to_write] = _changes(interest.file)
    encoded = []
    for fd, bits in events.items():
        interest = epoll.interests[fd] = epoll.interests.pop(fd)
        interest.is_enabled = not interest.events & _ONESHOT
        encoded.append(_EVENT.pack(bits & (interest.events | _ALWAYS), interest.data))
    return encoded
