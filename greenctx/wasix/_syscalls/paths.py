"""WASI's calls with paths, for absolute paths as well, which wasmtime refuses.

WASI's libcs remove the preopened directory from the beginning of a path. WASIX's libc leaves it there if it is ``/``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from greenctx.wasix._files.paths import MAX_LENGTH, is_absolute
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.process import call_wasmtime, process_of
from greenctx.wasix._syscalls.table import wasi_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables
    from greenctx.wasix._syscalls.table import SystemCall

_PATHS = {
    "path_create_directory": [(0, 1)],
    "path_filestat_get": [(0, 2)],
    "path_filestat_set_times": [(0, 2)],
    "path_link": [(0, 2), (4, 5)],
    "path_open": [(0, 2)],
    "path_readlink": [(0, 1)],
    "path_remove_directory": [(0, 1)],
    "path_rename": [(0, 1), (3, 4)],
    "path_symlink": [(2, 3)],
    "path_unlink_file": [(0, 1)],
}
"""For each call and path: the positions of the directory's descriptor and of the pointer. Its length is next to it."""


class PathCalls:
    """Host functions for one linker."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors

    def calls(self) -> Iterator[SystemCall]:
        """Yield the call that matters to the number of open files."""
        yield wasi_call("path_open", self.path_open)

    def calls_with_absolute_paths(self) -> Iterator[SystemCall]:
        """Yield all of them, for absolute paths and for duplicates of descriptors."""
        for name in _PATHS:
            yield wasi_call(name, partial(self._call, name))

    def path_open(self, caller: Caller, *args: int) -> int:
        """Open a file, if the program's limit allows one more."""
        memory = GuestMemory(caller)
        memory.check(args[-1], 4)  # checked before, because an opened descriptor would be lost
        process = process_of(caller.store)
        if not process.may_open(caller):
            return abi.MFILE
        error = call_wasmtime("path_open", caller, *args)
        if error == abi.SUCCESS:
            number = self._descriptors.note_opened(caller, memory.read_u32(args[-1]))
            if number is None:
                return abi.MFILE
            memory.write_u32(args[-1], number)
        return error

    def _call(self, name: str, caller: Caller, *args: int) -> int:
        arguments, borrowed = [*args], []
        memory = GuestMemory(caller)
        process = process_of(caller.store)
        for fd, pointer in _PATHS[name]:
            path = memory.read_path(arguments[pointer], arguments[pointer + 1])
            if not is_absolute(path):
                arguments[fd] = self._descriptors.of(caller).directory(arguments[fd])
                continue
            if len(path) > MAX_LENGTH:
                return abi.NAMETOOLONG
            found = process.directories.find(process.scratch(caller), caller, path)
            if found is None:
                return abi.NOENT
            arguments[fd], end = found
            if end == len(path):  # the directory itself: the path's last byte becomes a dot for the call
                end -= 1
                borrowed.append((arguments[pointer] + end, path[-1:]))
            arguments[pointer], arguments[pointer + 1] = arguments[pointer] + end, len(path) - end
        try:
            for address, _ in borrowed:
                memory.write(address, b".")
            return (
                self.path_open(caller, *arguments) if name == "path_open" else call_wasmtime(name, caller, *arguments)
            )
        finally:
            for address, byte in borrowed:
                memory.write(address, byte)
