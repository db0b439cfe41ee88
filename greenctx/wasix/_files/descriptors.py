"""The table of a program's file descriptors.

A descriptor outside of the table is wasmtime's of the same number, open or not. The table has the descriptors that
greenctx serves itself (standard streams and pipes), and duplicates of wasmtime's descriptors. wasmtime cannot duplicate
a descriptor, so several of the program's descriptors stand for one of wasmtime's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from greenctx.wasix._files.pipes import InMemory
from greenctx.wasix._files.stdio import NOT_IN_WASMTIME, STREAMS, Sink, Source, may_wait
from greenctx.wasix._native._fiber import DirectDescriptors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FIRST_OWN = 1 << 20
"""The lowest descriptor that greenctx gives out. wasmtime gives out the lowest free ones, and never gets that far."""

MAX_OWN = 1024
"""The most descriptors of one program in the table, besides three. So pipes hold 64 MiB at most."""

MAX_FILES = 512
"""wasmtime's descriptors of one program, unless the program has a limit of its own: half of what Linux lets a process
have open by default."""

MAX_FD = 2**31 - 1  # to guests they are signed
CLOSE_ON_EXEC = 1
"""The only flag of descriptors (``fdflagsext``). It has no effect, because there is no exec."""


class TooManyDescriptors(Exception):
    """No more descriptors can be given out. System calls return EMFILE."""


class OpenFile:
    """A file or directory that wasmtime has open under one number, and the program perhaps under several."""

    def __init__(self, wasmtime_fd: int) -> None:
        self.wasmtime_fd = wasmtime_fd


File: TypeAlias = Source | Sink | OpenFile

_LEFT_TO_PYTHON = -1

_CLOSED = OpenFile(NOT_IN_WASMTIME)
"""The file of a descriptor that the program has closed while wasmtime keeps the number open, for a duplicate."""


def _kept(fd: int) -> int:
    """Return a number that no program can use, so that wasmtime's descriptor stays open."""
    return -1 - fd


