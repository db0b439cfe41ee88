"""The host's terminal: its size, the modes that guests may set, and how its former modes are restored."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import finalize

try:
    import termios
except ImportError:  # on Windows
    termios = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterable

INPUT, LOCAL = 0, 3  # the indices of flags in the result of termios.tcgetattr


def is_terminal(descriptor: int | None) -> bool:
    """Whether it is a descriptor of the host's terminal. (Not on Windows.)"""
    return termios is not None and descriptor is not None and os.isatty(descriptor)


def find_terminal(descriptors: Iterable[int | None]) -> int | None:
    """Return the first descriptor of a terminal."""
    return next(filter(is_terminal, descriptors), None)


def size_of(terminal: int) -> tuple[int, int] | None:
    """Return how many columns and rows it has; None if it does not know."""
    try:
        size = os.get_terminal_size(terminal)
    except OSError:
        return None
    return size if all(size) else None


def modes_of(terminal: int) -> tuple[bool, bool]:
    """Return whether it echoes, and whether it waits for whole lines. Raises OSError."""
    flags = _attributes(terminal)[LOCAL]
    return bool(flags & termios.ECHO), bool(flags & termios.ICANON)


class TerminalModes:
    """The modes that a program has set. `restore` undoes them, as does the end of this object or the interpreter."""

    def __init__(self) -> None:
        self._restore: finalize[Any, Any] | None = None

    def set(self, terminal: int, *, echoes: bool, whole_lines: bool) -> None:
        """Set the terminal's modes. Raises OSError."""
        attributes = _attributes(terminal)
        if self._restore is None:
            self._restore = finalize(self, _restore, terminal, [*attributes])
        if echoes:
            attributes[LOCAL] |= termios.ECHO | termios.ECHOE | termios.ECHOK
        else:
            attributes[LOCAL] &= ~termios.ECHO
        # Without whole lines Enter is a carriage return, as programs that read key by key expect.
        if whole_lines:
            attributes[LOCAL] |= termios.ICANON
            attributes[INPUT] |= termios.ICRNL
        else:
            attributes[LOCAL] &= ~termios.ICANON
            attributes[INPUT] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR)
        _set(terminal, attributes)

    def restore(self) -> None:
        """Restore the terminal's former modes, if any were set."""
        if self._restore is not None:
            self._restore()


def _restore(terminal: int, attributes: list[Any]) -> None:
    with suppress(OSError):  # it has been closed
        _set(terminal, attributes)


def _attributes(terminal: int) -> list[Any]:
    try:
        return termios.tcgetattr(terminal)
    except termios.error as error:
        raise OSError(*error.args) from error


def _set(terminal: int, attributes: list[Any]) -> None:
    try:
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)  # at once: draining the output may never end
    except termios.error as error:
        raise OSError(*error.args) from error
