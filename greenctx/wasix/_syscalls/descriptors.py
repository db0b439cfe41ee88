"""WASI's calls about file descriptors as such: served here for pipes and standard streams, by wasmtime for others."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from greenctx.wasix._files.descriptors import FIRST_OWN
from greenctx.wasix._files.stdio import Sink, Source
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.process import call_wasmtime, process_of
from greenctx.wasix._syscalls.table import wasi_calls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables
    from greenctx.wasix._syscalls.table import SystemCall

# fdstat and filestat of WASI preview 1 (wasi/api.h). WASI has no type for pipes: theirs is "unknown".
_FDSTAT = Struct("<B x H 4x Q Q")  # type, flags, rights, inheriting rights
_FILESTAT = Struct("<Q Q B 7x Q Q Q Q Q")  # device, inode, type, links, size, times
_UNKNOWN = 0
_NONBLOCK = 4
_READ, _WRITE = 1 << 1, 1 << 6  # rights
_COMMON = 1 << 3 | 1 << 21 | 1 << 27  # rights to set flags, to get a filestat, to poll

MAX_RENUMBERED = 256
"""The first number that ``fd_renumber`` cannot open: see `Directories.occupy`."""

_NAMES = ("fd_close", "fd_renumber")
_WITH_PIPES = ("fd_fdstat_get", "fd_fdstat_set_flags", "fd_filestat_get", "fd_seek", "fd_tell")


class DescriptorCalls:
    """Host functions for one linker."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors

    def calls(self) -> Iterator[SystemCall]:
        """Yield the calls that matter to standard streams, and to the number of open files."""
        return wasi_calls_of(self, *_NAMES)

    def calls_with_pipes(self) -> Iterator[SystemCall]:
        """Yield the others. Only where there are pipes and duplicates they differ from wasmtime's."""
        return wasi_calls_of(self, *_WITH_PIPES)

    def fd_close(self, caller: Caller, fd: int) -> int:
        """Close a descriptor."""
        descriptors = self._descriptors.of(caller)
        if fd >= FIRST_OWN:
            return abi.BADF if descriptors.remove(fd) is None else abi.SUCCESS
        process = process_of(caller.store)
        process.open_files(caller)
        result = process.wasi(caller).call(caller, "fd_close", fd)
        if result == abi.SUCCESS:
            process.note_files(caller, -1)
            descriptors.remove(fd)
        return result

    def fd_renumber(self, caller: Caller, fd: int, to: int) -> int:
        """Let the descriptor ``to`` refer to the file of ``fd``.

        In WASI that moves the descriptor, and ``to`` has to be open. In WASIX it copies it to any number, because its
        libc's ``dup2`` is this call. Descriptors of wasmtime's files cannot be copied, so they are moved in WASIX too.
        """
        result, tables = self._renumber(caller, fd, to), self._descriptors
        if result == abi.BADF and tables.of(caller).copies and to < MAX_RENUMBERED:
            process = process_of(caller.store)
            if tables.is_open(caller, fd) and process.directories.occupy(process.scratch(caller), caller, to):
                return self._renumber(caller, fd, to)
        return result

    def _renumber(self, caller: Caller, fd: int, to: int) -> int:
        descriptors, process = self._descriptors.of(caller), process_of(caller.store)
        file = descriptors.get(fd)
        copied = file is not None and (descriptors.copies or descriptors.wasmtime_fd(fd) is None)
        if fd < FIRST_OWN and to < FIRST_OWN and not copied:
            process.open_files(caller)
            result = process.wasi(caller).call(caller, "fd_renumber", fd, to)
            if result == abi.SUCCESS and fd != to:
                process.note_files(caller, -1)  # wasmtime takes only numbers of open descriptors
                if file is None:
                    descriptors.remove(to)
                else:
                    descriptors.put(to, file)
                descriptors.remove(fd)
            return result
        if not (self._descriptors.is_open(caller, fd) and self._descriptors.is_open(caller, to)):
            return abi.BADF
        if file is None:
            return abi.NOTSUP
        descriptors.put(to, file)
        descriptors.set_flags(to, 0)
        return abi.SUCCESS

    def fd_fdstat_get(self, caller: Caller, fd: int, result_pointer: int) -> int:
        """Store the type of a descriptor, its flags and rights."""
        file = self._own(caller, fd)
        if file is None:
            return self._as_wasmtime(caller, "fd_fdstat_get", fd, result_pointer)
        rights = _COMMON | _READ * isinstance(file, Source) | _WRITE * isinstance(file, Sink)
        return _store(caller, result_pointer, _FDSTAT.pack(_UNKNOWN, file.flags, rights, 0))

    def fd_fdstat_set_flags(self, caller: Caller, fd: int, flags: int) -> int:
        """Set a descriptor's flags. Reading and writing a pipe never waits, whatever its flags."""
        file = self._own(caller, fd)
        if file is None:
            return self._as_wasmtime(caller, "fd_fdstat_set_flags", fd, flags)
        file.flags = flags & _NONBLOCK
        return abi.SUCCESS

    def fd_filestat_get(self, caller: Caller, fd: int, result_pointer: int) -> int:
        """Store the file's type, size and times."""
        if self._own(caller, fd) is None:
            return self._as_wasmtime(caller, "fd_filestat_get", fd, result_pointer)
        return _store(caller, result_pointer, _FILESTAT.pack(0, 0, _UNKNOWN, 1, 0, 0, 0, 0))

    def fd_seek(self, caller: Caller, fd: int, offset: int, whence: int, result_pointer: int) -> int:
        """Move to another place in the file. Pipes have none."""
        if self._own(caller, fd) is None:
            return self._as_wasmtime(caller, "fd_seek", fd, offset, whence, result_pointer)
        return abi.SPIPE

    def fd_tell(self, caller: Caller, fd: int, result_pointer: int) -> int:
        """Store the place in the file. Pipes have none."""
        if self._own(caller, fd) is None:
            return self._as_wasmtime(caller, "fd_tell", fd, result_pointer)
        return abi.SPIPE

    def _own(self, caller: Caller, fd: int) -> Source | Sink | None:
        """Return the file that the descriptor refers to, if wasmtime does not know the file."""
        descriptors = self._descriptors.of(caller)
        return descriptors.get(fd) if descriptors.wasmtime_fd(fd) is None else None

    def _as_wasmtime(self, caller: Caller, name: str, fd: int, *args: int) -> int:
        wasmtime_fd = self._descriptors.of(caller).wasmtime_fd(fd)
        assert wasmtime_fd is not None
        return call_wasmtime(name, caller, wasmtime_fd, *args)


def _store(caller: Caller, result_pointer: int, data: bytes) -> int:
    GuestMemory(caller).write(result_pointer, data)
    return abi.SUCCESS
