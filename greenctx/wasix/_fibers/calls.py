"""Suspendable calls: a guest on its fiber, the host functions that it calls on the caller's greenlet.

This module and `_fiber` rely on one thing that wasmtime's C API does not promise: its header (wasmtime/async.h) allows
one live future per store, and here every suspended context has one. It works because a fiber that is suspended has
given all of the store's state back, and one that is resumed sets up its own again (``FiberResumeState`` in
crates/wasmtime/src/runtime/fiber.rs); wasmtime's component model relies on the same. Hence the range of versions in
pyproject.toml, both ends of which run tests/wasix/test_interleaving.py.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from ctypes import POINTER, addressof, byref
from functools import partial
from typing import TYPE_CHECKING, Any

import wasmtime
from greenlet import GreenletExit, getcurrent
from wasmtime import Func, Instance, Store, Trap, Val, WasmtimeError
from wasmtime import _bindings as ffi
from wasmtime import _func as wasmtime_func
from wasmtime._ffi import dll

from greenctx._core.scope import IN_GUEST, admit_caller
from greenctx.errors import CalledWithinGuest, GuestExit, WrongStore
from greenctx.wasix._fibers import collector, exceptions, gc_anchor
from greenctx.wasix._fibers.stack_limit import check_stacks, explain
from greenctx.wasix._fibers.stores import state_of, store_of
from greenctx.wasix._fibers.value_types import kind_of
from greenctx.wasix._native._fiber import FUNCTIONS, LAYOUT, YIELDED, Fiber, configure

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime._store import Storelike

    from greenctx.wasix._native._fiber import StoreState


_INTEGER_KINDS = {"i32": 0, "i64": 1}


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


_layout = (
    ctypes.sizeof(ffi.wasmtime_val_t),
    ffi.wasmtime_val_t.of.offset,
    ctypes.sizeof(ffi.wasmtime_async_continuation_t),
    ctypes.sizeof(ffi.wasmtime_exnref_t),
)
if _layout != LAYOUT:
    raise ImportError(f"this wasmtime package lays out its structures as {_layout}; greenctx was built for {LAYOUT}")
configure([_address(getattr(dll, f"wasmtime_{name}")) for name in FUNCTIONS], IN_GUEST, collector.forget)


class _Outcome:
    """Where wasmtime writes how a call ended. Must outlive the call's future."""

    def __init__(self) -> None:
        self.trap = POINTER(ffi.wasm_trap_t)()
        self.error = POINTER(ffi.wasmtime_error_t)()
        self.taken = False

    def take(self) -> Trap | WasmtimeError | None:
        """What the call has ended with, if with any of these. It is given away, so the next time there is none."""
        if self.taken:
            return None
        self.taken = True
        return gc_anchor.trap_from(self.trap) if self.trap else gc_anchor.error_from(self.error) if self.error else None


def call(store: Storelike, func: Func, *args: Any) -> Any:
    """Call a guest's function: ``func(store, *args)``, but its host functions may switch contexts.

    Arguments and result are converted as by `wasmtime.Func.__call__`. Raises `wasmtime.Trap` when the guest traps,
    `GuestException` when it does not catch an exception, and what a host function raised; the latter two with the
    guest's backtrace as a note.
    """
    store = store_of(store)
    state = state_of(store)
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
            if kind_of(param_type) is None:
                raise TypeError(f"no value of Python's can be argument {index} of the guest's function")
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


def call_integers(store: Store, func: Func, kinds: str, *args: int) -> int:
    """`call` for a function of wasmtime's, of integers of those types, such as "i32 i64", that returns an i32.

    It does without wasmtime's objects for types. Those are slow, and a Ctrl-C that comes in one's ``__del__`` is lost.
    """
    params = (ffi.wasmtime_val_t * len(args))()
    for param, kind, arg in zip(params, kinds.split(), args, strict=True):
        param.kind = _INTEGER_KINDS[kind]
        setattr(param.of, kind, arg)
    result = ffi.wasmtime_val_t()
    _run(
        store,
        lambda trap, error: ffi.wasmtime_func_call_async(
            store._context(), byref(func._func), params, len(args), byref(result), 1, trap, error
        ),
        (func, params, result),
        may_wait=True,
    )
    return int(result.of.i32)


