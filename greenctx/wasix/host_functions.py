"""Host functions: Python functions that guests call, and that run on the calling context's greenlet."""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import TYPE_CHECKING, Any

from wasmtime import Func, FuncType, Linker, Val, ValType, WasmtimeError
from wasmtime import _bindings as ffi

from greenctx.errors import WrongStore
from greenctx.wasix._fiber import callback_addresses
from greenctx.wasix.stores import Caller, state_of
from greenctx.wasix.value_types import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Store

    from greenctx.wasix._fiber import Fiber

_VALUE_KINDS = {"i32": 0, "i64": 1, "f32": 2, "f64": 3}  # others are converted by the wasmtime package
_OTHER_KIND = 255


class HostFunction:
    """A Python function for guests to call, as `Fiber.poll` returns it."""

    __slots__ = ("access_caller", "function", "kinds", "name", "result_types")

    def __init__(
        self,
        name: str,
        result_types: list[ValType],
        kinds: list[str | None],
        function: Callable[..., Any],
        access_caller: bool,
    ) -> None:
        """``kinds`` are those of the results."""
        self.name = name
        self.function = function
        self.access_caller = access_caller
        self.result_types = result_types
        if None in kinds:
            raise TypeError(f"no value of Python's can be the result of host function {name!r}")
        self.kinds = bytes([_VALUE_KINDS.get(kind or "", _OTHER_KIND) for kind in kinds])

    def serve(self, fiber: Fiber, store: Store) -> None:
        """Run the function on the current greenlet and hand its result to the guest."""
        arguments = fiber.arguments(store)
        if self.access_caller:
            caller = Caller(fiber.caller, store)
            try:
                result = self.function(caller, *arguments)
            finally:
                caller._invalidate()
        else:
            result = self.function(*arguments)
        if isinstance(result, Val):
            result = result.value
        try:
            fiber.answer(self.kinds, self.result_types, result, store)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"host function {self.name!r} returned what its type does not allow: {error}") from error


def define_func(
    linker: Linker,
    module: str,
    name: str,
    ty: FuncType,
    function: Callable[..., Any],
    access_caller: bool,
    is_switch: bool = False,
) -> None:
    """Define a host function that runs on the greenlet of the context that calls it.

    ``is_switch``: it does what WASIX's context_switch does, so this need not always be called for it.
    """
    parameters, results = ty.params, ty.results
    kinds = [kind_of(one) for one in (*parameters, *results)]
    host_function = HostFunction(f"{module}.{name}", results, kinds[len(parameters) :], function, access_caller)
    callback, data, finalizer = callback_addresses(host_function, is_switch)
    # A type belongs to the engine where it was first used, and wasmtime aborts the process when another one meets it.
    if None not in kinds:
        ty = FuncType(parameters, results)
    module_bytes, name_bytes = module.encode(), name.encode()
    error = ffi.wasmtime_linker_define_async_func(
        linker.ptr(),
        ctypes.create_string_buffer(module_bytes),
        len(module_bytes),
        ctypes.create_string_buffer(name_bytes),
        len(name_bytes),
        ty.ptr(),
        ffi.wasmtime_func_async_callback_t(callback),
        data,
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(finalizer),
    )
    if error:
        raise WasmtimeError._from_ptr(error)


def load_reference(store: Store, address: int) -> Any:
    return Val._from_raw(store, ffi.wasmtime_val_t.from_address(address), owned=False).value


def store_reference(store: Store, ty: ValType, value: Any, address: int) -> None:
    if isinstance(value, Func) and value._func.store_id != state_of(store).store_id:
        raise WrongStore("function")
    raw = Val._convert_to_raw(store, ty, value)
    ctypes.memmove(address, byref(raw), ctypes.sizeof(raw))
