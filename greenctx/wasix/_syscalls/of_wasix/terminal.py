"""WASIX's calls about the terminal."""

from __future__ import annotations

import os
from struct import Struct
from typing import TYPE_CHECKING

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
_WIDTH, _HEIGHT = 800, 600  # in pixels, which nobody knows


class TerminalCalls:
    """Host functions for one linker."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors

    def tty_get(self, caller: Caller, result_pointer: int) -> int:
        """Store the terminal's size, which streams are terminals, and the modes that the guest has set."""
        files = map(self._descriptors.of(caller).get, range(3))
        hosts = [None if file is None else file.descriptor for file in files]
        terminals = [host is not None and os.isatty(host) for host in hosts]
        size = next((_size(host) for host, is_terminal in zip(hosts, terminals, strict=True) if is_terminal), None)
        modes = process_of(caller.store).terminal_modes
        fields = *(size or _DEFAULT_SIZE), _WIDTH, _HEIGHT, *terminals, *modes
        GuestMemory(caller).write(result_pointer, _TTY.pack(*fields))
        return abi.SUCCESS

    def tty_set(self, caller: Caller, tty: int) -> int:
        """Set the modes that `tty_get` stores. The host's terminal stays as it is."""
        fields = _TTY.unpack(GuestMemory(caller).read(tty, _TTY.size))
        process_of(caller.store).terminal_modes = fields[-3:]
        return abi.SUCCESS


def _size(descriptor: int | None) -> tuple[int, int] | None:
    try:
        size = os.get_terminal_size(descriptor or 0)
    except OSError:
        return None
    return size if all(size) else None
