"""The guest's ``__stack_pointer`` and the memory that it points into, read and written in a fraction of a microsecond.

The wasmtime package's own `Global.value` and `Global.set_value` take 10 to 50 times as long, more than all the rest of
a switch.
"""

from __future__ import annotations

import ctypes
from ctypes import PYFUNCTYPE, addressof, c_uint32, c_uint64, c_void_p
from functools import partial
from typing import TYPE_CHECKING

from wasmtime import _bindings as ffi
from wasmtime._ffi import dll

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self.bits = 64 if str(pointer.type(store).content) == "i64" else 32
        found, given = ffi.wasmtime_val_t(), ffi.wasmtime_val_t()
        self._kept_alive = pointer, memory, found, given
        context = addressof(store._context().contents)  # not by a cast, which leaves a reference cycle behind
        self._get = partial(_get, context, addressof(pointer._global), addressof(found))
        self._set = partial(_set, context, addressof(pointer._global), addressof(given))
        self.memory_address: Callable[[], int] = partial(_data, context, addressof(memory._memory))
        """Where the guest's memory is; growing may move it."""
        number, offset = c_uint64 if self.bits == 64 else c_uint32, ffi.wasmtime_val_t.of.offset
        self._found, self._given = (number.from_address(addressof(value) + offset) for value in (found, given))
        _get(context, addressof(pointer._global), addressof(given))  # for its type

    def get(self) -> int:
        self._get()
        return self._found.value

    def set(self, value: int) -> None:
        self._given.value = value
        self._set()
