"""WASI's calls about file descriptors: served here for pipes and standard streams, by wasmtime for files."""

from __future__ import annotations

from functools import partial
from struct import Struct
from typing import TYPE_CHECKING

from greenctx.wasix._files.descriptors import MAX_FD, TooManyDescriptors
from greenctx.wasix._files.directories import FIRST_PREOPEN
from greenctx.wasix._files.stdio import Sink, Source
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.process import call_wasmtime, process_of
from greenctx.wasix._syscalls.table import wasi_call, wasi_calls_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables
    from greenctx.wasix._syscalls.table import SystemCall

# fdstat and filestat of WASI preview 1 (wasi/api.h). WASI has no type for pipes, which are "unknown".
_FDSTAT = Struct("<B x H 4x Q Q")  # type, flags, rights, inheriting rights
_FILESTAT = Struct("<Q Q B 7x Q Q Q Q Q")  # device, inode, type, links, size, times
_UNKNOWN, _INHERITING = 0, 16  # the type, and the offset of the inheriting rights in an fdstat
_NONBLOCK = 4
_READ, _WRITE = 1 << 1, 1 << 6  # rights
_COMMON = 1 << 3 | 1 << 21 | 1 << 27  # rights to set flags, to get a filestat, to poll

_NAMES = ("fd_close", "fd_renumber")
_WITH_PIPES = ("fd_fdstat_get", "fd_fdstat_set_flags", "fd_filestat_get")
_OF_PIPES = {
    "fd_advise": abi.SPIPE,
    "fd_allocate": abi.SPIPE,
    "fd_datasync": abi.INVAL,
    "fd_fdstat_set_rights": abi.SUCCESS,
    "fd_filestat_set_size": abi.INVAL,
    "fd_filestat_set_times": abi.SUCCESS,
    "fd_pread": abi.SPIPE,
    "fd_prestat_dir_name": abi.BADF,
    "fd_prestat_get": abi.BADF,
    "fd_pwrite": abi.SPIPE,
    "fd_readdir": abi.NOTDIR,
    "fd_seek": abi.SPIPE,
    "fd_sync": abi.INVAL,
    "fd_tell": abi.SPIPE,
    "sock_recv": abi.NOTSOCK,
    "sock_send": abi.NOTSOCK,
    "sock_shutdown": abi.NOTSOCK,
}
"""The calls that wasmtime serves except for pipes, and their errnos for pipes, as on Linux."""


