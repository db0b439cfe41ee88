"""Stores: the record of each, its `StoreState`; and errors for uses of a store that would end the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import wasmtime
from wasmtime import Global, GlobalType, Store, Val, ValType

from greenctx.errors import WasiNotSet, WrongStore
from greenctx.wasix._clock.deadline import Deadline
from greenctx.wasix._fibers import wasmtime_patches
from greenctx.wasix._fibers.functions import suspending
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import StoreState

if TYPE_CHECKING:
    from wasmtime import Instance

    from greenctx.wasix._native.capi import AsExtern, Storelike

_STATE = "greenctx.state"
"""The key of a store's `StoreState` in the store's ``__dict__``: so the record lives as long as the store."""


class Caller(wasmtime.Caller):
    """The caller of a host function. Valid until the function returns, even while it waits in a switch.

    It can be passed to `greenctx.wasix.call` in place of the store.
    """

    def __init__(self, address: int, store: Store) -> None:
        super().__init__(capi.caller_pointer(address))
        self.store = store

    def get(self, name: str) -> AsExtern | None:
        """Return the export of the calling instance by that name, if there is one."""
        return suspending(super().get(name))


def store_of(store: Storelike) -> Store:
    """Return the store, or the caller's. Raises ValueError for a caller whose host function has returned."""
    if isinstance(store, Caller):
        capi.check_caller(store)
        return store.store
    if not isinstance(store, Store):
        raise TypeError(f"expected a wasmtime.Store, or the Caller given to a host function, not {store!r}")
    return store


def state_of(store: Store) -> StoreState:
    """Return the record of the store. Raises `CalledWithinGuest` while the caller must not use the store."""
    state: StoreState | None = store.__dict__.get(_STATE)
    if state is None:
        # wasmtime ends the process when an item meets another store than its own, so ids are compared before. The C API
        # has a store's id only in the items that belong to the store: hence the global.
        store_id = capi.store_id_of(Global(store, GlobalType(ValType.i32(), mutable=False), Val.i32(0)))
        assert store_id is not None
        state = StoreState(store_id, Deadline(None))
        wasmtime_patches.patch_store(store, state)
        store.__dict__[_STATE] = state  # last: if an interruption comes before, the next call patches the store again
    state.check()
    return state


def check_belongs(store: Store, item: AsExtern | Instance) -> None:
    """Raise `WrongStore` if the item belongs to another store."""
    if capi.store_id_of(item) not in (None, state_of(store).store_id):
        raise WrongStore(type(item).__name__.lower())


def check_wasi_is_set(store: Store) -> None:
    """Raise `WasiNotSet` if ``set_wasi`` was not called on the store: WASI's functions would end the process."""
    if wasmtime_patches.lacks_wasi(store):
        raise WasiNotSet
