"""The file descriptors that greenctx serves itself: standard streams and pipes. wasmtime serves all others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx.wasix._files.pipes import InMemory

if TYPE_CHECKING:
    from collections.abc import Iterable

    from greenctx.wasix._files.stdio import Sink, Source

FIRST_OWN = 1 << 20
"""The lowest descriptor that greenctx gives out. wasmtime gives out the lowest free ones, and never gets that far."""

MAX_OWN = 1024
"""The descriptors of pipes, and those that greenctx gives out, of one program. So pipes hold 64 MiB at most."""

MAX_FILES = 512
"""wasmtime's descriptors of one program, unless the program has a limit of its own: half of what Linux lets a process
have open by default."""

MAX_FD = 2**31 - 1  # to guests they are signed
CLOSE_ON_EXEC = 1
"""The only flag of descriptors (``fdflagsext``). It has no effect, because there is no exec."""


class TooManyDescriptors(Exception):
    """No more descriptors can be given out. System calls return errno mfile."""


class Descriptors:
    """The descriptors of one program.

    A descriptor below `FIRST_OWN` is also open in wasmtime. Whatever it refers to there, it keeps the number taken.
    """

    def __init__(self, streams: dict[int, Source | Sink]) -> None:
        self._files = streams
        self._flags: dict[int, int] = {}
        self.copies = False
        """Whether ``fd_renumber`` leaves the descriptor open that it was given, as in WASIX. In WASI it moves it."""

    def get(self, fd: int) -> Source | Sink | None:
        """Return the file that the descriptor refers to; None if wasmtime knows it, or nobody."""
        return self._files.get(fd)

    def files(self) -> Iterable[Source | Sink]:
        """Return all that a descriptor refers to."""
        return self._files.values()

    def add(self, *files: Source | Sink, lowest: int = 0, flags: int = 0) -> list[int]:
        """Give each file a new descriptor, not below ``lowest``. Raises `TooManyDescriptors`."""
        # Pipes count where ``fd_renumber`` has put them, too.
        own = sum(fd >= FIRST_OWN or isinstance(file, InMemory) for fd, file in self._files.items())
        if own + len(files) > MAX_OWN:
            raise TooManyDescriptors
        numbers: list[int] = []
        candidate = max(lowest, FIRST_OWN)
        for file in files:
            while candidate in self._files:
                candidate += 1
            if candidate > MAX_FD:
                raise TooManyDescriptors
            self._files[candidate] = file
            self.set_flags(candidate, flags)
            numbers.append(candidate)
        return numbers

    def put(self, fd: int, file: Source | Sink) -> None:
        """Let the descriptor refer to the file. What it referred to before is removed."""
        if self._files.get(fd) is not file:
            self.remove(fd)
            self._files[fd] = file

    def remove(self, fd: int) -> Source | Sink | None:
        """Remove the descriptor. An end of a pipe is closed with its last descriptor."""
        self._flags.pop(fd, None)
        file = self._files.pop(fd, None)
        if isinstance(file, InMemory) and not any(file is other for other in self._files.values()):
            file.close()
        return file

    def wasmtime_fd(self, fd: int) -> int | None:
        """Return wasmtime's descriptor of the same file, open or not; None if wasmtime does not know the file."""
        file = self._files.get(fd)
        if file is None:
            return fd
        if isinstance(file, InMemory):
            return None
        return next((number for number, other in self._files.items() if other is file and number < FIRST_OWN), None)

    def flags(self, fd: int) -> int:
        """Return the flags of any descriptor, wasmtime's included."""
        return self._flags.get(fd, 0)

    def set_flags(self, fd: int, flags: int) -> None:
        """Set the flags of an open descriptor."""
        if flags:
            self._flags[fd] = flags
        else:
            self._flags.pop(fd, None)
