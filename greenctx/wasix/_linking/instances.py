"""Functions and instances made without a linker, like `wasmtime.Func` and `wasmtime.Instance`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasmtime import Store, WasmtimeError

from greenctx.wasix._fibers.functions import Instance, provide
from greenctx.wasix._fibers.stores import store_of
from greenctx.wasix._linking.imports import imports_of
from greenctx.wasix._linking.linker import Linker
from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wasmtime import FuncType, Module

    from greenctx.wasix._linking.imports import Key
    from greenctx.wasix._native.capi import AsExtern, Storelike

__all__ = ["Instance"]


def _make_func(store: Storelike, ty: FuncType, function: Callable[..., Any], access_caller: bool) -> AsExtern:
    if not isinstance(store, Store):
        raise TypeError(f"expected a wasmtime.Store, not {store!r}")
    with capi.closing(Linker(store.engine)) as linker:
        name = getattr(function, "__name__", type(function).__name__)
        linker.define_func("Func", name, ty, function, access_caller)
        return linker.get(store, "Func", name)


def _make_instance(store: Storelike, module: Module, imports: Sequence[AsExtern]) -> Instance:
    # A linker is used, because wasmtime's C API cannot instantiate with a list of imports on a fiber.
    names = imports_of(module)
    defined: dict[Key, AsExtern] = {}
    if len(names) != len(imports):
        raise WasmtimeError(f"the module has {len(names)} imports, but {len(imports)} were given")
    with capi.closing(Linker(store_of(store).engine)) as linker:
        for key, item in zip(names, imports, strict=True):
            if key not in defined:
                defined[key] = item
                linker.define(store, *key, item)
            elif defined[key] is not item:
                raise WasmtimeError(f"the module imports {'.'.join(key)} more than once, and each must be the same")
        return linker.instantiate(store, module)


provide(make_func=_make_func, make_instance=_make_instance)
