"""The guest's ``__stack_pointer`` and the memory that it points into, read and written in a fraction of a microsecond.

The wasmtime package's own `Global.value` and `Global.set_value` take 10 to 50 times as long, more than all the rest of
a switch.
"""

from __future__ import annotations

import ctypes
from ctypes import PYFUNCTYPE, addressof, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING

from wasmtime import _bindings as ffi
from wasmtime._ffi import dll

if TYPE_CHECKING:
    from wasmtime import Global, Memory, Store


def _address(function: object) -> int:
    return ctypes.cast(function, c_void_p).value or 0  # type: ignore[arg-type]


# With the GIL held, unlike the package's: they take less time than to let go of it.
_get = PYFUNCTYPE(None, c_void_p, c_void_p, c_void_p)(_address(dll.wasmtime_global_get))
_set = PYFUNCTYPE(c_void_p, c_void_p, c_void_p, c_void_p)(_address(dll.wasmtime_global_set))
_data = PYFUNCTYPE(c_void_p, c_void_p, c_void_p)(_address(dll.wasmtime_memory_data))


class StackPointer:
    """The global, as an unsigned number. The store must be open."""

    def __init__(self, store: Store, pointer: Global, memory: Memory) -> None:
        """``pointer`` must be mutable, and an i32 or an i64."""
        self._objects = pointer._global, memory._memory, ffi.wasmtime_val_t()  # what the addresses are of
        self._global, self._memory, self._value = map(addressof, self._objects)
        self._context = _address(store._context())
        self.bits = 64 if str(pointer.type(store).content) == "i64" else 32
        slot = c_uint64 if self.bits == 64 else c_uint32
        self._slot = slot.from_address(self._value + ffi.wasmtime_val_t.of.offset)

    def get(self) -> int:
        _get(self._context, self._global, self._value)
        return self._slot.value

    def set(self, value: int) -> None:
        _get(self._context, self._global, self._value)  # for its type
        self._slot.value = value
        _set(self._context, self._global, self._value)

    def read_memory(self, start: int, length: int) -> bytes:
        """Read from the guest's memory; all of it must be there."""
        return ctypes.string_at(_data(self._context, self._memory) + start, length)

    def write_memory(self, start: int, data: bytes) -> None:
        """The same for writing."""
        ctypes.memmove(_data(self._context, self._memory) + start, data, len(data))
