"""The file of a trace: a JSON object with an array of events, whole lines although a signal may interrupt any write.

The format allows the array alone, but some viewers open only objects, and no viewer opens an unclosed object. So the
end of the object is written after each batch of events, and the next batch over it.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from errno import EBADF
from time import perf_counter_ns

HEAD = '{"traceEvents": ['
TAIL = "\n]}\n"
MAX_LINES = 170
"""How many entries are kept before they are written. A switch is one of them, of three events or more."""


class EventFile:
    """Events of a JSON array, a line each. An interruption, wherever it comes, loses no line and leaves no half of one.

    The file belongs to the process that opened it. A child of a fork writes nothing, and forgets the lines that its
    parent had not written yet.
    """

    _descriptor: int | None = None
    _process = 0

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.began = perf_counter_ns()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self._process = os.getpid()
        self._identity = _identity(self._descriptor)
        self.lines: list[str] = []
        self._written = 0  # bytes
        self._before = f"{HEAD}\n"
        self._writing = False
        self._failure: tuple[int | None, str | None] | None = None
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            self._seekable = True
        except OSError:  # a pipe
            self._seekable = False
        if self._seekable:  # whole from the beginning, because a process may be killed before the first events
            with suppress(OSError):  # the next write, to the same place, fails too, and says so
                os.pwrite(self._descriptor, (HEAD + TAIL).encode(), 0)

    def write(self, *lines: str) -> None:
        self.lines += lines
        if len(self.lines) >= MAX_LINES:
            self.flush()

    def close(self) -> None:
        """Write the rest. After an interruption it can be called again. Raises the error of any write that failed."""
        with suppress(OSError):  # `_failure` has it
            self.flush()
            if self._can_write():
                assert self._descriptor is not None
                if not self._written:
                    self._put(self._descriptor, (HEAD + TAIL).encode())
                elif not self._seekable:
                    self._put(self._descriptor, TAIL.encode())
                self._release()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise OSError(*failure)

    def __del__(self) -> None:
        if self._descriptor is not None and self._process == os.getpid():
            with suppress(OSError):
                self.close()
            said = f"the trace {os.fspath(self.path)!r} was not closed"
            warnings.warn(said, ResourceWarning, stacklevel=2, source=self)

    def _can_write(self) -> bool:
        """Return whether the file is open in this process. Raises OSError if other code has closed it."""
        if self._descriptor is None:
            return False
        if self._process != os.getpid():
            self._release()
            return False
        if _identity(self._descriptor) != self._identity:
            self._descriptor = None  # it is closed, or another file's
            self._failure = EBADF, "other code has closed the file, or its descriptor"
            raise OSError(*self._failure)
        return True

    def flush(self) -> None:
        """Write the kept lines. Raises OSError."""
        # If another thread is writing, or the code that this signal handler interrupted, it writes these lines, too.
        if self._descriptor is None:
            self.lines = []
        if self._writing or self._descriptor is None:
            return
        self._writing = True
        try:
            count = len(self.lines)
            if not self._can_write():
                self.lines = []
            elif count:
                tail = TAIL if self._seekable else ""
                lines = self.lines[:count]
                lines[0] = self._before + lines[0]
                lines[-1] += tail
                content = ",\n".join(lines).encode()
                assert self._descriptor is not None
                self._put(self._descriptor, content)
                size = len(content) - len(tail)
                # After an interruption before this line, the same bytes are written to the same place again.
                self._written += size
                self._before = ",\n"
                del self.lines[:count]
        finally:
            self._writing = False

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        assert descriptor is not None
        if _identity(descriptor) == self._identity:
            os.close(descriptor)

    def _put(self, descriptor: int, content: bytes) -> None:
        done = 0
        try:
            while done < len(content):
                if self._seekable:
                    done += os.pwrite(descriptor, content[done:], self._written + done)
                else:
                    done += os.write(descriptor, content[done:])
        except OSError as error:
            self._failure = error.errno, error.strerror
            self._release()
            raise


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return the identity of an open file: its device and number. None: the descriptor is closed."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino
