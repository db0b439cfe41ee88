"""Pipes in memory, by which contexts pass data to one another."""

from __future__ import annotations

import errno

from greenctx.wasix._files.stdio import Sink, Source

CAPACITY = 65536
"""The most bytes that a pipe holds."""

ATOMIC = 4096
"""A write of at most this many bytes is done whole or not at all."""


class _Pipe:
    def __init__(self) -> None:
        self.content = bytearray()
        self.has_reader = self.has_writer = True


class ReadEnd(Source):
    """The read end of a pipe. Reading never waits: only another context could write, and the guest has to switch."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self.descriptor = None

    def read(self, size: int) -> bytes | None:
        """Return at most ``size`` bytes; None if the pipe is empty; no bytes once the other end is closed."""
        content = self._pipe.content
        if not content and self._pipe.has_writer:
            return None
        data = bytes(content[:size])
        del content[:size]
        return data

    @property
    def ready(self) -> int | None:
        """How many bytes can be read; 0 once the other end is closed, None if there is nothing to read yet."""
        return None if self._pipe.has_writer and not self._pipe.content else len(self._pipe.content)

    def close(self) -> None:
        """Close the end: the pipe's contents are lost, and writing fails."""
        self._pipe.has_reader = False
        self._pipe.content.clear()


class WriteEnd(Sink):
    """The write end of a pipe."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self.descriptor = None

    def write(self, data: bytes) -> int | None:
        """Write as much as fits; return how much, or None for nothing.

        Raises OSError once the other end is closed.
        """
        if not self._pipe.has_reader:
            raise OSError(errno.EPIPE, "no reader is left")
        room = CAPACITY - len(self._pipe.content)
        if room < len(data) and (room == 0 or len(data) <= ATOMIC):
            return None
        self._pipe.content += data[:room]
        return min(room, len(data))

    @property
    def ready(self) -> int | None:
        """How many bytes can be written; 0 once the other end is closed, None if there is too little room."""
        if not self._pipe.has_reader:
            return 0
        room = CAPACITY - len(self._pipe.content)
        return room if room >= ATOMIC else None

    def close(self) -> None:
        """Close the end: the pipe's contents can still be read."""
        self._pipe.has_writer = False


def make_pipe() -> tuple[ReadEnd, WriteEnd]:
    """Return the two ends of a new pipe."""
    pipe = _Pipe()
    return ReadEnd(pipe), WriteEnd(pipe)
