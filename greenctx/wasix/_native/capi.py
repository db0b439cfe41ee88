"""The private parts of the wasmtime package: its C library, the pointers in its objects, and their owners.

Only this module and `capi_values` name private parts of the package, so a new major version concerns only them. They
know no fibers and contexts, and decide nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, PYFUNCTYPE, addressof, byref, c_char, c_uint64, c_void_p, cast
from ctypes import create_string_buffer as c_string
from typing import TYPE_CHECKING, Any, Final, TypeVar

import wasmtime
from wasmtime import Engine, Func, Global, Instance, SharedMemory, Store, Trap, WasmtimeError, _ffi, _func
from wasmtime import _bindings as ffi
from wasmtime._extern import get_extern_ptr, wrap_extern

from greenctx.errors import StoreInUse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from wasmtime import FuncType, InstancePre, Linker, Memory, Module, WasiConfig
    from wasmtime._exportable import AsExtern as AsExtern
    from wasmtime._instance import InstanceExports as InstanceExports
    from wasmtime._managed import Managed
    from wasmtime._store import Storelike as Storelike

    Owner = TypeVar("Owner", bound=Managed[Any])

LIBRARY: Final[Path] = _ffi.filename

plain_funcs: Any = _func
"""Has ``LAST_EXCEPTION``: the exception that a plain `wasmtime.Func` raised last, until it is raised for the trap.

Read and reset it in one statement: an interruption could come before or in a function that does so.
"""


def function_address(name: str) -> int:
    """Return the address of wasmtime_``name``, or wasm_``name``, in the library that the package has loaded."""
    function = getattr(_ffi.dll, f"wasmtime_{name}", None) or getattr(_ffi.dll, f"wasm_{name}")
    return cast(function, c_void_p).value or 0


def quick_function(name: str, argument_count: int) -> Callable[..., None]:
    """Return wasmtime_``name`` to be called with addresses, and with the GIL held, unlike the package's own."""
    return PYFUNCTYPE(None, *[c_void_p] * argument_count)(function_address(name))


# Objects that own something of the library's


def move_pointer(source: Managed[Any], target: type[Owner]) -> Owner:
    """Return a new object of another class that owns what ``source`` owned."""
    moved = target.__new__(target)
    moved._set_ptr(source._consume())
    return moved


def clone_engine(engine: Engine) -> Engine:
    """Return another handle of the same engine, which lives as long as any of them. ValueError: this one is closed."""
    handle = Engine.__new__(Engine)
    handle._set_ptr(ffi.wasmtime_engine_clone(engine.ptr()))
    return handle


def engine_address(engine: Engine) -> int:
    return addressof(engine.ptr().contents)


def close(thing: Managed[Any]) -> None:
    """Close the object. An interruption in the middle never frees it twice."""
    try:
        pointer = thing._consume()
    except ValueError:  # it is closed
        return
    try:
        thing._delete(pointer)
    except StoreInUse:
        thing._set_ptr(pointer)
        raise


@contextmanager
def closing(thing: Owner) -> Iterator[Owner]:
    """Close the object at the end, as `close` does. (``with thing`` may free it twice if it is interrupted.)"""
    try:
        yield thing
    finally:
        close(thing)


# Stores and their callers

delete_store: Final = _ffi.dll.wasmtime_store_delete

check_caller: Final = wasmtime.Caller._context
"""Raise ValueError if the caller's host function has returned."""

invalidate_caller: Final = wasmtime.Caller._invalidate


def caller_pointer(address: int) -> Any:
    """The parts of a `wasmtime.Caller`."""
    return cast(address, POINTER(ffi.wasmtime_caller_t))


def context_address(store: Store) -> int:
    """Return the address of the store's wasmtime_context_t. Raises ValueError if the store is closed."""
    return addressof(store._context().contents)  # not by a cast, which leaves a reference cycle behind


def delete_store_by(store: Store, delete: Callable[[Any], None]) -> None:
    """Make the package call ``delete(pointer)`` in place of `delete_store` when the store is closed."""
    store._delete = delete  # type: ignore[method-assign, assignment]


def forget_context(store: Store) -> None:
    """Let the store know that it is deleted."""
    store._Store__context = None  # type: ignore[attr-defined]


def call_at_epoch_end(store: Store, callback: int) -> None:
    """Set the callback of wasmtime_store_epoch_deadline_callback, for the end of an epoch, by its address."""
    callback_type, data_type, finalizer_type = ffi._wasmtime_store_epoch_deadline_callback.argtypes[1:]
    ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), callback_type(callback), data_type(), finalizer_type())


def intercept_externref_new(make: Callable[[int, int, int], bool | None]) -> None:
    """Make the package call ``make(context, handle, result)`` for each reference to a Python object.

    ``make`` takes addresses, and returns whether it made the reference, or None to leave that to wasmtime.
    """
    make_natively = ffi.wasmtime_externref_new

    def externref_new(context: Any, data: int, finalizer: Any, out: Any) -> bool:
        made = make(addressof(context.contents), data, addressof(out._obj))
        return make_natively(context, data, finalizer, out) if made is None else made

    _ffi.wasmtime_externref_new = externref_new  # the package looks it up there each time


def store_id_of(item: AsExtern | Instance) -> int | None:
    """Return the id of the store that the item belongs to, if any."""
    if isinstance(item, Func):  # of each call: the others take ten times as long
        return int(item._func.store_id)
    if isinstance(item, Instance):
        return int(item._instance.store_id)
    if isinstance(item, SharedMemory):
        return None
    return c_uint64.from_buffer(get_extern_ptr(item).of).value  # where every kind of them has it


