"""The collector's anchor: a guest call that never ends, on which all other calls of a store stand.

A store gets one with the first module whose guests may hold references on their stacks. Before a collection the
suspended calls are resumed on top of one another (see `wasmtime_patches`). wasmtime then walks their stacks. It finds
the call below by its notes of where that call left its last WebAssembly frame.

A call of a host function itself has no such frame. It copies the notes of the call that was below it when it began, and
the copy goes stale. So all calls begin, and are resumed, right on top of a call that stays where it is. Its frame also
separates the frames of one call from those of others in a backtrace (see `backtraces`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import wasmtime
from wasmtime import Func, FuncType

from greenctx.errors import ReferencesTooLate
from greenctx.wasix._fibers import calls, host_functions
from greenctx.wasix._fibers.backtraces import ANCHOR_FUNCTION, ANCHOR_MODULE
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._modules.engines import OwnModule
from greenctx.wasix._modules.stack_maps import holds_references
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import YIELDED, Fiber
from greenctx.wasix._native.capi_values import new_values

if TYPE_CHECKING:
    from wasmtime import Module, Store

    from greenctx.wasix._native._fiber import StoreState

_TEXT = f"""(module ${ANCHOR_MODULE}
  (import "host" "wait" (func $wait))
  (func ${ANCHOR_FUNCTION} (export "wait_for_ever") (call $wait)))"""
_module = OwnModule(lambda: _TEXT)


def admit(module: Module, store: Store) -> None:
    """Prepare the store for instantiating that module. Raises `ReferencesTooLate`."""
    state = state_of(store)
    if state.gc_anchor is None and holds_references(module):
        _lay(store, state)


def _lay(store: Store, state: StoreState) -> None:
    """Begin the call that never ends."""
    # A call already suspended began without the anchor below it. One such call does no harm: it is the lowest on the
    # stack, with nothing below it. A second one has notes of the first, which go stale when the first ends.
    if state.calls > 1:
        raise ReferencesTooLate(state.calls)
    module = _module.on(store.engine)
    # The raw functions are used, because `greenctx.wasix.Linker` would call this again, and `calls.call` would run
    # `_wait`.
    linker = wasmtime.Linker(store.engine)
    host_functions.define_func(linker, "host", "wait", FuncType([], []), _wait, access_caller=False)
    anchor = calls.instantiate(linker, store, module).exports(store)["wait_for_ever"]
    assert isinstance(anchor, Func)
    outcome, nothing = capi.Outcome(), new_values(0)
    future = capi.start_call(store, anchor, nothing, nothing, outcome)
    fiber = Fiber(future, capi.context_address(store), state, (anchor, nothing, outcome))
    while fiber.poll() is YIELDED:  # an epoch may end on the way to the host function
        pass
    state.set_anchor(fiber)


def _wait() -> None:
    raise AssertionError("the anchor's host function is never run")
