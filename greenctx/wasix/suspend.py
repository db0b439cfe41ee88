"""Suspendable calls: a guest on its fiber, the host functions that it calls on the caller's greenlet.

This module and `_fiber` hold everything that depends on wasmtime's raw bindings. They rely on one thing that wasmtime's
C API does not promise: its header (wasmtime/async.h) allows one live future per store, and here every suspended context
has one. It works because a fiber that is suspended has given all of the store's state back, and one that is resumed
sets up its own again (``FiberResumeState`` in crates/wasmtime/src/runtime/fiber.rs); wasmtime's component model relies
on the same. Hence the range of versions in pyproject.toml, both ends of which run tests/test_interleaving.py.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, addressof, byref
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import wasmtime
from greenlet import GreenletExit, getcurrent
from wasmtime import Func, FuncType, Global, GlobalType, Instance, Store, Trap, Val, ValType, WasmtimeError
from wasmtime import _bindings as ffi
from wasmtime import _func as wasmtime_func
from wasmtime._ffi import dll

from greenctx.environment import GUEST, _current
from greenctx.errors import GuestExit, StoreInUse, WrongStore
from greenctx.wasix._fiber import YIELDED, Fiber, StoreState, callback_addresses, configure

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime._store import Storelike


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _load_reference(store: Store, address: int) -> Any:
    return Val._from_raw(store, ffi.wasmtime_val_t.from_address(address), owned=False).value


def _store_reference(store: Store, ty: ValType, value: Any, address: int) -> None:
    if isinstance(value, Func) and value._func.store_id != _state_of(store).store_id:
        raise WrongStore("function")
    raw = Val._convert_to_raw(store, ty, value)
    ctypes.memmove(address, byref(raw), ctypes.sizeof(raw))


configure(
    _address(dll.wasmtime_call_future_poll),
    _address(dll.wasmtime_call_future_delete),
    _address(dll.wasmtime_trap_new),
    ctypes.sizeof(ffi.wasmtime_val_t),
    ffi.wasmtime_val_t.of.offset,
    ctypes.sizeof(ffi.wasmtime_async_continuation_t),
    GUEST,
    _load_reference,
    _store_reference,
)

_VALUE_KINDS = {"i32": 0, "i64": 1, "f32": 2, "f64": 3}  # others are converted by the wasmtime package
_OTHER_KIND = 255
_states: WeakKeyDictionary[Store, StoreState] = WeakKeyDictionary()


class Caller(wasmtime.Caller):
    """The caller of a host function: wasmtime's, good until the function's result is handed back to the guest.

    It stays good while the function waits for another context. It can be passed to `call` in place of the store.
    """

    def __init__(self, address: int, store: Store) -> None:
        super().__init__(ctypes.cast(address, POINTER(ffi.wasmtime_caller_t)))
        self.store = store


class HostFunction:
    """A Python function for guests to call, as `Fiber.poll` returns it."""

    __slots__ = ("access_caller", "function", "kinds", "name", "result_types")

    def __init__(self, name: str, ty: FuncType, function: Callable[..., Any], access_caller: bool) -> None:
        self.name = name
        self.function = function
        self.access_caller = access_caller
        self.result_types = ty.results
        self.kinds = bytes(_VALUE_KINDS.get(str(result), _OTHER_KIND) for result in ty.results)

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
        try:
            fiber.answer(self.kinds, self.result_types, result, store)
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"host function {self.name!r} returned what its type does not allow: {error}") from error


class _Outcome:
    """Where wasmtime writes how a call ended. Must outlive the call's future."""

    def __init__(self) -> None:
        self.trap = POINTER(ffi.wasm_trap_t)()
        self.error = POINTER(ffi.wasmtime_error_t)()

    def exception(self) -> Exception | None:
        """What the ended call has to raise."""
        # A plain wasmtime.Func that raised has left its exception in a global. It has just trapped, so it is ours.
        raised, wasmtime_func.LAST_EXCEPTION = wasmtime_func.LAST_EXCEPTION, None
        ended: Exception | None = None
        if self.trap:
            ended = Trap._from_ptr(self.trap)
        elif self.error:
            ended = WasmtimeError._from_ptr(self.error)
        return ended if ended is None or raised is None else raised


def define_func(
    linker: wasmtime.Linker, module: str, name: str, ty: FuncType, function: Callable[..., Any], access_caller: bool
) -> None:
    """Define a host function that runs on the greenlet of the context that calls it."""
    callback, data, finalizer = callback_addresses(HostFunction(f"{module}.{name}", ty, function, access_caller))
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


