"""Pipes in memory, for contexts to talk to one another through."""

from __future__ import annotations

import errno

from greenctx.wasix._files.stdio import Sink, Source

CAPACITY = 65536
"""Bytes that wait to be read, at most."""

ATOMIC = 4096
"""A write of no more bytes is done whole or not at all."""


class _Pipe:
    def __init__(self) -> None:
        self.content = bytearray()
        self.has_reader = self.has_writer = True


class ReadEnd(Source):
    """Where a pipe is read. Nothing waits here: whoever could write is another context, to which the guest switches."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self.descriptor = None

    def read(self, size: int) -> bytes | None:
        """What is there, up to so many bytes; nothing at the end: when nobody can write; None if there is none yet."""
        content = self._pipe.content
        if not content and self._pipe.has_writer:
            return None
        data = bytes(content[:size])
        del content[:size]
        return data

    @property
    def ready(self) -> int | None:
        """How many bytes can be read: none at the end. None if there is nothing to read yet."""
        return None if self._pipe.has_writer and not self._pipe.content else len(self._pipe.content)

    def close(self) -> None:
        """Nobody will read."""
        self._pipe.has_reader = False
        self._pipe.content.clear()


class WriteEnd(Sink):
    """Where a pipe is written."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe
        self.descriptor = None

    def write(self, data: bytes) -> int | None:
        """Write what there is room for; return how much, None if that is nothing. Raises OSError if nobody can read."""
        if not self._pipe.has_reader:
            raise OSError(errno.EPIPE, "nobody can read from the pipe")
        room = CAPACITY - len(self._pipe.content)
        if room < len(data) and (room == 0 or len(data) <= ATOMIC):
            return None
        self._pipe.content += data[:room]
        return min(room, len(data))

    @property
    def ready(self) -> int | None:
        """How many bytes can be written: none if nobody can read. None if there is too little room."""
        if not self._pipe.has_reader:
            return 0
        room = CAPACITY - len(self._pipe.content)
        return room if room >= ATOMIC else None

    def close(self) -> None:
        """Nobody will write: what is in the pipe can still be read."""
        self._pipe.has_writer = False


def make_pipe() -> tuple[ReadEnd, WriteEnd]:
    """The two ends of a new pipe."""
    pipe = _Pipe()
    return ReadEnd(pipe), WriteEnd(pipe)
