"""The private parts of the wasmtime package about values: wasmtime_val_t of wasmtime/val.h, and its references.

Raw values are ctypes' structures, or bytes of the same layout. See `capi` for everything else.
"""

from __future__ import annotations

from ctypes import byref, sizeof
from typing import TYPE_CHECKING, Any, Final

from wasmtime import Func, Instance, Tag, Val, WasmtimeError, _ffi, _value
from wasmtime import _bindings as ffi

from greenctx.wasix._native.capi import check_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmtime import Store, ValType

_raw = ffi.wasmtime_val_t

VALUE_SIZE: Final = sizeof(_raw)
VALUE_OFFSET: Final[int] = _raw.of.offset
"""The offset of the number or reference in a raw value; before it is the kind, a byte."""

LAYOUT: Final = (
    VALUE_SIZE,
    VALUE_OFFSET,
    sizeof(ffi.wasmtime_async_continuation_t),
    sizeof(ffi.wasmtime_exnref_t),
    sizeof(ffi.wasmtime_memory_t),
    sizeof(ffi.wasmtime_func_t),
    sizeof(ffi.wasmtime_extern_t),
    sizeof(ffi.wasmtime_val_raw_t),
)
"""As `_fiber.LAYOUT`."""

_INTEGER_KINDS = {"i32": _ffi.WASMTIME_I32.value, "i64": _ffi.WASMTIME_I64.value}

to_raw: Final = Val._convert_to_raw
"""Convert a value: ``to_raw(store, type, value)``. The caller owns the references in it."""


def new_values(count: int) -> Any:
    """Return an array of raw values, all zero."""
    return (_raw * count)()


def integers(kinds: Sequence[str], numbers: Sequence[int]) -> Any:
    """Return an array of raw integers of those types, "i32" or "i64"."""
    values = new_values(len(kinds))
    for value, kind, number in zip(values, kinds, numbers, strict=True):
        value.kind = _INTEGER_KINDS[kind]
        setattr(value.of, kind, number)
    return values


def read_i32(values: Any) -> int:
    """Return the first of an array of raw values, an i32."""
    return int(values[0].of.i32)


def take_value(store: Store, raw: Any) -> Any:
    """Convert a raw value back, and give up the reference in it."""
    return Val._from_raw(store, raw).value


def read_value(store: Store, data: bytes, index: int) -> Any:
    """Convert one of many raw values back. The references in them stay as they are."""
    return Val._from_raw(store, _raw.from_buffer_copy(data, index * VALUE_SIZE), owned=False).value


def unroot(raw: Any) -> None:
    """Give up the reference in a raw value, if there is one."""
    ffi.wasmtime_val_unroot(byref(raw))


def unroot_bytes(data: bytes) -> None:
    """Give up the reference in a copy of a raw value."""
    unroot(_raw.from_buffer_copy(data))


def are_same_types(one: ValType, other: ValType) -> bool:
    """Compare types. (The package's own ``==`` aborts the process on some.)"""
    return bool(ffi.wasmtime_wasm_valtype_equal(one.ptr(), other.ptr()))


def forget_object(handle: int) -> None:
    """Drop a Python object that guests had references to."""
    _value.SLAB.deallocate(handle - 1)


# Exceptions of guests, by the addresses of their wasmtime_exnref_t


def exception_store_id(exception: int) -> int:
    return int(_exnref(exception).store_id)


def add_reference(store: Store, exception: int) -> None:
    """Add a reference to an exception, which is never given back."""
    raw = ffi.wasmtime_exnref_to_raw(store._context(), byref(_exnref(exception)))
    ffi.wasmtime_exnref_from_raw(store._context(), raw, byref(ffi.wasmtime_exnref_t()))


def are_same_exceptions(store: Store, one: int, other: int) -> bool:
    context = store._context()
    first, second = (ffi.wasmtime_exnref_to_raw(context, byref(_exnref(exception))) for exception in (one, other))
    return bool(first == second)


def exception_tag(store: Store, exception: int) -> Tag:
    tag = ffi.wasmtime_tag_t()
    check_error(ffi.wasmtime_exnref_tag(store._context(), byref(_exnref(exception)), byref(tag)))
    return Tag._from_raw(tag)


def exception_payload(store: Store, exception: int) -> tuple[Any, ...]:
    """Return the exception's values; NotImplemented in place of those of which the package has no kind."""
    count = ffi.wasmtime_exnref_field_count(store._context(), byref(_exnref(exception)))
    return tuple(_field(store, exception, index) for index in range(count))


def _field(store: Store, exception: int, index: int) -> Any:
    value = _raw()
    check_error(ffi.wasmtime_exnref_field(store._context(), byref(_exnref(exception)), index, byref(value)))
    try:
        return Val._from_raw(store, value, owned=False).value
    except WasmtimeError:
        return NotImplemented
    finally:
        unroot(value)


def _exnref(address: int) -> Any:
    return ffi.wasmtime_exnref_t.from_address(address)


# Functions and instances, and the library's errors


def copy_handle(source: Func | Instance, target: Func | Instance) -> None:
    """Make an uninitialized object of the package the same function or instance as another."""
    if isinstance(source, Func):
        assert isinstance(target, Func)
        target._func = source._func
    else:
        assert isinstance(target, Instance)
        target._instance, target._exports = source._instance, None


def add_advice(marker: str, advice: str) -> None:
    """Append the advice to the library's errors whose message contains the marker."""
    make = WasmtimeError._from_ptr.__func__  # type: ignore[attr-defined]

    def from_ptr(cls: type[WasmtimeError], pointer: Any) -> WasmtimeError:
        error: WasmtimeError = make(cls, pointer)
        message = str(error)
        if marker in message:
            error._WasmtimeError__message = f"{message}; {advice}"  # type: ignore[attr-defined]
        return error

    WasmtimeError._from_ptr = classmethod(from_ptr)  # type: ignore[method-assign, assignment]
