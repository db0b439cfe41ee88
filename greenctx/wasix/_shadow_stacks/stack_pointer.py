"""The guest's ``__stack_pointer`` and the memory that it points into, read and written in a fraction of a microsecond.

The wasmtime package's own `Global.value` and `Global.set_value` take 10 to 50 times as long, more than all the rest of
a switch.
"""

from __future__ import annotations

from ctypes import addressof, c_uint32, c_uint64
from functools import partial
from typing import TYPE_CHECKING

from greenctx.wasix._native import capi
from greenctx.wasix._native.capi_values import VALUE_OFFSET, new_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Global, Memory, Store


# With the GIL held: they take less time than to let go of it.
_get = capi.quick_function("global_get", 3)
_set = capi.quick_function("global_set", 3, returns_pointer=True)
_data = capi.quick_function("memory_data", 2, returns_pointer=True)


class StackPointer:
    """The global, as an unsigned number. The store must be open."""

    def __init__(self, store: Store, pointer: Global, memory: Memory) -> None:
        """``pointer`` must be mutable, and an i32 or an i64."""
        self.bits = 64 if str(pointer.type(store).content) == "i64" else 32
        found, given = new_values(1), new_values(1)
        self._kept_alive = pointer, memory, found, given
        context, address = capi.context_address(store), capi.item_address(pointer)
        self._get = partial(_get, context, address, addressof(found))
        self._set = partial(_set, context, address, addressof(given))
        self.memory_address: Callable[[], int] = partial(_data, context, capi.item_address(memory))
        """Where the guest's memory is; growing may move it."""
        number = c_uint64 if self.bits == 64 else c_uint32
        self._found, self._given = (number.from_address(addressof(value) + VALUE_OFFSET) for value in (found, given))
        _get(context, address, addressof(given))  # for its type

    def get(self) -> int:
        self._get()
        return self._found.value

    def set(self, value: int) -> None:
        self._given.value = value
        self._set()
