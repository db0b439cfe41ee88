"""`InstancePre`, and a linker's requirements on a store, checked where wasmtime would end the process."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import wasmtime
from wasmtime import FuncType, Module, WasmtimeError

from greenctx.errors import WrongStore
from greenctx.wasix._fibers import calls, gc_anchor, host_functions
from greenctx.wasix._fibers.stores import check_wasi_is_set, state_of, store_of
from greenctx.wasix._files.file_threads import prepare_file_threads
from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wasmtime import Engine, Store

    from greenctx.wasix._fibers.functions import Instance
    from greenctx.wasix._linking.imports import Key
    from greenctx.wasix._native.capi import Storelike


_SUSPENDS = "greenctx.suspends"
"""The key in the ``__dict__`` of stores in which only suspending calls are allowed."""


def require_suspending_calls(store: Store) -> None:
    """Make wasmtime refuse plain calls in the store with an error.

    wasmtime does so after an attempt to instantiate a module that imports a suspending host function. Before that, a
    plain call that reaches such a function ends the process.
    """
    if _SUSPENDS in store.__dict__:
        return
    with capi.closing(wasmtime.Linker(store.engine)) as linker:
        host_functions.define_func(linker, "", "", FuncType([], []), _do_nothing, access_caller=False)
        module = Module(store.engine, '(module (import "" "" (func)))')
        with suppress(WasmtimeError):  # the first refusal
            linker.instantiate(store, module)
    store.__dict__[_SUSPENDS] = True


def _do_nothing() -> None: ...


class StoreRequirements(NamedTuple):
    """The requirements of some definitions on a store."""

    engine: Engine
    owners: Mapping[Key, int]
    """The ids of the stores that the definitions belong to."""
    wasi: bool
    """Whether ``set_wasi`` must have been called on the store."""
    files: bool
    """Whether guests may use files."""

    def check(self, store: Storelike) -> Store:
        """Return the store. Raises `WrongStore` or `WasiNotSet` if it does not meet the requirements."""
        store = store_of(store)
        if store.engine is not self.engine:
            raise WrongStore("linker")
        store_id = state_of(store).store_id
        for (module, name), owner in self.owners.items():
            if owner != store_id:
                raise WrongStore(f"definition {module}.{name}")
        if self.wasi:
            check_wasi_is_set(store)
            if self.files:
                prepare_file_threads()
        return store


class InstancePre(wasmtime.InstancePre):
    """A module whose imports a `Linker` has looked up, to be instantiated any number of times."""

    _requirements: StoreRequirements
    _module: Module

    def instantiate(self, store: Storelike) -> Instance:
        """Instantiate the module; its start function may call host functions that switch."""
        store = self._requirements.check(store)
        gc_anchor.admit(self._module, store)
        return calls.instantiate_pre(self, store)


def checked_instance_pre(pre: wasmtime.InstancePre, requirements: StoreRequirements, module: Module) -> InstancePre:
    """Return an `InstancePre` that replaces wasmtime's, which is empty afterwards."""
    checked = capi.move_pointer(pre, InstancePre)
    checked._requirements = requirements
    checked._module = module
    return checked
