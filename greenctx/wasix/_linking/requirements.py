"""What a linker's definitions ask of a store, checked where wasmtime would end the process; and `InstancePre`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import wasmtime

from greenctx.errors import WrongStore
from greenctx.wasix._fibers import calls, gc_anchor
from greenctx.wasix._fibers.stores import check_wasi_is_set, state_of, store_of
from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wasmtime import Engine, Instance, Store

    from greenctx.wasix._native.capi import Storelike


class Needs(NamedTuple):
    """What is needed of a store in which definitions are used: the engine, the store that they belong to, WASI."""

    engine: Engine
    owners: Mapping[tuple[str, str], int]
    wasi: bool

    def check(self, store: Storelike) -> Store:
        """Return the store; raise `WrongStore` or `WasiNotSet` if it will not do."""
        store = store_of(store)
        if store.engine is not self.engine:
            raise WrongStore("linker")
        store_id = state_of(store).store_id
        for (module, name), owner in self.owners.items():
            if owner != store_id:
                raise WrongStore(f"definition {module}.{name}")
        if self.wasi:
            check_wasi_is_set(store)
        return store


class InstancePre(wasmtime.InstancePre):
    """A module whose imports were looked up by a `Linker`, to be instantiated as often as one likes."""

    _needs: Needs
    _module: wasmtime.Module

    @classmethod
    def _of(cls, pre: wasmtime.InstancePre, needs: Needs, module: wasmtime.Module) -> InstancePre:
        own = capi.move_pointer(pre, cls)
        own._needs = needs
        own._module = module
        return own

    def instantiate(self, store: Storelike) -> Instance:
        """Instantiate it; its start function may call host functions that switch."""
        store = self._needs.check(store)
        gc_anchor.admit(self._module, store)
        return calls.instantiate_pre(self, store)