class DescriptorCalls:
    """Host functions for one linker."""

    def __init__(self, descriptors: DescriptorTables) -> None:
        self._descriptors = descriptors

    def calls(self) -> Iterator[SystemCall]:
        """Yield the calls that matter to standard streams, and to the number of open files."""
        return wasi_calls_of(self, *_NAMES)

    def calls_with_pipes(self) -> Iterator[SystemCall]:
        """Yield the others. They differ from wasmtime's only for pipes and duplicates."""
        yield from wasi_calls_of(self, *_WITH_PIPES)
        for name, of_pipes in _OF_PIPES.items():
            yield wasi_call(name, partial(self._as_wasmtime, name, of_pipes))

    def fd_close(self, caller: Caller, fd: int) -> int:
        """Close a descriptor."""
        descriptors = self._descriptors.of(caller)
        self._keep_preopen(caller, fd)
        if not descriptors.is_known(fd):
            result = self._close_in_wasmtime(caller, fd)
            if result == abi.SUCCESS:
                descriptors.remove(fd)
            return result
        if descriptors.is_closed(fd):
            return abi.BADF
        unused = descriptors.remove(fd)
        return abi.SUCCESS if unused is None else self._close_in_wasmtime(caller, unused)

    def fd_renumber(self, caller: Caller, fd: int, to: int) -> int:
        """Let the descriptor ``to`` refer to the file of ``fd``.

        In WASI that moves the descriptor, and ``to`` has to be open. In WASIX it copies it to any number, because its
        libc's ``dup2`` is this call.
        """
        descriptors = self._descriptors.of(caller)
        if not descriptors.copies and descriptors.is_alone(fd) and descriptors.is_alone(to):
            return self._move(caller, fd, to)
        if not self._descriptors.is_open(caller, fd):
            return abi.BADF
        is_open = self._descriptors.is_open(caller, to)
        if to > MAX_FD or not (is_open or descriptors.copies):
            return abi.BADF
        if fd == to:
            return abi.SUCCESS
        self._keep_preopen(caller, to)
        try:
            unused = descriptors.put(to, descriptors.file(fd), is_open=is_open)
        except TooManyDescriptors:
            return abi.MFILE
        descriptors.set_flags(to, 0)
        if unused is not None:
            self._close_in_wasmtime(caller, unused)
        return abi.SUCCESS

    def _keep_preopen(self, caller: Caller, fd: int) -> None:
        """Keep the descriptor of a preopened directory open in wasmtime, because paths from the root lead there."""
        if self._descriptors.has_duplicates and fd >= FIRST_PREOPEN:
            process = process_of(caller.store)
            if any(fd == preopen for preopen, _ in process.directories.preopens(process.scratch(caller), caller)):
                self._descriptors.of(caller).keep(fd)

    def _move(self, caller: Caller, fd: int, to: int) -> int:
        process = process_of(caller.store)
        process.open_files(caller)
        result = process.wasi(caller).call(caller, "fd_renumber", fd, to)
        if result == abi.SUCCESS and fd != to:
            process.note_files(caller, -1)  # wasmtime takes only numbers of open descriptors
            self._descriptors.of(caller).move(fd, to)
        return result

    def _close_in_wasmtime(self, caller: Caller, fd: int) -> int:
        process = process_of(caller.store)
        process.open_files(caller)
        result = process.wasi(caller).call(caller, "fd_close", fd)
        if result == abi.SUCCESS:
            process.note_files(caller, -1)
        return result

    def fd_fdstat_get(self, caller: Caller, fd: int, result_pointer: int) -> int:
        """Store the type of a descriptor, its flags and rights."""
        descriptors, memory = self._descriptors.of(caller), GuestMemory(caller)
        directory, inheriting = descriptors.directory(fd), b""
        if directory != descriptors.wasmtime_fd(fd):  # the libc asks what it may open there
            if error := call_wasmtime("fd_fdstat_get", caller, directory, result_pointer):
                return error
            inheriting = memory.read(result_pointer + _INHERITING, 8)
        pipe = descriptors.in_memory(fd)
        if pipe is None:
            error = self._as_wasmtime("fd_fdstat_get", abi.BADF, caller, fd, result_pointer)
        else:
            rights = _COMMON | _READ * isinstance(pipe, Source) | _WRITE * isinstance(pipe, Sink)
            error = _store(caller, result_pointer, _FDSTAT.pack(_UNKNOWN, pipe.flags, rights, 0))
        if inheriting and not error:
            memory.write(result_pointer + _INHERITING, inheriting)
        return error

    def fd_fdstat_set_flags(self, caller: Caller, fd: int, flags: int) -> int:
        """Set a descriptor's flags. Reading and writing a pipe never waits, whatever its flags."""
        pipe = self._descriptors.of(caller).in_memory(fd)
        if pipe is None:
            return self._as_wasmtime("fd_fdstat_set_flags", abi.BADF, caller, fd, flags)
        pipe.flags = flags & _NONBLOCK
        return abi.SUCCESS

    def fd_filestat_get(self, caller: Caller, fd: int, result_pointer: int) -> int:
        """Store the file's type, size and times."""
        if self._descriptors.of(caller).in_memory(fd) is None:
            return self._as_wasmtime("fd_filestat_get", abi.BADF, caller, fd, result_pointer)
        return _store(caller, result_pointer, _FILESTAT.pack(0, 0, _UNKNOWN, 1, 0, 0, 0, 0))

    def _as_wasmtime(self, name: str, of_pipes: int, caller: Caller, fd: int, *args: int) -> int:
        """Call wasmtime's function for the file that the descriptor refers to; for pipes return that errno."""
        descriptors = self._descriptors.of(caller)
        if descriptors.in_memory(fd) is not None:
            return of_pipes
        return self._descriptors.call_wasmtime(name, caller, fd, *args)


def _store(caller: Caller, result_pointer: int, data: bytes) -> int:
    GuestMemory(caller).write(result_pointer, data)
    return abi.SUCCESS
