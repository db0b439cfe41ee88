"""Stores: what is known of each, and the ways of using one wrongly that would crash the process."""

from __future__ import annotations

import ctypes
from ctypes import POINTER
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, finalize, ref

import wasmtime
from wasmtime import Global, GlobalType, Instance, SharedMemory, Store, Val, ValType
from wasmtime import _bindings as ffi
from wasmtime._extern import get_extern_ptr
from wasmtime._ffi import dll

from greenctx.errors import StoreInUse, WrongStore
from greenctx.wasix._clock.deadline import TimeLimit
from greenctx.wasix._fibers import collector
from greenctx.wasix._native._fiber import ON_EPOCH_END, StoreState

if TYPE_CHECKING:
    from wasmtime._exportable import AsExtern
    from wasmtime._managed import Managed
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
        collector.watch(store, state)
    state.check()
    return state


def store_id_of(item: AsExtern | Instance) -> int | None:
    """The id of the store that it belongs to; None for what belongs to none."""
    if isinstance(item, Instance):
        return int(item._instance.store_id)
    if isinstance(item, SharedMemory):
        return None
    return ctypes.c_uint64.from_buffer(get_extern_ptr(item).of).value  # where every kind of them has it


def check_belongs(store: Store, item: AsExtern | Instance) -> None:
    """Raise `WrongStore` if the item belongs to another store."""
    if store_id_of(item) not in (None, state_of(store).store_id):
        raise WrongStore(type(item).__name__.lower())


def _guard(store: Store, state: StoreState) -> None:
    """Let nobody close the store while a guest is suspended in it: the guest's fiber refers to the store."""
    reference = ref(store)
    deleted = False

    def delete(pointer: Any) -> None:
        nonlocal deleted
        alive = reference()
        if state.calls:
            if alive is not None:
                raise StoreInUse(state.calls)
            # They are being collected, too: with the last of them goes the state, and with that the store.
            state.remove_floor()
            finalize(state, dll.wasmtime_store_delete, pointer).atexit = False
            return
        if alive is not None:  # it is not being collected
            alive._Store__context = None  # type: ignore[attr-defined]
        # Before, not after: an interruption of wasmtime's close() lets it delete the store once more later.
        if not deleted:
            deleted = True
            state.remove_floor()
            dll.wasmtime_store_delete(pointer)

    store._delete = delete  # type: ignore[method-assign, assignment]


def close(thing: Managed[Any]) -> None:
    """Its ``close``, but an interruption in the middle leaves it to be freed once at most, not twice."""
    try:
        pointer = thing._consume()
    except ValueError:  # it is closed
        return
    try:
        thing._delete(pointer)
    except StoreInUse:
        thing._set_ptr(pointer)
        raise


def yield_every_epoch(store: Store) -> None:
    """Let a guest give control back to Python whenever the engine's epoch ends (and trap never)."""
    # Not by wasmtime_context_epoch_deadline_async_yield_and_update: a collection yields, too, and would look the same.
    store.set_epoch_deadline(1)
    callback_type, data_type, finalizer_type = ffi._wasmtime_store_epoch_deadline_callback.argtypes[1:]
    ffi.wasmtime_store_epoch_deadline_callback(store.ptr(), callback_type(ON_EPOCH_END), data_type(), finalizer_type())
