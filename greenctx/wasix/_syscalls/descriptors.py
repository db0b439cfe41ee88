"""WASI's calls about file descriptors as such: those of pipes and standard streams here, others as wasmtime does."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from greenctx.wasix._fibers.values import func_type
from greenctx.wasix._files.descriptors import FIRST_OWN
from greenctx.wasix._files.process import PARAMETERS
from greenctx.wasix._files.stdio import Source
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory, MemoryFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._files.process import NativeWasi
    from greenctx.wasix._files.stdio import Sink

# fdstat and filestat of WASI preview 1 (wasi/api.h), where a pipe's type is "unknown".
_FDSTAT = Struct("<B x H 4x Q Q")  # type, flags, rights, inheriting rights
_FILESTAT = Struct("<Q Q B 7x Q Q Q Q Q")  # device, inode, type, links, size, times
_UNKNOWN = 0
_NONBLOCK = 4
_READ, _WRITE = 1 << 1, 1 << 6  # rights
_COMMON = 1 << 3 | 1 << 21 | 1 << 27  # to set flags, to get a filestat, to poll

_NAMES = ("fd_close", "fd_renumber")
_WITH_PIPES = ("fd_fdstat_get", "fd_fdstat_set_flags", "fd_filestat_get", "fd_seek", "fd_tell")


class DescriptorCalls:
    """Host functions for one linker."""

    def __init__(self, native: NativeWasi) -> None:
        self._native = native

    def define(self, define_func: Callable[..., None]) -> None:
        """Define those functions with a linker's ``define_func`` that matter to standard streams."""
        self._define(define_func, _NAMES)

    def define_for_wasix(self, define_func: Callable[..., None]) -> None:
        """Define the others, for which only pipes and duplicates are something that wasmtime does not know."""
        self._define(define_func, _WITH_PIPES)

    def _define(self, define_func: Callable[..., None], names: tuple[str, ...]) -> None:
        for name in names:
            ty = func_type(f"{PARAMETERS[name]} -> i32")
            define_func(abi.WASI_MODULE, name, ty, getattr(self, name), access_caller=True)

    def fd_close(self, caller: Caller, fd: int) -> int:
        """Close a descriptor, which stands for nothing afterwards."""
        fd &= abi.U32_MASK
        descriptors = self._native.descriptors(caller)
        if fd >= FIRST_OWN:
            return abi.BADF if descriptors.remove(fd) is None else abi.SUCCESS
        result = self._native.of(caller).call(caller, "fd_close", fd)
        if result == abi.SUCCESS:
            descriptors.remove(fd)
        return result

    def fd_renumber(self, caller: Caller, fd: int, to: int) -> int:
        """Let another descriptor stand for what this one does, which is open still if that is possible.

        In WASI a descriptor is moved. In WASIX it is copied, for its libc's ``dup2`` is nothing else; but a file of
        wasmtime's cannot be copied, so that is moved.
        """
        fd, to = fd & abi.U32_MASK, to & abi.U32_MASK
        descriptors = self._native.descriptors(caller)
        file = descriptors.get(fd)
        copied = file is not None and (descriptors.copies or descriptors.native(fd) is None)
        if fd < FIRST_OWN and to < FIRST_OWN and not copied:
            result = self._native.of(caller).call(caller, "fd_renumber", fd, to)
            if result == abi.SUCCESS and fd != to:
                if file is None:
                    descriptors.remove(to)
                else:
                    descriptors.put(to, file)
                descriptors.remove(fd)
            return result
        if not (self.is_open(caller, fd) and self.is_open(caller, to)):
            return abi.BADF
        if file is None:
            return abi.NOTSUP
        descriptors.put(to, file)
        descriptors.set_flags(to, 0)
        return abi.SUCCESS

    def is_open(self, caller: Caller, fd: int) -> bool:
        """Whether the descriptor stands for anything."""
        if self._native.descriptors(caller).get(fd) is not None:
            return True
        return self._native.scratch(caller).call(caller, "fd_fdstat_get", fd, 0) == abi.SUCCESS

    def fd_fdstat_get(self, caller: Caller, fd: int, stored: int) -> int:
        """Store what a descriptor is, its flags and rights."""
        file = self._own(caller, fd)
        if file is None:
            return self._as_wasmtime(caller, "fd_fdstat_get", fd, stored)
        rights = _COMMON | (_READ if isinstance(file, Source) else _WRITE)
        return _store(caller, stored, _FDSTAT.pack(_UNKNOWN, file.flags, rights, 0))

    def fd_fdstat_set_flags(self, caller: Caller, fd: int, flags: int) -> int:
        """Set a descriptor's flags. A pipe's reads and writes never wait, whatever they are."""
        file = self._own(caller, fd)
        if file is None:
            return self._as_wasmtime(caller, "fd_fdstat_set_flags", fd, flags)
        file.flags = flags & _NONBLOCK
        return abi.SUCCESS

    def fd_filestat_get(self, caller: Caller, fd: int, stored: int) -> int:
        """Store what the file is."""
        if self._own(caller, fd) is None:
            return self._as_wasmtime(caller, "fd_filestat_get", fd, stored)
        return _store(caller, stored, _FILESTAT.pack(0, 0, _UNKNOWN, 1, 0, 0, 0, 0))

    def fd_seek(self, caller: Caller, fd: int, offset: int, whence: int, stored: int) -> int:
        """Move to another place in the file."""
        if self._own(caller, fd) is None:
            return self._as_wasmtime(caller, "fd_seek", fd, offset, whence, stored)
        return abi.SPIPE

    def fd_tell(self, caller: Caller, fd: int, stored: int) -> int:
        """Store the place in the file."""
        if self._own(caller, fd) is None:
            return self._as_wasmtime(caller, "fd_tell", fd, stored)
        return abi.SPIPE

    def _own(self, caller: Caller, fd: int) -> Source | Sink | None:
        """What the descriptor stands for, if wasmtime knows nothing of that."""
        descriptors = self._native.descriptors(caller)
        fd &= abi.U32_MASK
        return descriptors.get(fd) if descriptors.native(fd) is None else None

    def _as_wasmtime(self, caller: Caller, name: str, fd: int, *args: int) -> int:
        native = self._native.descriptors(caller).native(fd & abi.U32_MASK)
        assert native is not None
        return self._native.of(caller).call(caller, name, native, *args)


def _store(caller: Caller, pointer: int, data: bytes) -> int:
    try:
        GuestMemory(caller).write(pointer, data)
    except MemoryFault:
        return abi.FAULT
    return abi.SUCCESS
