"""Pipes in memory, by which contexts pass data to one another."""

from __future__ import annotations

import errno

from greenctx.wasix._files.stdio import Sink, Source

CAPACITY = 65536
"""The most bytes that a pipe holds."""

ATOMIC = 4096
"""A write of at most this many bytes is done whole or not at all."""


class InMemory:
    """A file unknown to wasmtime, which only other contexts make ready. So reading and writing it never wait."""

    descriptor: int | None = None
    flags = 0

    def changes(self) -> int:
        """Return a number that grows with each operation on the file."""
        return 0

    def readable(self) -> int | None:
        """Return how many bytes can be read; 0 at the end, None if there is nothing to read yet."""
        return None

    def writable(self) -> int | None:
        """Return how many bytes can be written; 0 without a reader, None if there is too little room."""
        return None

    def close(self) -> None:
        """Called when no descriptor refers to it any more."""


class _Pipe:
    def __init__(self) -> None:
        self.content = bytearray()
        self.has_reader = self.has_writer = True
        self.changes = 0


class ReadEnd(InMemory, Source):
    """The read end of a pipe. Reading never waits: only another context could write, and the guest has to switch."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    def read(self, size: int) -> bytes | None:
        """Return at most ``size`` bytes; None if the pipe is empty; no bytes once the other end is closed."""
        content = self._pipe.content
        if not content and self._pipe.has_writer:
            return None
        self._pipe.changes += 1
        data = bytes(content[:size])
        del content[:size]
        return data

    def changes(self) -> int:
        return self._pipe.changes

    def readable(self) -> int | None:
        return None if self._pipe.has_writer and not self._pipe.content else len(self._pipe.content)

    def close(self) -> None:
        """Close the end: the pipe's contents are lost, and writing fails."""
        self._pipe.changes += 1
        self._pipe.has_reader = False
        self._pipe.content.clear()


class WriteEnd(InMemory, Sink):
    """The write end of a pipe."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    def write(self, data: bytes) -> int | None:
        """Write as much as fits; return how much, or None for nothing.

        Raises OSError once the other end is closed.
        """
        if not self._pipe.has_reader:
            raise OSError(errno.EPIPE, "no reader is left")
        room = CAPACITY - len(self._pipe.content)
        if room < len(data) and (room == 0 or len(data) <= ATOMIC):
            return None
        self._pipe.changes += 1
        self._pipe.content += data[:room]
        return min(room, len(data))

    def changes(self) -> int:
        return self._pipe.changes

    def writable(self) -> int | None:
        if not self._pipe.has_reader:
            return 0
        room = CAPACITY - len(self._pipe.content)
        return room if room >= ATOMIC else None

    def close(self) -> None:
        """Close the end: the pipe's contents can still be read."""
        self._pipe.changes += 1
        self._pipe.has_writer = False


def make_pipe() -> tuple[ReadEnd, WriteEnd]:
    """Return the two ends of a new pipe."""
    pipe = _Pipe()
    return ReadEnd(pipe), WriteEnd(pipe)
