"""Values on their way between guests and host functions, and their types.

Values are arrays of wasmtime_val_t (wasmtime/val.h). How a function's values are converted is chosen once, when the
function is defined: one `struct.unpack` for all arguments takes a fraction of the time of a `wasmtime.Val` for each.

Types are told apart without the package's own ``==`` and ``str``. Those end the process on a type for which wasmtime's
C API has no number: v128, exceptions, references to collected objects. A guest's exports may have any of them.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache, partial
from operator import index
from struct import Struct
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

from wasmtime import Func, FuncType, ValType

from greenctx.errors import WrongStore
from greenctx.wasix._fibers.functions import suspending
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

I32 = Annotated[int, "i32"]
"""In annotations of host functions: an ``int`` that the guest has as an i32."""
F32 = Annotated[float, "f32"]
"""In annotations of host functions: a ``float`` that the guest has as an f32."""

# The codes of `struct`, in the order of wasmtime_valkind_t: the index of a kind is its number. The wasmtime package
# converts all other kinds. Formats begin with "=": native byte order, and only the padding that they name.
_CODES: dict[str | None, str] = {"i32": "i", "i64": "q", "f32": "f", "f64": "d"}
_UNSIGNED_CODES = _CODES | {"i32": "I", "i64": "Q"}

# A tuple, because CPython 3.11 to 3.13 crashes when memory is too short to begin an iteration over a dict's items.
_KINDS: Final = tuple((kind, getattr(ValType, kind)()) for kind in ("i32", "i64", "f32", "f64", "externref", "funcref"))


def kind_of(ty: ValType) -> str | None:
    """Return the type's name in WebAssembly text; None if Python has no values of the type."""
    for kind, known in _KINDS:
        if are_same_types(ty, known):
            return kind
    return None


@cache
def func_type(text: str) -> FuncType:
    """Return a function's type from a text such as "i32 i32 -> i64". `define_func` copies it, so it can be shared."""
    made = dict(_KINDS)
    parameters, results = ([made[kind] for kind in part.split()] for part in text.split("->"))
    return FuncType(parameters, results)


def type_text(ty: FuncType) -> str:
    """Return the text from which `func_type` makes that type, with "?" for types of which Python has no values."""
    parameters, results = (" ".join(kind_of(one) or "?" for one in types) for types in (ty.params, ty.results))
    return f"{parameters} -> {results}".strip()


def argument_decoder(kinds: list[str | None], *, unsigned: bool = False) -> ArgumentDecoder:
    """Return the function that converts raw arguments of those kinds to Python values."""
    codes = _UNSIGNED_CODES if unsigned else _CODES
    unpack = Struct("=" + "".join(f"{VALUE_OFFSET}x{_padded(codes.get(kind, ''))}" for kind in kinds)).unpack
    references = [place for place, kind in enumerate(kinds) if kind not in _CODES]

    def only_numbers(memory: bytes, _: Store) -> tuple[Any, ...]:
        return unpack(memory)

    def all_kinds(memory: bytes, store: Store) -> tuple[Any, ...]:
        values = [*unpack(memory)]
        for place in references:
            values.insert(place, suspending(read_value(store, memory, place)))
        return tuple(values)

    return all_kinds if references else only_numbers


def result_encoder(types: list[ValType], kinds: list[str | None]) -> ResultEncoder:
    """Return the function that converts a host function's result to raw results of those types.

    The result is None for no types, a value for one, a sequence for several. The converter raises TypeError, ValueError
    or OverflowError for a wrong value. Errors of the value's own conversion to a number propagate.
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
            for one in encoded:  # the guest would have owned their references
                unroot_bytes(one)
            raise
        return b"".join(encoded)

    return each[0] if len(each) == 1 else several if each else nothing


def _integer(kind: str) -> ResultEncoder:
    """Accept a signed or unsigned integer that fits. A float, which C would truncate, raises TypeError."""
    pack, pack_unsigned = _packing(kind, _CODES[kind]), _packing(kind, _CODES[kind].upper())

    def integer(value: Any, _: Store) -> bytes:
        value = index(value)
        # Guests have no signs: a host function may return 2**32 - 1 or -1 for the same i32.
        try:
            return pack(value) if value < 0 else pack_unsigned(value)
        except struct.error:
            raise OverflowError(f"an integer that does not fit into an {kind}") from None

    return integer


def _float(kind: str) -> ResultEncoder:
    """Round the value, as C does."""
    pack = _packing(kind, _CODES[kind])
    convert = ctypes.c_float if kind == "f32" else ctypes.c_double  # struct replaces what `__float__` raises

    def floating(value: Any, _: Store) -> bytes:
        return pack(convert(value).value)

    return floating


def _reference(ty: ValType) -> ResultEncoder:
    def reference(value: Any, store: Store) -> bytes:
        # wasmtime ends the process when a function meets another store than its own.
        if isinstance(value, Func) and store_id_of(value) != state_of(store).store_id:
            raise WrongStore("function")
        return bytes(to_raw(store, ty, value))

    return reference


def _packing(kind: str, code: str) -> Callable[[Any], bytes]:
    return partial(Struct(f"=B{VALUE_OFFSET - 1}x{_padded(code)}").pack, [*_CODES].index(kind))


def _padded(code: str) -> str:
    """Return the format of a number of that code, with the rest of the raw value as padding."""
    return f"{code}{VALUE_SIZE - VALUE_OFFSET - Struct('=' + code).size}x"