def instantiate(linker: wasmtime.Linker, store: Storelike, module: wasmtime.Module) -> Instance:
    """Instantiate a module whose start function may call host functions that switch."""
    store = store_of(store)
    if store.engine is not linker.engine:
        raise WrongStore("linker")
    gc_anchor.admit(module, store)
    instance = ffi.wasmtime_instance_t()
    _run(
        store,
        lambda trap, error: ffi.wasmtime_linker_instantiate_async(
            linker.ptr(), store._context(), module.ptr(), byref(instance), trap, error
        ),
        (linker, module, instance),
    )
    return Instance._from_raw(instance)


def instantiate_pre(pre: wasmtime.InstancePre, store: Store) -> Instance:
    """The same for a module whose imports were looked up already, and that `gc_anchor.admit` knows."""
    instance = ffi.wasmtime_instance_t()
    _run(
        store,
        lambda trap, error: ffi.wasmtime_instance_pre_instantiate_async(
            pre.ptr(), store._context(), byref(instance), trap, error
        ),
        (pre, instance),
    )
    return Instance._from_raw(instance)


def _run(store: Store, start: Callable[[Any, Any], Any], keep_alive: object, may_wait: bool = False) -> None:
    """Poll a future until it has ended, running host functions in between; raise what it ended with."""
    state = state_of(store)
    # No reference to the greenlet is kept here: it would keep itself alive, suspended for ever when others forget it.
    scope = admit_caller()
    check_stacks(state)
    outcome = _Outcome()
    context = addressof(store._context().contents)
    short_bursts = state.short_bursts and not may_wait
    needed = (outcome, keep_alive, store)
    future = start(byref(outcome.trap), byref(outcome.error))
    fiber = Fiber(addressof(future.contents), context, state, needed, scope, getcurrent(), short_bursts)
    poll, on_stack = fiber.poll, None

    try:
        if state.shadow_stacks is not None:
            on_stack = state.shadow_stacks.begin(store)
            poll = partial(on_stack.poll, fiber, state)
        _poll_to_the_end(poll, fiber, store, state, outcome)
    finally:
        # A plain wasmtime.Func that raised has left its exception in a global. It has just trapped, so it is ours. (Not
        # to be left there, even by an interruption: the next call that traps would raise it.)
        raised, wasmtime_func.LAST_EXCEPTION = wasmtime_func.LAST_EXCEPTION, None
        if fiber.thrown is None:
            fiber.given = None  # for its traceback refers to this frame
        fiber.close()  # a guest that is still suspended unwinds
        if on_stack is not None:
            on_stack.end()
        ended = outcome.take()
        state.forget_lost()
    if ended is not None:
        exception = ended if raised is None else raised
        raise exceptions.caught(store, fiber, exception) or explain(exception, state)


def _poll_to_the_end(poll: Callable[[], Any], fiber: Fiber, store: Store, state: StoreState, outcome: _Outcome) -> None:
    # A function of its own, for the jump that closes a loop is in no `try` of the same function (on Python 3.13): were
    # `_run` interrupted there, it would not close the fiber.
    while True:
        try:
            function = poll()
            if function is None:
                return
            if function is YIELDED:
                state.time_limit.check()
                continue
            if fiber.given is not None:
                exceptions.lighten(fiber)
            function.serve(fiber, store)
        except (GreenletExit, GuestExit):  # no errors: nobody needs to know where they came from
            raise
        except BaseException as error:
            if not fiber.is_waiting:
                raise
            if not exceptions.give(error, fiber, store):
                fiber.fail(b"host function raised an exception")
                with suppress(CalledWithinGuest):  # another thread is in the store: then there is no backtrace
                    while fiber.poll() is YIELDED:
                        pass
                    exceptions.note_backtrace(error, outcome.take())
                raise
