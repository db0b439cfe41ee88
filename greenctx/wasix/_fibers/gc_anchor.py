"""The floor: a guest call that never ends, on which all others of a store stand, where guests hold references.

When the calls that are suspended in a store are resumed one upon the other (see `collector`), wasmtime walks from each
to the one below by what it noted when that one left its last WebAssembly frame. A call that has none, since it is of a
host function itself, has taken over the notes of what was below it when it began, and these go stale. So all of them
begin, and are resumed, right on top of one that stays where it is. It also shows where in a backtrace the frames of a
call end, and those of others begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import wasmtime
from wasmtime import Engine, Func, FuncType, Module

from greenctx.errors import ReferencesTooLate
from greenctx.wasix._fibers import calls, host_functions
from greenctx.wasix._fibers.backtraces import ANCHOR_FUNCTION, ANCHOR_MODULE
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._modules.stack_maps import holds_references
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import YIELDED, Fiber
from greenctx.wasix._native.capi_values import new_values

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._native._fiber import StoreState

_TEXT = f"""(module ${ANCHOR_MODULE}
  (import "host" "wait" (func $wait))
  (func ${ANCHOR_FUNCTION} (export "wait_for_ever") (call $wait)))"""
_modules: WeakKeyDictionary[Engine, Module] = WeakKeyDictionary()


def admit(module: Module, store: Store) -> None:
    """Take note of a module that is to be instantiated in the store. Raises `ReferencesTooLate`."""
    state = state_of(store)
    if state.gc_anchor is None and holds_references(module):
        _lay(store, state)


def _lay(store: Store, state: StoreState) -> None:
    """Begin the call that never ends."""
    if state.calls > 1:
        raise ReferencesTooLate(state.calls)
    module = _modules.get(store.engine)
    if module is None:
        module = _modules[store.engine] = Module(store.engine, _TEXT)
    linker = wasmtime.Linker(store.engine)
    host_functions.define_func(linker, "host", "wait", FuncType([], []), _wait, access_caller=False)
    floor = calls.instantiate(linker, store, module).exports(store)["wait_for_ever"]
    assert isinstance(floor, Func)
    outcome, nothing = capi.Outcome(), new_values(0)
    future = capi.start_call(store, floor, nothing, nothing, outcome)
    fiber = Fiber(future, capi.context_address(store), state, (floor, nothing, outcome))
    while fiber.poll() is YIELDED:
        pass
    state.set_anchor(fiber)


def _wait() -> None:
    raise AssertionError("nobody serves this call")
