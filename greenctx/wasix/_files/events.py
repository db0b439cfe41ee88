"""Event counters (``eventfd``), and lists of descriptors to wait for (``epoll``). Both are in memory, as pipes are."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from greenctx.wasix._files.pipes import InMemory
from greenctx.wasix._files.stdio import Sink, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZE = 8
"""Bytes of a counter, which are read and written together."""

MAX_COUNT = 2**64 - 2

MAX_INTERESTS = 1024
"""Descriptors of one list: as many as a program can have besides files."""


class Event(InMemory, Source, Sink):
    """A counter: writing adds to it, reading takes it all or, from a semaphore, one. Neither waits, as with pipes."""

    def __init__(self, count: int, *, is_semaphore: bool) -> None:
        self._count = count
        self._is_semaphore = is_semaphore
        self._changes = 0

    def read(self, size: int) -> bytes | None:
        """Return the count, which is 0 then; None if it is 0 already. Raises OSError for less than 8 bytes."""
        if size < SIZE:
            raise OSError(errno.EINVAL, "a counter has 8 bytes")
        if not self._count:
            return None
        taken = 1 if self._is_semaphore else self._count
        self._count -= taken
        self._changes += 1
        return taken.to_bytes(SIZE, "little")

    def write(self, data: bytes) -> int | None:
        """Add the number of the first 8 bytes; None if it would get too large. Raises OSError for what is no number."""
        value = int.from_bytes(data[:SIZE], "little")
        if len(data) < SIZE or value > MAX_COUNT:
            raise OSError(errno.EINVAL, "a counter has 8 bytes, not all of them 255")
        if self._count + value > MAX_COUNT:
            return None
        self._count += value
        self._changes += 1
        return SIZE

    def changes(self) -> int:
        return self._changes

    def readable(self) -> int | None:
        return SIZE if self._count else None

    def writable(self) -> int | None:
        return SIZE if self._count < MAX_COUNT else None


class Interest:
    """What a list knows of one descriptor."""

    __slots__ = ("data", "events", "file", "is_enabled", "reported")

    def __init__(self, file: Source | Sink, events: int, data: bytes) -> None:
        self.file = file
        """What the descriptor referred to when it was put into the list. The descriptor may be closed meanwhile."""
        self.events = events
        self.data = data
        self.is_enabled = True
        self.reported: dict[bool, int] = {}
        """For reading and for writing: how much the file had changed when that was reported last."""


class Epoll(InMemory, Source):
    """A list of descriptors to wait for, by `epoll_wait` alone: it cannot be read, and is never ready itself."""

    def __init__(self) -> None:
        self.interests: dict[int, Interest] = {}
        """By descriptor."""

    def read(self, _: int) -> bytes | None:
        """Raise OSError."""
        raise OSError(errno.EINVAL, "a list of descriptors cannot be read")

    def forget_closed(self, files: Iterable[object]) -> None:
        """Keep only what is among those files: all that any descriptor refers to, as on Linux."""
        are_open = {id(file) for file in files}
        for fd, interest in [*self.interests.items()]:
            if id(interest.file) not in are_open:
                del self.interests[fd]
