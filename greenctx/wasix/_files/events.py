"""Event counters (``eventfd``), and lists of descriptors to wait for (``epoll``), in memory like pipes."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from greenctx.wasix._files.pipes import InMemory
from greenctx.wasix._files.stdio import Sink, Source

if TYPE_CHECKING:
    from collections.abc import Iterable

SIZE = 8
"""The size of a counter in bytes, which are read and written together."""

MAX_COUNT = 2**64 - 2

MAX_INTERESTS = 1024
"""The most descriptors in one list: as many as a program can have besides files."""


class Event(InMemory, Source, Sink):
    """A counter: writing adds to it, reading takes all of it, or one from a semaphore. Neither waits, as in pipes."""

    def __init__(self, count: int, *, is_semaphore: bool) -> None:
        self._count = count
        self._is_semaphore = is_semaphore
        self._changes = 0

    def read(self, size: int) -> bytes | None:
        """Take the count, which becomes 0; None if it was 0. Raises OSError for less than 8 bytes."""
        if size < SIZE:
            raise OSError(errno.EINVAL, "a counter has 8 bytes")
        if not self._count:
            return None
        taken = 1 if self._is_semaphore else self._count
        self._count -= taken
        self._changes += 1
        return taken.to_bytes(SIZE, "little")

    def write(self, data: bytes) -> int | None:
        """Add the number in the first 8 bytes; None if the count gets too large. Raises OSError for a wrong number."""
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
    """The entry of one descriptor in a list."""

    __slots__ = ("data", "events", "file", "is_enabled", "reported")

    def __init__(self, file: Source | Sink, events: int, data: bytes) -> None:
        self.file = file
        """The file that the descriptor referred to when it was added. The descriptor may be closed meanwhile."""
        self.events = events
        self.data = data
        self.is_enabled = True
        self.reported: dict[bool, int] = {}
        """For reading and for writing: how much the file had changed when that was reported last."""


class Epoll(InMemory, Source):
    """A list of descriptors to wait for, by `epoll_wait` alone: it cannot be read, and is never ready itself."""

    def __init__(self) -> None:
        self.interests: dict[int, Interest] = {}
        """The entries by descriptor."""

    def read(self, _: int) -> bytes | None:
        """Raise OSError, because a list cannot be read."""
        raise OSError(errno.EINVAL, "a list of descriptors cannot be read")

    def forget_closed(self, files: Iterable[object]) -> None:
        """Keep only entries of those files, which are all files that any descriptor refers to, as on Linux."""
        are_open = {id(file) for file in files}
        for fd, interest in [*self.interests.items()]:
            if id(interest.file) not in are_open:
                del self.interests[fd]