def call(store: Storelike, func: Func, *args: Any) -> Any:
    """Call a guest's function: ``func(store, *args)``, but its host functions may switch contexts.

    Arguments and result are converted as by `wasmtime.Func.__call__`. Raises `wasmtime.Trap` when the guest traps, and
    what a host function raised, with the guest's backtrace as a note.
    """
    store = _store_of(store)
    state = _state_of(store)
    if func._func.store_id != state.store_id:
        raise WrongStore("function")
    ty = func.type(store)
    param_types, result_types = ty.params, ty.results
    if len(args) != len(param_types):
        raise TypeError(f"the guest's function takes {len(param_types)} arguments but {len(args)} were given")
    params = (ffi.wasmtime_val_t * len(args))()
    results = (ffi.wasmtime_val_t * len(result_types))()
    converted = 0
    try:
        for index, (param_type, arg) in enumerate(zip(param_types, args, strict=True)):
            params[index] = Val._convert_to_raw(store, param_type, arg)
            converted += 1
        _run(
            store,
            lambda trap, error: ffi.wasmtime_func_call_async(
                store._context(), byref(func._func), params, len(args), results, len(result_types), trap, error
            ),
            (func, params, results),
        )
    finally:
        for index in range(converted):
            ffi.wasmtime_val_unroot(byref(params[index]))
    values = [Val._from_raw(store, result).value for result in results]
    return values if len(values) > 1 else values[0] if values else None


def instantiate(linker: wasmtime.Linker, store: Storelike, module: wasmtime.Module) -> Instance:
    """Instantiate a module whose start function may call host functions that switch."""
    store = _store_of(store)
    if store.engine is not linker.engine:
        raise WrongStore("linker")
    instance = ffi.wasmtime_instance_t()
    _run(
        store,
        lambda trap, error: ffi.wasmtime_linker_instantiate_async(
            linker.ptr(), store._context(), module.ptr(), byref(instance), trap, error
        ),
        (linker, module, instance),
    )
    return Instance._from_raw(instance)


def check_imports(linker: wasmtime.Linker, module: wasmtime.Module) -> None:
    """Raise `WasmtimeError` unless everything that the module imports is defined, and of the type it wants."""
    checked = POINTER(ffi.wasmtime_instance_pre_t)()
    error = ffi.wasmtime_linker_instantiate_pre(linker.ptr(), module.ptr(), byref(checked))
    if error:
        raise WasmtimeError._from_ptr(error)
    ffi.wasmtime_instance_pre_delete(checked)


def _store_of(store: Storelike) -> Store:
    if isinstance(store, Caller):
        store._context()  # raises ValueError when its host function has returned
        return store.store
    if not isinstance(store, Store):
        raise TypeError(f"expected a wasmtime.Store, or the Caller given to a host function, not {store!r}")
    return store


def _state_of(store: Store) -> StoreState:
    """What is known of the store. Raises `CalledWithinGuest` where nobody may use the store now."""
    state = _states.get(store)
    if state is None:
        # wasmtime aborts the process when a function meets a store that is not its own, and tells nobody a store's id
        # but in what belongs to it.
        probe = Global(store, GlobalType(ValType.i32(), mutable=False), Val.i32(0))
        state = _states[store] = StoreState(probe._global.store_id)
        _guard(store, state)
    state.check()
    return state


def _guard(store: Store, state: StoreState) -> None:
    """Let nobody close the store while a guest is suspended in it: the guest's fiber refers to the store."""
    reference = ref(store)

    def delete(pointer: Any) -> None:
        if state.calls:
            raise StoreInUse(state.calls)
        alive = reference()
        if alive is None:  # it is being collected
            ffi.wasmtime_store_delete(pointer)
        else:
            Store._delete(alive, pointer)

    store._delete = delete  # type: ignore[method-assign, assignment]


def _run(store: Store, start: Callable[[Any, Any], Any], keep_alive: object) -> None:
    """Poll a future until it has ended, running host functions in between; raise what it ended with."""
    state = _state_of(store)
    environment = _current.get()
    if environment is not None:
        me = getcurrent()
        if me is not environment._caller:
            environment._admit(me)
    outcome = _Outcome()
    future = start(byref(outcome.trap), byref(outcome.error))
    fiber = Fiber(addressof(future.contents), state, (outcome, keep_alive, store))

    try:
        while (function := fiber.poll(environment)) is not None:
            if function is YIELDED:
                continue
            try:
                function.serve(fiber, store)
            except (GreenletExit, GuestExit):  # no errors: nobody needs to know where they came from
                raise
            except BaseException as error:
                fiber.fail(b"host function raised an exception")
                while fiber.poll(environment) is YIELDED:
                    pass
                backtrace = str(outcome.exception()).split("\n\nCaused by:")[0]
                error.add_note(backtrace)
                raise
    finally:
        fiber.close()  # a guest that is still suspended unwinds
    exception = outcome.exception()
    if exception is not None:
        raise exception
