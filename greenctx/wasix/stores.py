"""Stores: what is known of each, and the ways of using one wrongly that would crash the process."""

from __future__ import annotations

import ctypes
from ctypes import POINTER
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import wasmtime
from wasmtime import Global, GlobalType, Store, Val, ValType
from wasmtime import _bindings as ffi

from greenctx.errors import StoreInUse
from greenctx.wasix._fiber import StoreState
from greenctx.wasix.interruption import TimeLimit

if TYPE_CHECKING:
    from wasmtime._store import Storelike

_states: WeakKeyDictionary[Store, StoreState] = WeakKeyDictionary()


class Caller(wasmtime.Caller):
    """The caller of a host function: wasmtime's, good until the function's result is handed back to the guest.

    It stays good while the function waits for another context. It can be passed to `greenctx.wasix.call` in place of
    the store.
    """

    def __init__(self, address: int, store: Store) -> None:
        super().__init__(ctypes.cast(address, POINTER(ffi.wasmtime_caller_t)))
        self.store = store


def store_of(store: Storelike) -> Store:
    if isinstance(store, Caller):
        store._context()  # raises ValueError when its host function has returned
        return store.store
    if not isinstance(store, Store):
        raise TypeError(f"expected a wasmtime.Store, or the Caller given to a host function, not {store!r}")
    return store


def state_of(store: Store) -> StoreState:
    """What is known of the store. Raises `CalledWithinGuest` where nobody may use the store now."""
    state = _states.get(store)
    if state is None:
        # wasmtime aborts the process when a function meets a store that is not its own, and tells nobody a store's id
        # but in what belongs to it.
        probe = Global(store, GlobalType(ValType.i32(), mutable=False), Val.i32(0))
        state = _states[store] = StoreState(probe._global.store_id, TimeLimit(None))
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


def yield_every_epoch(store: Store) -> None:
    """Let a guest give control back to Python whenever the engine's epoch ends (and trap never)."""
    store.set_epoch_deadline(1)
    ffi.wasmtime_context_epoch_deadline_async_yield_and_update(store._context(), 1)