class Descriptors:
    """The descriptors of one program.

    A descriptor of wasmtime is closed as soon as no descriptor of the program refers to it.
    """

    def __init__(self, streams: Mapping[int, Source | Sink]) -> None:
        self._files: dict[int, File] = {}
        for fd, stream in streams.items():
            stream.wasmtime_fd = fd
            self._files[fd] = stream
        self.direct = DirectDescriptors(FIRST_OWN)
        """What direct calls know of these descriptors."""
        self._flags: dict[int, int] = {}
        self.copies = False
        """Whether ``fd_renumber`` leaves the given descriptor open, as in WASIX. In WASI it moves the descriptor."""

    def get(self, fd: int) -> Source | Sink | None:
        """Return the file that the descriptor refers to, if greenctx reads and writes it."""
        file = self._files.get(fd)
        return file if isinstance(file, Source | Sink) else None

    def in_memory(self, fd: int) -> InMemory | None:
        """Return the end of a pipe, or another file unknown to wasmtime, that the descriptor refers to, if any."""
        file = self._files.get(fd)
        return file if isinstance(file, InMemory) else None

    def files(self) -> Iterable[File]:
        """Return all files that descriptors in the table refer to."""
        return self._files.values()

    def wasmtime_fd(self, fd: int) -> int:
        """Return wasmtime's descriptor of the same file, open or not. For a pipe it is a closed one."""
        file = self._files.get(fd)
        return fd if file is None else file.wasmtime_fd

    def directory(self, fd: int) -> int:
        """Return wasmtime's descriptor of the directory that a path is relative to.

        WASIX's libc remembers the numbers of preopened directories, and these lead there whatever dup2 makes of them.
        """
        return fd if _kept(fd) in self._files else self.wasmtime_fd(fd)

    def is_known(self, fd: int) -> bool:
        """Whether the descriptor is in the table. If not, wasmtime alone can tell whether it is open."""
        return fd in self._files

    def is_closed(self, fd: int) -> bool:
        """Whether the descriptor is closed, but open in wasmtime."""
        return self._files.get(fd) is _CLOSED

    def is_alone(self, fd: int) -> bool:
        """Whether the descriptor is wasmtime's of the same number, and no other one refers to the file."""
        file = self._files.get(fd)
        if file is None:
            return fd < FIRST_OWN
        return file.wasmtime_fd == fd and self._numbers_of(file) == [fd]

    def file(self, fd: int) -> File:
        """Return the file of the open descriptor, so that another descriptor can refer to it, too."""
        return self._files.get(fd) or OpenFile(fd)

    def add(self, *files: File, lowest: int = 0, flags: int = 0) -> list[int]:
        """Give each file a new descriptor, not below ``lowest``. Raises `TooManyDescriptors`."""
        self._check_room(len(files))  # first, because a program at the limit may try again and again
        numbers: list[int] = []
        candidate = max(lowest, FIRST_OWN)
        for _ in files:
            while candidate in self._files:
                candidate += 1
            if candidate > MAX_FD:
                raise TooManyDescriptors
            numbers.append(candidate)
            candidate += 1
        self.direct.is_stale = True
        for number, file in zip(numbers, files, strict=True):
            self._refer(number, file)
            self.set_flags(number, flags)
        return numbers

    def number_of_new(self, wasmtime_fd: int) -> int:
        """Return the program's number for the descriptor that wasmtime has just opened. Raises `TooManyDescriptors`.

        It is wasmtime's number, unless a duplicate of another file has it.
        """
        return wasmtime_fd if wasmtime_fd not in self._files else self.add(OpenFile(wasmtime_fd))[0]

    def put(self, fd: int, file: File, *, is_open: bool) -> int | None:
        """Let the descriptor, which may be open, refer to the file of another one. Raises `TooManyDescriptors`.

        Return the number that is to be closed in wasmtime, if one is.
        """
        if self._files.get(fd) is file:
            return None
        if fd not in self._files:
            self._check_room(1)
        self.direct.is_stale = True
        unused = self.remove(fd) if is_open else None
        self._refer(fd, file)
        return unused

    def keep(self, fd: int) -> None:
        """Never close the descriptor in wasmtime. When the program closes the number, it refers to the same file again.

        To be called before the program closes or replaces it for the first time.
        """
        if _kept(fd) not in self._files:
            self.direct.is_stale = True
            self._refer(_kept(fd), self.file(fd))

    def remove(self, fd: int) -> int | None:
        """Remove an open descriptor. Return the number that is to be closed in wasmtime, if one is.

        The end of a pipe is closed with its last descriptor.
        """
        self._flags.pop(fd, None)
        if fd not in self._files:
            return fd
        self.direct.is_stale = True
        file = self._files.pop(fd)
        if _kept(fd) in self._files:
            self._files[fd] = self._files[_kept(fd)]
        elif any(other.wasmtime_fd == fd for other in self._files.values()):
            self._files[fd] = _CLOSED
        left = self._numbers_of(file)
        if isinstance(file, OpenFile) and left == [file.wasmtime_fd]:
            del self._files[file.wasmtime_fd]  # it is wasmtime's of the same number again
        if left:
            return None
        if isinstance(file, InMemory):
            file.close()
            return None
        if self._files.get(file.wasmtime_fd) is _CLOSED:
            del self._files[file.wasmtime_fd]
        return file.wasmtime_fd

    def move(self, fd: int, to: int) -> None:
        """Do what wasmtime has done: its descriptor has another number now. Both were alone."""
        self.direct.is_stale = True
        for number in (fd, to):
            self._flags.pop(number, None)
        file = self._files.pop(fd, None)
        self._files.pop(to, None)
        if file is not None:
            file.wasmtime_fd = to
            self._files[to] = file

    def flags(self, fd: int) -> int:
        """Return the flags of any descriptor, wasmtime's included."""
        return self._flags.get(fd, 0)

    def set_flags(self, fd: int, flags: int) -> None:
        """Set the flags of an open descriptor."""
        if flags:
            self._flags[fd] = flags
        else:
            self._flags.pop(fd, None)

    def update_direct(self) -> None:
        """Let direct calls know what the descriptors refer to now. Python serves all calls from a change until then."""
        self.direct.reset()
        for fd, file in self._files.items():
            if fd < 0:
                self.direct.set_file(_kept(fd), _LEFT_TO_PYTHON)
            elif _kept(fd) in self._files or isinstance(file, InMemory):
                self.direct.set_file(fd, _LEFT_TO_PYTHON)
            elif isinstance(file, OpenFile):
                self.direct.set_file(fd, _LEFT_TO_PYTHON if file is _CLOSED else file.wasmtime_fd)
            else:
                self.direct.set_stream(
                    fd, file.wasmtime_fd, file.direct, isinstance(file, Sink), file.direct < 0 or may_wait(file.direct)
                )
        self.direct.is_stale = False

    def _refer(self, fd: int, file: File) -> None:
        if isinstance(file, OpenFile):
            # Its number in wasmtime is also the program's, unless the program has closed it or uses it for another
            # file.
            self._files.setdefault(file.wasmtime_fd, file)
        self._files[fd] = file

    def _numbers_of(self, file: File) -> list[int]:
        return [fd for fd, other in self._files.items() if other is file]

    def _check_room(self, count: int) -> None:
        if len(self._files) + count > MAX_OWN + len(STREAMS):
            raise TooManyDescriptors
