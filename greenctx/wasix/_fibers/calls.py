"""Suspendable calls: a guest runs on its fiber, and the host functions that it calls run on the caller's greenlet.

This module and `_fiber` rely on one thing that wasmtime's C API does not promise. Its header (wasmtime/async.h) allows
one live future per store, and here every suspended context has one. It works because a suspended fiber has given back
all state of the store that it uses. It sets up that state again when it is resumed: the thread's activations, the stack
limit, the protection mask (``FiberResumeState`` in crates/wasmtime/src/runtime/fiber.rs, wasmtime 45 to 50). wasmtime's
component model relies on the same. Hence the range of versions in pyproject.toml; both ends of it run
tests/wasix/random/test_interleaving.py.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent
from wasmtime import Trap, WasmtimeError

from greenctx._core.scope import IN_GUEST, admit_caller
from greenctx.errors import CalledWithinGuest, GuestExit, WrongStore
from greenctx.wasix._clock.waiting import checkpoint
from greenctx.wasix._fibers import backtraces, exceptions
from greenctx.wasix._fibers.functions import Instance, provide, suspending
from greenctx.wasix._fibers.host_functions import HostFunction
from greenctx.wasix._fibers.stack_limit import check_stack_limit, explain_exhaustion
from greenctx.wasix._fibers.stores import state_of, store_of
from greenctx.wasix._fibers.traps import GuestTrap
from greenctx.wasix._fibers.values import kind_of
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import (
    FUNCTIONS,
    LAYOUT,
    YIELDED,
    Fiber,
    between_epochs,
    configure,
    let_traps_through,
)
from greenctx.wasix._native.capi_values import LAYOUT as PACKAGE_LAYOUT
from greenctx.wasix._native.capi_values import forget_object, integers, new_values, read_i32, take_value, to_raw, unroot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wasmtime import Func, InstancePre, Linker, Module, Store

    from greenctx.wasix._native._fiber import StoreState
    from greenctx.wasix._native.capi import Outcome, Storelike


# `_fiber` reads and writes these structures directly. With another layout it would overwrite other memory.
if PACKAGE_LAYOUT != LAYOUT:
    raise ImportError(
        f"this wasmtime package lays out its structures as {PACKAGE_LAYOUT}; greenctx was built for {LAYOUT}"
    )
configure([capi.function_address(name) for name in FUNCTIONS], IN_GUEST, forget_object)


def call(store: Storelike, func: Func, *args: Any) -> Any:
    """Call a guest's function: ``func(store, *args)``, but its host functions may switch contexts.

    Arguments and result are converted as by `wasmtime.Func.__call__`. Raises `GuestTrap` when the guest traps,
    `GuestException` when it does not catch an exception, and the exception of a host function. The latter two have the
    guest's backtrace as a note.
    """
    return _call(store, func, args, TypeError)


def _call(store: Storelike, func: Func, args: Sequence[Any], miscounted: type[Exception]) -> Any:
    # Checked here, because wasmtime ends the process when a function meets another store than its own.
    store = store_of(store)
    state = state_of(store)
    if capi.store_id_of(func) != state.store_id:
        raise WrongStore("function")
    ty = func.type(store)
    param_types, result_types = ty.params, ty.results
    if len(args) != len(param_types):
        raise miscounted(f"the guest's function takes {len(param_types)} arguments but {len(args)} were given")
    params, results = new_values(len(args)), new_values(len(result_types))
    converted = 0
    try:
        for index, (param_type, arg) in enumerate(zip(param_types, args, strict=True)):
            if kind_of(param_type) is None:
                raise TypeError(f"Python has no value for argument {index} of the guest's function")
            params[index] = to_raw(store, param_type, arg)
            converted += 1
        _run(store, partial(capi.start_call, store, func, params, results), (func, params, results))
    finally:
        for index in range(converted):  # values not converted hold no reference
            unroot(params[index])
    values = [suspending(take_value(store, result)) for result in results]
    return values if len(values) > 1 else values[0] if values else None


provide(call_func=partial(_call, miscounted=WasmtimeError))  # as of wasmtime.Func


def call_integers(store: Store, func: Func, kinds: str, *args: int) -> int:
    """Call one of wasmtime's own functions, which takes integers of those types ("i32 i64", say) and returns an i32.

    This avoids the package's objects for types. They are slow, and Python drops a KeyboardInterrupt that comes in the
    ``__del__`` of one.
    """
    params, results = integers(kinds.split(), args), new_values(1)
    _run(store, partial(capi.start_call, store, func, params, results), (func, params, results), may_wait=True)
    return read_i32(results)


def instantiate(linker: Linker, store: Store, module: Module) -> Instance:
    """Instantiate a module whose start function may call host functions that switch.

    The linker must be of the store's engine, and `gc_anchor.admit` must know the module if it may hold references.
    """
    instance = _new_instance()
    _run(store, partial(capi.start_instantiation, linker, store, module, instance), (linker, module, instance))
    return instance


def instantiate_pre(pre: InstancePre, store: Store) -> Instance:
    """Instantiate a module whose imports were looked up before."""
    instance = _new_instance()
    _run(store, partial(capi.start_pre_instantiation, pre, store, instance), (pre, instance))
    return instance


def _new_instance() -> Instance:
    instance = suspending(capi.new_instance())
    assert isinstance(instance, Instance)
    return instance


def _run(store: Store, start: Callable[[Outcome], int], keep_alive: object, may_wait: bool = False) -> None:
    """Poll a future until it has ended, running host functions in between; raise the error that ended it.

    ``may_wait``: release the GIL around every poll, because the call may wait on its fiber.
    """
    state = state_of(store)
    # The greenlet is not kept in a variable: its own frame would keep it alive, suspended for ever, once other code has
    # forgotten it.
    scope = admit_caller()
    check_stack_limit(state)
    let_traps_through()
    outcome = capi.Outcome()
    context = capi.context_address(store)
    holds_gil = state.holds_gil and not may_wait
    # wasmtime reads and writes these until the future is deleted, so the fiber keeps them alive.
    needed = (outcome, keep_alive, store)
    fiber = Fiber(start(outcome), context, state, needed, scope, getcurrent(), holds_gil)
    on_stack = None

    try:
        if state.shadow_stacks is not None:
            on_stack = state.shadow_stacks.begin(store, fiber)  # may call the guest's malloc, and so this function
        _poll_to_the_end(fiber, store, state, outcome)
    finally:
        # A plain wasmtime.Func that raised has left its exception in a global of the package. The call has just
        # trapped, so the exception is this call's. If it stayed there, the next call that traps would raise it. One
        # statement without calls takes it, because KeyboardInterrupt may come after any call.
        raised, capi.plain_funcs.LAST_EXCEPTION = capi.plain_funcs.LAST_EXCEPTION, None
        if fiber.thrown is None:
            fiber.delivered = None  # its traceback refers to this frame: a reference cycle
        fiber.close()  # a suspended guest unwinds, as when its context is canceled
        if on_stack is not None:
            on_stack.end()  # after the guest has unwound: until then its locals are on that stack
        ended = backtraces.take(outcome)
        state.forget_lost()
    if ended is not None:
        if raised is None and isinstance(ended, Trap):
            raise GuestTrap.of(ended)
        exception = ended if raised is None else raised
        raise exceptions.take_uncaught(store, fiber, exception) or explain_exhaustion(exception, state)


def _poll_to_the_end(fiber: Fiber, store: Store, state: StoreState, outcome: capi.Outcome) -> None:
    # A separate function: CPython looks for signals at the backward jump of a loop, and on 3.13 that jump is outside
    # the exception table of the `try` around the loop. An interruption there would skip the `finally` of `_run`, and
    # leave the fiber open.
    while True:
        try:
            function = fiber.poll()
            if function is None:
                return
            if function is YIELDED:
                between_epochs()
                checkpoint(state.deadline)
                if state.timers is not None:
                    state.timers.deliver_between_instructions(store)
                continue
            if fiber.delivered is not None:
                exceptions.drop_frames(fiber)
            if state.timers is not None and isinstance(function, HostFunction):  # not on a stack that has overflowed
                state.timers.deliver(store)
            function.serve(fiber, store)
        except (GreenletExit, GuestExit):  # these end a context or the program without an error: no backtrace
            raise
        except BaseException as error:
            if not fiber.is_waiting:  # not raised by a host function, or after its answer
                raise
            if not exceptions.throw_into_guest(error, fiber, store):
                fiber.fail()
                # The guest traps at once, and runs no code. Only for a trap does wasmtime walk the guest's stack. While
                # another thread is in the store there is no backtrace.
                with suppress(CalledWithinGuest):
                    while fiber.poll() is YIELDED:
                        pass
                    backtraces.note_backtrace(error, backtraces.take(outcome))
                raise
