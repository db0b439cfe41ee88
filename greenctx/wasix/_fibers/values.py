"""Values on their way between guests and host functions, and their types.

Values are wasmtime_val_t of wasmtime/val.h, many to a piece of memory. How a function's are converted is chosen once,
when it is defined.

Types are told apart without the wasmtime package's own ``==`` and ``str``. Those abort the process on a type for which
its C API has no number: v128, exceptions, references of garbage collection. A guest's exports may have any of them.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache, partial
from operator import index
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from wasmtime import Func, FuncType, ValType

from greenctx.errors import WrongStore
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._native.capi import store_id_of
from greenctx.wasix._native.capi_values import (
    VALUE_OFFSET,
    VALUE_SIZE,
    are_same_types,
    read_value,
    to_raw,
    unroot_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Store

    ArgumentDecoder: TypeAlias = Callable[[bytes, Store], tuple[Any, ...]]
    ResultEncoder: TypeAlias = Callable[[Any, Store], bytes]

# Codes of struct, in the order of wasmtime_valkind_t. The wasmtime package converts what is not here.
_CODES: dict[str | None, str] = {"i32": "i", "i64": "q", "f32": "f", "f64": "d"}

# A tuple: where memory is short, CPython (3.11 to 3.13) crashes when it cannot begin to iterate over a dict's items.
_KINDS: Final = tuple((kind, getattr(ValType, kind)()) for kind in ("i32", "i64", "f32", "f64", "externref", "funcref"))


def kind_of(ty: ValType) -> str | None:
    """The type's name in WebAssembly text; None if Python has no values of it."""
    for kind, known in _KINDS:
        if are_same_types(ty, known):
            return kind
    return None


@cache
def func_type(text: str) -> FuncType:
    """A function's type, such as "i32 i32 -> i64", for `define_func`, which copies it."""
    made = dict(_KINDS)
    parameters, results = ([made[kind] for kind in part.split()] for part in text.split("->"))
    return FuncType(parameters, results)


def argument_decoder(kinds: list[str | None]) -> ArgumentDecoder:
    """How arguments of those types become Python's values. The wasmtime package converts those that are not numbers."""
    unpack = Struct("=" + "".join(f"{VALUE_OFFSET}x{_padded(_CODES.get(kind, ''))}" for kind in kinds)).unpack
    references = [place for place, kind in enumerate(kinds) if kind not in _CODES]

    def only_numbers(memory: bytes, _: Store) -> tuple[Any, ...]:
        return unpack(memory)

    def all_kinds(memory: bytes, store: Store) -> tuple[Any, ...]:
        values = [*unpack(memory)]
        for place in references:
            values.insert(place, read_value(store, memory, place))
        return tuple(values)

    return all_kinds if references else only_numbers


def result_encoder(types: list[ValType], kinds: list[str | None]) -> ResultEncoder:
    """How what a function returns becomes results of those types: None none, the value one, else a sequence of them.

    That raises TypeError, ValueError or OverflowError when a value is not what it must be, and what its own conversion
    to a number raises.
    """
    each = [
        _integer(kind) if kind in ("i32", "i64") else _float(kind) if kind in ("f32", "f64") else _reference(ty)
        for ty, kind in zip(types, kinds, strict=True)
    ]

    def nothing(value: Any, _: Store) -> bytes:
        if value is not None:
            raise TypeError(f"it has no result but returned {value!r}")
        return b""

    def several(value: Any, store: Store) -> bytes:
        values = tuple(value)
        if len(values) != len(each):
            raise ValueError(f"it has {len(each)} results but returned {len(values)}")
        encoded: list[bytes] = []
        try:
            for encode, one in zip(each, values, strict=True):
                encoded += [encode(one, store)]
        except BaseException:
            for one in encoded:  # references are owned, by the guest otherwise
                unroot_bytes(one)
            raise
        return b"".join(encoded)

    return each[0] if len(each) == 1 else several if each else nothing


def _integer(kind: str) -> ResultEncoder:
    """Signed or unsigned. What is no integer (a float, which C would truncate) is a TypeError."""
    pack, pack_unsigned = _packing(kind, _CODES[kind]), _packing(kind, _CODES[kind].upper())

    def integer(value: Any, _: Store) -> bytes:
        value = index(value)
        try:
            return pack(value) if value < 0 else pack_unsigned(value)
        except struct.error:
            raise OverflowError(f"an integer that does not fit into an {kind}") from None

    return integer


def _float(kind: str) -> ResultEncoder:
    """Rounded, as C does."""
    pack = _packing(kind, _CODES[kind])
    convert = ctypes.c_float if kind == "f32" else ctypes.c_double  # struct loses what `__float__` raises

    def floating(value: Any, _: Store) -> bytes:
        return pack(convert(value).value)

    return floating


def _reference(ty: ValType) -> ResultEncoder:
    def reference(value: Any, store: Store) -> bytes:
        if isinstance(value, Func) and store_id_of(value) != state_of(store).store_id:
            raise WrongStore("function")
        return bytes(to_raw(store, ty, value))

    return reference


def _packing(kind: str, code: str) -> Callable[[Any], bytes]:
    return partial(Struct(f"=B{VALUE_OFFSET - 1}x{_padded(code)}").pack, [*_CODES].index(kind))


def _padded(code: str) -> str:
    """A number of that code in place of a value's union."""
    return f"{code}{VALUE_SIZE - VALUE_OFFSET - Struct('=' + code).size}x"
