"""Guest memory, addressed as guests do it: by unsigned pointers, each checked against the end of the memory."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from wasmtime import Memory, SharedMemory

from greenctx.wasix._files.paths import MAX_LENGTH
from greenctx.wasix._modules.abi import MEMORY

if TYPE_CHECKING:
    from greenctx.wasix._fibers.stores import Caller


class MemoryFault(Exception):
    """A guest's pointer does not point to that many bytes of its memory. See `table.BAD_POINTER` for the answer."""


class GuestMemory:
    """The memory that the calling guest exports, shared or not.

    Every address is unsigned, and checked: one out of range raises `MemoryFault`. (wasmtime's own `Memory` counts a
    negative start from the end.)
    """

    def __init__(self, caller: Caller) -> None:
        memory = caller.get(MEMORY)
        self._store: tuple[Caller, ...]  # empty for a shared memory, whose methods take no store
        if isinstance(memory, Memory):
            self._store = (caller,)
        elif isinstance(memory, SharedMemory):
            self._store = ()
        else:
            raise MemoryFault
        self._memory = memory

    def check(self, pointer: int, length: int) -> None:
        """Raise `MemoryFault` unless all of the ``length`` bytes are within the memory."""
        # Pointers arrive unsigned, but a negative one would reach the host's own memory.
        if pointer < 0 or pointer + length > self._memory.data_len(*self._store):
            raise MemoryFault

    def read(self, pointer: int, length: int) -> bytes:
        """Copy bytes out of the memory."""
        return ctypes.string_at(self._host_address(pointer, length), length)

    def read_path(self, pointer: int, length: int) -> bytes:
        """Copy a path or a name out of the memory. Of a path that is too long, copy just enough to show that."""
        self.check(pointer, length)
        return self.read(pointer, min(length, MAX_LENGTH + 1))

    def write(self, pointer: int, data: bytes) -> None:
        """Copy bytes into the memory: all of them or, if they do not fit, none."""
        ctypes.memmove(self._host_address(pointer, len(data)), data, len(data))

    def read_u32(self, pointer: int) -> int:
        return int.from_bytes(self.read(pointer, 4), "little")

    def write_u32(self, pointer: int, value: int) -> None:
        self.write(pointer, value.to_bytes(4, "little"))

    def write_u64(self, pointer: int, value: int) -> None:
        self.write(pointer, value.to_bytes(8, "little"))

    def _host_address(self, pointer: int, length: int) -> int:
        # Looked up each time, because growing may move the memory.
        self.check(pointer, length)
        return ctypes.addressof(self._memory.data_ptr(*self._store).contents) + pointer if length else 0
