"""A guest's stdin, stdout and stderr: the process's own, or files and buffers of the host's."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from wasmtime import WasiConfig

STDIN, STDOUT, STDERR = 0, 1, 2


class Source:
    """What a guest's stdin reads. ``descriptor`` is the host's, to wait for; None where reading never waits."""

    def __init__(self, file: BinaryIO | int) -> None:
        self._file = file
        self.descriptor = file if isinstance(file, int) else _descriptor(file)

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end. Raises OSError."""
        if self.descriptor is not None:
            # Not through the file's buffer: waiting for the descriptor would not see what is in there.
            return os.read(self.descriptor, size)
        assert not isinstance(self._file, int)
        return self._file.read(size)


def _descriptor(file: BinaryIO) -> int | None:
    try:
        return file.fileno()
    except (AttributeError, io.UnsupportedOperation):
        return None


class Stdio:
    """The three of them. None: the process's own."""

    def __init__(
        self, stdin: BinaryIO | bytes | None = None, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None
    ) -> None:
        self._source = Source(io.BytesIO(stdin) if isinstance(stdin, bytes) else STDIN if stdin is None else stdin)
        self._sinks = {STDOUT: stdout, STDERR: stderr}

    def source(self, stdio: int | None) -> Source | None:
        """What to read for that one of the three; None if it is not stdin."""
        return self._source if stdio == STDIN else None

    def sink(self, stdio: int | None) -> BinaryIO | None:
        """Where to write for that one of the three; None if it is not redirected."""
        return None if stdio is None else self._sinks.get(stdio)

    def configure(self, config: WasiConfig) -> None:
        """Let wasmtime write to those that are not redirected."""
        if self._sinks[STDOUT] is None:
            config.inherit_stdout()
        if self._sinks[STDERR] is None:
            config.inherit_stderr()
