"""wasmtime's collector, at the host's request: where it is run by ``store.gc()``, or for another reference.

It finds what guests hold by walking their stacks, and it does not walk those of suspended fibers: what only they hold
it would free, or move without telling them. (An exception so lost was another one's payload in the best case; in others
the process was ended.) So where guests may hold references, `StoreState` lets it run only with all suspended calls on
the stack below it, here as in guests. That takes time with each of them; `floor` knows which guests they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary, ref

from greenctx._core.scope import of_this_thread
from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._native._fiber import StoreState

_states: WeakValueDictionary[int, StoreState] = WeakValueDictionary()
"""By the address of the store's context."""


def watch(store: Store, state: StoreState) -> None:
    """See to it that what collects in that store at the host's request finds what suspended guests hold."""
    reference, context = ref(store), capi.context_address(store)

    def gc() -> None:
        caller = reference()
        assert caller is not None
        state.collect(capi.context_address(caller), of_this_thread())

    store.gc = gc  # type: ignore[method-assign]
    _states[context] = state


def _new_externref(context: int, handle: int, result: int) -> bool | None:
    """Make a reference in a known store: to make one may take a collection."""
    state = _states.get(context)
    return None if state is None else state.new_externref(context, handle, result, of_this_thread())


capi.intercept_externref_new(_new_externref)
