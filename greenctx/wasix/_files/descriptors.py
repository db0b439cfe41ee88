"""File descriptors that mean something here: standard streams and pipes. All others are wasmtime's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx.wasix._files.pipes import ReadEnd, WriteEnd

if TYPE_CHECKING:
    from greenctx.wasix._files.stdio import Sink, Source

FIRST_OWN = 1 << 20
"""From here on numbers are given out here. wasmtime takes the lowest ones, and no process may open that many files."""

MAX_OWN = 1024
MAX_FD = 2**31 - 1  # to guests they are signed
CLOSE_ON_EXEC = 1
"""The one flag of descriptors (``fdflagsext``). It has no effect: there is no exec."""


class TooManyDescriptors(Exception):
    """As many descriptors were given out as there may be. Answered with errno mfile."""


class Descriptors:
    """The descriptors of one program.

    One below `FIRST_OWN` is also open in wasmtime, which keeps its number taken, whatever it stands for there.
    """

    def __init__(self, streams: dict[int, Source | Sink]) -> None:
        self._files = streams
        self._flags: dict[int, int] = {}
        self.copies = False
        """Whether ``fd_renumber`` is to leave the descriptor open that it was given, as in WASIX; WASI's moves it."""

    def get(self, fd: int) -> Source | Sink | None:
        """What it stands for; None if that is wasmtime's business."""
        return self._files.get(fd)

    def add(self, *files: Source | Sink, lowest: int = 0, flags: int = 0) -> list[int]:
        """Give each a new number, no less than the lowest. Raises `TooManyDescriptors`."""
        own = sum(fd >= FIRST_OWN for fd in self._files)
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
        """Let the descriptor stand for the file, and for what it did no longer."""
        if self._files.get(fd) is not file:
            self.remove(fd)
            self._files[fd] = file

    def remove(self, fd: int) -> Source | Sink | None:
        """Let it stand for nothing. An end of a pipe with no descriptor left is closed."""
        self._flags.pop(fd, None)
        file = self._files.pop(fd, None)
        if isinstance(file, ReadEnd | WriteEnd) and not any(file is other for other in self._files.values()):
            file.close()
        return file

    def wasmtime_fd(self, fd: int) -> int | None:
        """The descriptor of wasmtime's that is the same thing, or nothing at all; None if there is none of the kind."""
        file = self._files.get(fd)
        if file is None:
            return fd
        if isinstance(file, ReadEnd | WriteEnd):
            return None
        return next((number for number, other in self._files.items() if other is file and number < FIRST_OWN), None)

    def flags(self, fd: int) -> int:
        """The flags of a descriptor, whoever's it is."""
        return self._flags.get(fd, 0)

    def set_flags(self, fd: int, flags: int) -> None:
        """Keep the flags of a descriptor that is open."""
        if flags:
            self._flags[fd] = flags
        else:
            self._flags.pop(fd, None)
