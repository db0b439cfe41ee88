"""wasmtime's collector, at the host's request: where it is run by ``store.gc()``, or for another reference.

It finds what guests hold by walking their stacks, and it does not walk those of suspended fibers: what only they hold
it would free, or move without telling them. (An exception so lost was another one's payload in the best case; in others
the process was ended.) So where guests may hold references, `StoreState` lets it run only with all suspended calls on
the stack below it, here as in guests. That takes time with each of them; `floor` knows which guests they are.
"""

from __future__ import annotations

from ctypes import addressof
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, ref

from wasmtime import _bindings as ffi
from wasmtime import _ffi
from wasmtime import _value as values

from greenctx._core.scope import of_this_thread

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._native._fiber import StoreState

_states: WeakValueDictionary[int, StoreState] = WeakValueDictionary()
"""By the address of the store's context."""


def watch(store: Store, state: StoreState) -> None:
    """See to it that what collects in that store at the host's request finds what suspended guests hold."""
    reference, context = ref(store), addressof(store._context().contents)

    def gc() -> None:
        caller = reference()
        assert caller is not None
        caller._context()  # raises ValueError when it is closed
        state.collect(context, of_this_thread())

    store.gc = gc  # type: ignore[method-assign]
    _states[context] = state


def _new_externref(context: Any, data: Any, finalizer: Any, out: Any) -> bool:
    """Takes the place of wasmtime_externref_new in the wasmtime package: to make one may take a collection."""
    state = _states.get(addressof(context.contents))
    if state is None:
        return ffi.wasmtime_externref_new(context, data, finalizer, out)
    return state.new_externref(addressof(context.contents), data, addressof(out._obj), of_this_thread())


_ffi.wasmtime_externref_new = _new_externref  # which the package calls by that name for every reference it makes


def forget(handle: int) -> None:
    """Let go of an object that a guest had a reference to."""
    values.SLAB.deallocate(handle - 1)
