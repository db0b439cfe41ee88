"""A guest's stdin, stdout and stderr: those of the Python process, or the host's files and buffers.

If reading or writing a file may wait for a file descriptor, that descriptor is known. So Ctrl-C and time limits can end
the wait.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from wasmtime import WasiConfig

STREAMS = STDIN, STDOUT, STDERR = 0, 1, 2
NOT_IN_WASMTIME = 2**32 - 1
"""The descriptor of files unknown to wasmtime. It never opens one of this number, so its functions return EBADF."""


_MEMORY_DEVICES = [os.makedev(1, minor) for minor in (3, 5, 7)] if sys.platform == "linux" else []
"""/dev/null, /dev/zero and /dev/full (Linux's Documentation/admin-guide/devices.txt)."""


class Source:
    """The source of a guest's reads. Wait for ``descriptor`` before a read; None if reading never waits."""

    descriptor: int | None
    direct = -1
    """The host's descriptor that guests may read from directly. -1: Python has to, because its buffer comes first."""
    wasmtime_fd = NOT_IN_WASMTIME
    """wasmtime's descriptor of the same stream."""
    flags = 0
    """The flags of WASI's file descriptors that were set here."""

    def __init__(self, file: BinaryIO | bytes | None) -> None:
        if isinstance(file, bytes):
            file = io.BytesIO(file)
        self._file = file
        self.direct = STDIN if file is None else -1
        self.descriptor = STDIN if file is None else _descriptor(file)
        if self.descriptor is not None and _is_regular(self.descriptor):
            self.descriptor = None

    def read(self, size: int) -> bytes | None:
        """Return at most ``size`` bytes, no bytes at the end, None if there is nothing yet. Raises OSError."""
        if self._file is None:
            return os.read(STDIN, size)
        # `read1`, if the file has it, does not wait for all bytes.
        data: object = getattr(self._file, "read1", self._file.read)(size)
        if data is not None and not (isinstance(data, bytes) and len(data) <= size):
            raise TypeError(f"stdin must be a binary file, but {self._file!r} returned {data!r:.80} for {size} bytes")
        return data


class Sink:
    """The target of a guest's writes. Wait for ``descriptor`` before a write; None if writing never waits."""

    descriptor: int | None
    direct = -1
    """The host's descriptor that guests may write to directly. -1: Python has to, because its buffer comes first."""
    wasmtime_fd = NOT_IN_WASMTIME
    """wasmtime's descriptor of the same stream."""
    flags = 0
    """The flags of WASI's file descriptors that were set here."""

    def __init__(self, file: BinaryIO | None, inherited: int) -> None:
        self._file = file
        descriptor = inherited if file is None else _descriptor(file)
        self.descriptor = None if descriptor is None or _is_regular(descriptor) else descriptor
        self.direct = inherited if file is None else -1
        self._raw = inherited if file is None else self.descriptor

    def write(self, data: bytes) -> int | None:
        """Write some of the data and flush it; return how much, or None if that has to wait. Raises OSError.

        After a wait for the descriptor the write itself does not wait: pipes never do, terminals not in practice.
        """
        if self._file is not None:
            if self._raw is None:
                written: object = self._file.write(data)
                if not (written is None or (isinstance(written, int) and 0 <= written <= len(data))):
                    raise TypeError(f"{self._file!r} returned {written!r} for a write of {len(data)} bytes")
                self._file.flush()
                return written
            self._file.flush()  # bytes that the host wrote before come first
        assert self._raw is not None
        return os.write(self._raw, data if self.descriptor is None else data[: select.PIPE_BUF])


def _descriptor(file: BinaryIO) -> int | None:
    """Return the descriptor that holds the same bytes as the file. (That of a gzip.GzipFile holds others.)"""
    raw: object = file
    if isinstance(file, io.BufferedReader | io.BufferedWriter | io.BufferedRandom):
        raw = file.raw
    return raw.fileno() if isinstance(raw, io.FileIO) else None


def _is_regular(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # not open: the guest gets the errno when it reads or writes
        return False


def may_wait(descriptor: int) -> bool:
    """Whether reading from the descriptor, or writing to it, may wait: not if it is a regular file or /dev/null."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return True
    return not (stat.S_ISREG(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev in _MEMORY_DEVICES))


class Stdio:
    """The three standard streams. None means that of the Python process."""

    def __init__(
        self, stdin: BinaryIO | bytes | None = None, stdout: BinaryIO | None = None, stderr: BinaryIO | None = None
    ) -> None:
        """Raises TypeError for anything but binary files and, for stdin, bytes."""
        _check("stdin", stdin if not isinstance(stdin, bytes) else None, "read", "bytes or a binary file to read")
        _check("stdout", stdout, "write", "a binary file to write to")
        _check("stderr", stderr, "write", "a binary file to write to")
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr

    def replaced(self, **given: Any) -> Stdio:
        """Return standard streams with those arguments replaced."""
        own: dict[str, Any] = {"stdin": self._stdin, "stdout": self._stdout, "stderr": self._stderr}
        return Stdio(**{**own, **given}) if given else self

    def streams(self) -> dict[int, Source | Sink]:
        """Return the streams of descriptors 0, 1 and 2 when a program starts. Each reads bytes from the beginning."""
        sinks = {STDOUT: Sink(self._stdout, STDOUT), STDERR: Sink(self._stderr, STDERR)}
        return {STDIN: Source(self._stdin), **sinks}

    def configure(self, config: WasiConfig) -> None:
        """Let wasmtime know which streams are the Python process's, for guests that ask whether one is a terminal."""
        if self._stdin is None:
            config.inherit_stdin()
        if self._stdout is None:
            config.inherit_stdout()
        if self._stderr is None:
            config.inherit_stderr()


def _check(name: str, file: object, method: str, wanted: str) -> None:
    if file is not None and (isinstance(file, io.TextIOBase) or not callable(getattr(file, method, None))):
        raise TypeError(f"{name} must be {wanted}, not {file!r}")
