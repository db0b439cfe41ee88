"""Values on their way between guests and host functions: wasmtime_val_t of wasmtime/val.h, many to a piece of memory.

How a function's are converted is chosen once, when it is defined.
"""

from __future__ import annotations

import ctypes
from operator import index
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeAlias

from wasmtime import Func, Val, ValType
from wasmtime import _bindings as ffi

from greenctx.errors import WrongStore
from greenctx.wasix.stores import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Store

    Load: TypeAlias = Callable[[bytes, Store], tuple[Any, ...]]
    Save: TypeAlias = Callable[[Any, Store], bytes]

_NUMBERS = {"i32": "i", "i64": "q", "f32": "f", "f64": "d"}  # in wasmtime_valkind_t's order
_SIZE = ctypes.sizeof(ffi.wasmtime_val_t)
_OFFSET = ffi.wasmtime_val_t.of.offset


def loading(kinds: list[str | None]) -> Load:
    """How arguments of those types become Python's values. The wasmtime package converts those that are not numbers."""
    unpack = Struct("=" + "".join(f"{_OFFSET}x{_number(_NUMBERS.get(kind or '', ''))}" for kind in kinds)).unpack
    references = [place for place, kind in enumerate(kinds) if kind not in _NUMBERS]

    def numbers(memory: bytes, _: Store) -> tuple[Any, ...]:
        return unpack(memory)

    def values(memory: bytes, store: Store) -> tuple[Any, ...]:
        loaded = [*unpack(memory)]
        for place in references:
            raw = ffi.wasmtime_val_t.from_buffer_copy(memory, place * _SIZE)
            loaded.insert(place, Val._from_raw(store, raw, owned=False).value)
        return tuple(loaded)

    return values if references else numbers


def saving(types: list[ValType], kinds: list[str | None]) -> Save:
    """How what a function returns becomes results of those types: None none, the value one, else a sequence of them.

    That raises TypeError, ValueError, OverflowError or `struct.error` when a value is not what it must be.
    """
    each = [_saving_one(ty, kind) for ty, kind in zip(types, kinds, strict=True)]

    def nothing(value: Any, _: Store) -> bytes:
        if value is not None:
            raise TypeError(f"it has no result but returned {value!r}")
        return b""

    def several(value: Any, store: Store) -> bytes:
        values = tuple(value)
        if len(values) != len(each):
            raise ValueError(f"it has {len(each)} results but returned {len(values)}")
        return b"".join([save(one, store) for save, one in zip(each, values, strict=True)])

    return each[0] if len(each) == 1 else several if each else nothing


def _number(code: str) -> str:
    return f"{code}{_SIZE - _OFFSET - Struct('=' + code).size}x"


def _saving_one(ty: ValType, kind: str | None) -> Save:
    code = _NUMBERS.get(kind or "", "")
    number = [*_NUMBERS].index(kind) if kind in _NUMBERS else 0
    unsigned = {"i": "I", "q": "Q"}.get(code, code)
    pack, pack_unsigned = (Struct(f"=B{_OFFSET - 1}x{_number(each)}").pack for each in (code, unsigned))

    def integer(value: Any, _: Store) -> bytes:
        value = index(value)  # what is none (a float, which C would truncate) is a TypeError
        return pack(number, value) if value < 0 else pack_unsigned(number, value)

    def single(value: Any, _: Store) -> bytes:
        return pack(number, ctypes.c_float(value).value)  # rounds, as C does

    def double(value: Any, _: Store) -> bytes:
        return pack(number, value)

    def reference(value: Any, store: Store) -> bytes:
        if isinstance(value, Func) and value._func.store_id != state_of(store).store_id:
            raise WrongStore("function")
        return bytes(Val._convert_to_raw(store, ty, value))

    return {"i32": integer, "i64": integer, "f32": single, "f64": double}.get(kind or "", reference)
