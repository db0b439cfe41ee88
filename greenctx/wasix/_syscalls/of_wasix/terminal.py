"""WASIX's calls about the terminal."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from greenctx.wasix._files.terminal import find_terminal, is_terminal, modes_of, size_of
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables

TERMINAL_TYPES = {"tty_get": "p -> i32", "tty_set": "p -> i32"}

_TTY = Struct("<4I 3? 3? 2x")
"""tty (wasi/api_wasix.h): columns, rows, width, height; whether stdin, stdout and stderr are terminals; the modes."""

_DEFAULT_SIZE = 80, 25  # as in Wasmer
_WIDTH, _HEIGHT = 800, 600  # in pixels, which are not known


class TerminalCalls:
    """Host functions for one linker."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors

    def tty_get(self, caller: Caller, result_pointer: int) -> int:
        """Store the terminal's size, which streams are terminals, and the modes: those of the terminal, if any."""
        hosts = self._hosts(caller)
        terminal, process = find_terminal(hosts), process_of(caller.store)
        size, modes = None, process.terminal_modes
        if terminal is not None:
            size = size_of(terminal)
            try:
                modes = *modes_of(terminal), modes[-1]
            except OSError:  # it has hung up
                return abi.IO
        fields = *(size or _DEFAULT_SIZE), _WIDTH, _HEIGHT, *map(is_terminal, hosts), *modes
        GuestMemory(caller).write(result_pointer, _TTY.pack(*fields))
        return abi.SUCCESS

    def tty_set(self, caller: Caller, tty: int) -> int:
        """Set whether the terminal echoes, and whether it waits for whole lines, until the program ends.

        Line feeds are only remembered: the flag that WASIX's libc passes for them means something else.
        """
        echoes, whole_lines, line_feeds = _TTY.unpack(GuestMemory(caller).read(tty, _TTY.size))[-3:]
        terminal, process = find_terminal(self._hosts(caller)), process_of(caller.store)
        if terminal is not None:
            try:
                process.terminal.set(terminal, echoes=echoes, whole_lines=whole_lines)
            except OSError:
                return abi.IO
        process.terminal_modes = echoes, whole_lines, line_feeds
        return abi.SUCCESS

    def _hosts(self, caller: Caller) -> list[int | None]:
        """Return the host's descriptors of the standard streams, as far as these have any."""
        files = map(self._descriptors.of(caller).get, range(3))
        return [None if file is None else file.descriptor for file in files]
