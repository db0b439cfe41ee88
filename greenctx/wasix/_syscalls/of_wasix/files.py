"""WASIX's calls about files besides WASI's: the working directory, pipes, duplicates, and flags of descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx.wasix._files import paths
from greenctx.wasix._files.descriptors import CLOSE_ON_EXEC, MAX_FD, TooManyDescriptors
from greenctx.wasix._files.pipes import make_pipe
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from wasmtime import Module

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables

FILE_TYPES = {
    "chdir": "i32 i32 -> i32",
    "fd_dup": "i32 i32 -> i32",
    "fd_dup2": "i32 i32 i32 i32 -> i32",
    "fd_fdflags_get": "i32 i32 -> i32",
    "fd_fdflags_set": "i32 i32 -> i32",
    "fd_pipe": "i32 i32 -> i32",
    "getcwd": "i32 i32 -> i32",
    "path_open2": "i32 i32 i32 i32 i32 i64 i64 i32 i32 i32 -> i32",
}


# All that WASI preview 1 has of each (wasi/api.h).
_LOOKUP_FLAGS, _OPEN_FLAGS, _FD_FLAGS, _RIGHTS = 1, (1 << 4) - 1, (1 << 5) - 1, (1 << 30) - 1
_TRUE = 1  # bool (wasi/api_wasix.h)


def is_wasix_program(module: Module) -> bool:
    """Whether the module imports anything of WASIX but the context calls. Other modules have no pipes, nor WASIX's
    paths from the root.
    """
    return any(
        wanted.module == abi.WASIX_MODULE and not (wanted.name or "").startswith("context_")
        for wanted in module.imports
    )


class FileCalls:
    """The calls of one linker."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors

    def getcwd(self, caller: Caller, buffer: int, size: int) -> int:
        """Store the working directory, with a NUL at its end, and its length; or just the size, if it does not fit."""
        memory = GuestMemory(caller)
        path = process_of(caller.store).directories.current
        room = memory.read_u32(size)
        if len(path) + 1 > room:
            memory.write_u32(size, len(path) + 1)
            return abi.RANGE
        memory.write(buffer, path + b"\0")
        memory.write_u32(size, len(path))
        return abi.SUCCESS

    def chdir(self, caller: Caller, path: int, length: int) -> int:
        """Change the working directory."""
        name = GuestMemory(caller).read_path(path, length)
        if len(name) > paths.MAX_LENGTH:
            return abi.NAMETOOLONG
        if not name:
            return abi.NOENT
        if not _is_utf8(name):
            return abi.INVAL
        process = process_of(caller.store)
        return process.directories.change(process.scratch(caller), caller, name)

    def path_open2(
        self,
        caller: Caller,
        fd: int,
        lookup_flags: int,
        path: int,
        length: int,
        open_flags: int,
        rights: int,
        inheriting: int,
        fd_flags: int,
        flags: int,
        result_pointer: int,
    ) -> int:
        """Open a file as WASI's ``path_open``, but take absolute paths too, and flags of the descriptor.

        Leaves out unknown flags and rights, as Wasmer does. wasmtime's ``path_open`` would end the program.
        """
        memory = GuestMemory(caller)
        memory.check(result_pointer, 4)
        name = memory.read_path(path, length)
        if len(name) > paths.MAX_LENGTH:
            return abi.NAMETOOLONG
        if not _is_utf8(name):
            return abi.INVAL
        descriptors = self._descriptors.of(caller)
        directory = descriptors.directory(fd)
        is_stream = descriptors.get(fd) is not None and directory == descriptors.wasmtime_fd(fd)
        if is_stream and not paths.is_absolute(name):
            return abi.NOTDIR
        process = process_of(caller.store)
        if not process.may_open(caller):
            return abi.MFILE
        error, opened = process.directories.open(
            process.scratch(caller),
            caller,
            directory,
            lookup_flags & _LOOKUP_FLAGS,
            name,
            open_flags & _OPEN_FLAGS,
            rights & _RIGHTS,
            inheriting & _RIGHTS,
            fd_flags & _FD_FLAGS,
        )
        if error == abi.SUCCESS:
            number = self._descriptors.note_opened(caller, opened)
            if number is None:
                return abi.MFILE
            descriptors.set_flags(number, flags & CLOSE_ON_EXEC)
            memory.write_u32(result_pointer, number)
        return error

    def fd_pipe(self, caller: Caller, read_pointer: int, write_pointer: int) -> int:
        """Make a pipe; store the descriptors of its ends."""
        if self._descriptors.stdio is None:  # then wasmtime reads and writes, and it has no pipes
            return abi.NOTSUP
        memory = GuestMemory(caller)
        memory.check(read_pointer, 4)
        memory.check(write_pointer, 4)
        try:
            read, write = self._descriptors.of(caller).add(*make_pipe())
        except TooManyDescriptors:
            return abi.MFILE
        memory.write_u32(read_pointer, read)
        memory.write_u32(write_pointer, write)
        return abi.SUCCESS

    def fd_dup(self, caller: Caller, fd: int, result_pointer: int) -> int:
        """Duplicate a descriptor."""
        return self.fd_dup2(caller, fd, 0, 0, result_pointer)

    def fd_dup2(self, caller: Caller, fd: int, lowest: int, close_on_exec: int, result_pointer: int) -> int:
        """Duplicate a descriptor, not below ``lowest``."""
        if lowest > MAX_FD:
            return abi.INVAL
        if not self._descriptors.is_open(caller, fd):
            return abi.BADF
        if self._descriptors.stdio is None:  # then reading and writing are wasmtime's, which has no duplicates
            return abi.NOTSUP
        memory = GuestMemory(caller)
        memory.check(result_pointer, 4)
        descriptors, flags = self._descriptors.of(caller), CLOSE_ON_EXEC if close_on_exec == _TRUE else 0
        try:
            (duplicate,) = descriptors.add(descriptors.file(fd), lowest=lowest, flags=flags)
        except TooManyDescriptors:
            return abi.MFILE
        memory.write_u32(result_pointer, duplicate)
        return abi.SUCCESS

    def fd_fdflags_get(self, caller: Caller, fd: int, result_pointer: int) -> int:
        """Store the flags of a descriptor: whether exec would close it."""
        if not self._descriptors.is_open(caller, fd):
            return abi.BADF
        GuestMemory(caller).write(result_pointer, self._descriptors.of(caller).flags(fd).to_bytes(2, "little"))
        return abi.SUCCESS

    def fd_fdflags_set(self, caller: Caller, fd: int, flags: int) -> int:
        """Set the flags of a descriptor. Unknown ones are left out, as in Wasmer and by Linux."""
        if not self._descriptors.is_open(caller, fd):
            return abi.BADF
        self._descriptors.of(caller).set_flags(fd, flags & CLOSE_ON_EXEC)
        return abi.SUCCESS


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
