"""A guest's stdin, stdout and stderr: the process's own, or files and buffers of the host's.

Where there is a file descriptor that reading or writing could wait for, it is known, so that the wait can be ended by
Ctrl-C or a time limit.
"""

from __future__ import annotations

import io
import os
import select
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from wasmtime import WasiConfig

STDIN, STDOUT, STDERR = 0, 1, 2


class Source:
    """What a guest's stdin reads. ``descriptor`` is what to wait for before a read; None where reading never waits."""

    descriptor: int | None
    flags = 0
    """Those of WASI's file descriptors that were set here."""

    def __init__(self, file: BinaryIO | bytes | None) -> None:
        if isinstance(file, bytes):
            file = io.BytesIO(file)
        self._file = file
        self.descriptor = STDIN if file is None else _descriptor(file)
        if self.descriptor is not None and _is_regular(self.descriptor):
            self.descriptor = None

    def read(self, size: int) -> bytes | None:
        """Up to so many bytes, none at the end; None if there is nothing yet. Raises OSError."""
        if self._file is None:
            return os.read(STDIN, size)
        # The one that does not wait for all of it, if there is such a one.
        data: object = getattr(self._file, "read1", self._file.read)(size)
        if data is not None and not (isinstance(data, bytes) and len(data) <= size):
            raise TypeError(f"stdin must be a binary file, but {self._file!r} returned {data!r:.80} for {size} bytes")
        return data


class Sink:
    """What a guest's stdout or stderr writes to. ``descriptor`` is what to wait for before a write, or None."""

    descriptor: int | None
    flags = 0
    """Those of WASI's file descriptors that were set here."""

    def __init__(self, file: BinaryIO | None, inherited: int) -> None:
        self._file = file
        descriptor = inherited if file is None else _descriptor(file)
        self.descriptor = None if descriptor is None or _is_regular(descriptor) else descriptor
        self._raw = inherited if file is None else self.descriptor

    def write(self, data: bytes) -> int | None:
        """Write some of it, and flush that; return how much, None if that has to wait. Raises OSError.

        After a wait for the descriptor it does not wait itself: not for pipes, nor for terminals in practice.
        """
        if self._file is not None:
            if self._raw is None:
                written: object = self._file.write(data)
                if not (written is None or (isinstance(written, int) and 0 <= written <= len(data))):
                    raise TypeError(f"{self._file!r} returned {written!r} for a write of {len(data)} bytes")
                self._file.flush()
                return written
            self._file.flush()  # what the host has written so far comes first
        assert self._raw is not None
        return os.write(self._raw, data if self.descriptor is None else data[: select.PIPE_BUF])


def _descriptor(file: BinaryIO) -> int | None:
    """The descriptor whose bytes are the file's. (A gzip.GzipFile, say, has one whose are not.)"""
    raw: object = file
    if isinstance(file, io.BufferedReader | io.BufferedWriter | io.BufferedRandom):
        raw = file.raw
    return raw.fileno() if isinstance(raw, io.FileIO) else None


def _is_regular(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # it is not open; the guest gets that answer when it reads or writes
        return False


class Stdio:
    """The three of them. None: the process's own."""

    def __init__(
        self, stdin: BinaryIO | bytes | None = None, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None
    ) -> None:
        """Raises TypeError for what is neither (bytes that a guest reads, and) a binary file."""
        _check("stdin", stdin if not isinstance(stdin, bytes) else None, "read", "bytes or a binary file to read")
        _check("stdout", stdout, "write", "a binary file to write to")
        _check("stderr", stderr, "write", "a binary file to write to")
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr

    def streams(self) -> dict[int, Source | Sink]:
        """What a program's file descriptors 0, 1 and 2 are when it starts. Bytes start again with each program."""
        sinks = {STDOUT: Sink(self._stdout, STDOUT), STDERR: Sink(self._stderr, STDERR)}
        return {STDIN: Source(self._stdin), **sinks}

    def configure(self, config: WasiConfig) -> None:
        """Let wasmtime answer what the guest asks about those that are the process's own: are they terminals?"""
        if self._stdin is None:
            config.inherit_stdin()
        if self._stdout is None:
            config.inherit_stdout()
        if self._stderr is None:
            config.inherit_stderr()


def _check(name: str, file: object, method: str, wanted: str) -> None:
    if file is not None and (isinstance(file, io.TextIOBase) or not callable(getattr(file, method, None))):
        raise TypeError(f"{name} must be {wanted}, not {file!r}")
