"""Functions, and the objects that hold functions: used as those of wasmtime's package, but their calls suspend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import wasmtime

from greenctx.wasix._native.capi_values import copy_handle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wasmtime import FuncType, Module, Store

    from greenctx.wasix._native.capi import AsExtern, InstanceExports, Storelike

T = TypeVar("T")

_provided: dict[str, Callable[..., Any]] = {}


def provide(**functions: Callable[..., Any]) -> None:
    """Provide the functions that the classes call. Higher modules do so, because they use the classes themselves."""
    _provided.update(functions)


class Func(wasmtime.Func):
    """A `wasmtime.Func`: called as usual, ``func(store, *args)``, but host functions that it calls may switch contexts.

    Made from a Python function, it runs the function as a host function, as `Linker.define_func` does.
    """

    def __init__(self, store: Storelike, ty: FuncType, func: Callable[..., Any], access_caller: bool = False) -> None:
        copy_handle(_provided["make_func"](store, ty, func, access_caller), self)

    def __call__(self, store: Storelike, *params: Any) -> Any:
        """Call the guest's function, as `greenctx.wasix.call` does."""
        return _provided["call_func"](store, self, params)


class Instance(wasmtime.Instance):
    """A `wasmtime.Instance` whose exported functions are `Func` objects."""

    def __init__(self, store: Storelike, module: Module, imports: Sequence[AsExtern]) -> None:
        """Instantiate a module; its start function may call host functions that switch."""
        copy_handle(_provided["make_instance"](store, module, imports), self)

    def exports(self, store: Storelike) -> InstanceExports:
        """Return the exports, by name."""
        exports = super().exports(store)
        for item in exports.by_index:
            suspending(item)
        return exports


class Table(wasmtime.Table):
    """A `wasmtime.Table` whose functions are `Func` objects."""

    def get(self, store: Store, idx: int) -> Any:
        """Return the element at that index."""
        return suspending(super().get(store, idx))


class Global(wasmtime.Global):
    """A `wasmtime.Global` whose value, if it is a function, is a `Func`."""

    def value(self, store: Storelike) -> Any:
        """Return the value."""
        return suspending(super().value(store))


_SUSPENDING: dict[type, type] = {
    wasmtime.Func: Func,
    wasmtime.Instance: Instance,
    wasmtime.Table: Table,
    wasmtime.Global: Global,
}


def suspending(item: T) -> T:
    """Return the item. If it is a function, or holds functions, their calls suspend from now on."""
    ours = _SUSPENDING.get(type(item))
    if ours is not None:
        item.__class__ = ours
    return item