def find_export(store: Store, instance: Instance, name: str) -> AsExtern | None:
    """Return the export of that name. (``instance.exports(store)`` reads all exports, in quadratic time.)"""
    where, encoded, item = (store._context(), byref(instance._instance)), name.encode(), ffi.wasmtime_extern_t()
    found = ffi.wasmtime_instance_export_get(*where, c_string(encoded), len(encoded), byref(item))
    return wrap_extern(item) if found else None


def func_address(func: Func) -> int:
    """Return the address of the function's wasmtime_func_t, which lives as long as the object."""
    return addressof(func._func)


def item_address(item: Global | Memory) -> int:
    """Return the address of the item's wasmtime_global_t or wasmtime_memory_t, which lives as long as the object."""
    return addressof(item._global if isinstance(item, Global) else item._memory)


def memory_key(memory: Memory) -> bytes:
    """Return the identity of the memory within its store."""
    return bytes(memory._memory)


# Linkers


def define_async_func(
    linker: Linker, module: str, name: str, ty: FuncType, callback: int, data: int, finalizer: int
) -> None:
    """Define a function by the addresses of a wasmtime_func_async_callback_t, its data, and their finalizer."""
    native = (ffi.wasmtime_func_async_callback_t(callback), data, CFUNCTYPE(None, c_void_p)(finalizer))
    check_error(ffi.wasmtime_linker_define_async_func(linker.ptr(), *_text(module), *_text(name), ty.ptr(), *native))


def define_unchecked_func(
    linker: Linker, module: str, name: str, ty: FuncType, callback: int, data: int = 0, finalizer: int = 0
) -> None:
    """Define a function by the addresses of a wasmtime_func_unchecked_callback_t, its data, and their finalizer."""
    native = (ffi.wasmtime_func_unchecked_callback_t(callback), data, CFUNCTYPE(None, c_void_p)(finalizer))
    check_error(
        ffi.wasmtime_linker_define_func_unchecked(linker.ptr(), *_text(module), *_text(name), ty.ptr(), *native)
    )


def _text(text: str) -> tuple[Any, int]:
    encoded = text.encode()
    return c_string(encoded), len(encoded)


def clone_linker(linker: Linker) -> Linker:
    """Return a linker of wasmtime's with the same definitions."""
    clone = wasmtime.Linker.__new__(wasmtime.Linker)
    clone._set_ptr(ffi.wasmtime_linker_clone(linker.ptr()))
    clone.engine = linker.engine
    return clone


def check_imports(linker: Linker, module: Module) -> None:
    """Raise `WasmtimeError` unless every import of the module is defined, with its type."""
    checked = POINTER(ffi.wasmtime_instance_pre_t)()
    check_error(ffi.wasmtime_linker_instantiate_pre(linker.ptr(), module.ptr(), byref(checked)))
    ffi.wasmtime_instance_pre_delete(checked)


def set_arguments(config: WasiConfig, argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Set them as the config's own ``argv`` and ``env`` do, which leave reference cycles behind."""
    ffi.wasi_config_set_argv(config.ptr(), len(argv), _strings(argv))
    ffi.wasi_config_set_env(config.ptr(), len(env), _strings(env), _strings(env.values()))


def _strings(texts: Iterable[str]) -> Any:
    buffers: list[Any] = [c_string(text.encode()) for text in texts]
    return (POINTER(c_char) * len(buffers))(*buffers)


# Futures, which are given by their address


class Outcome:
    """Where wasmtime writes how a future ended. Must outlive the future."""

    def __init__(self) -> None:
        self.trap, self.error = POINTER(ffi.wasm_trap_t)(), POINTER(ffi.wasmtime_error_t)()
        self._taken = False

    def take(self) -> Trap | WasmtimeError | None:
        """Take the trap or error that ended the future, if any. The next time, return None."""
        if self._taken:
            return None
        self._taken = True
        if self.trap:
            return Trap._from_ptr(self.trap)
        return WasmtimeError._from_ptr(self.error) if self.error else None


def start_call(store: Store, func: Func, params: Any, results: Any, outcome: Outcome) -> int:
    """Begin a call. ``params`` and ``results`` are `capi_values.new_values`, and must outlive the future."""
    context, callee, trap, error = store._context(), byref(func._func), byref(outcome.trap), byref(outcome.error)
    future = ffi.wasmtime_func_call_async(context, callee, params, len(params), results, len(results), trap, error)
    return addressof(future.contents)


def new_instance() -> Instance:
    """Return an object for `start_instantiation` to fill in, which must outlive the future."""
    return Instance._from_raw(ffi.wasmtime_instance_t())


def start_instantiation(linker: Linker, store: Store, module: Module, instance: Instance, outcome: Outcome) -> int:
    result, trap, error = byref(instance._instance), byref(outcome.trap), byref(outcome.error)
    future = ffi.wasmtime_linker_instantiate_async(linker.ptr(), store._context(), module.ptr(), result, trap, error)
    return addressof(future.contents)


def start_pre_instantiation(pre: InstancePre, store: Store, instance: Instance, outcome: Outcome) -> int:
    result, trap, error = byref(instance._instance), byref(outcome.trap), byref(outcome.error)
    future = ffi.wasmtime_instance_pre_instantiate_async(pre.ptr(), store._context(), result, trap, error)
    return addressof(future.contents)


def check_error(error: Any) -> None:
    """Raise the `WasmtimeError` that a function of the library has returned, if it has."""
    if error:
        raise WasmtimeError._from_ptr(error)
