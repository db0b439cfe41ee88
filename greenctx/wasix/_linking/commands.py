"""WASI's two kinds of modules, as `Linker.define_module` defines them.

Each call of a command's function gets a fresh instance. Any other module is a reactor, and is instantiated once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from wasmtime import Func, FuncType, WasmtimeError

from greenctx.wasix._fibers.calls import call
from greenctx.wasix._modules.abi import START
from greenctx.wasix._native.capi import find_export

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Module

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._linking.requirements import InstancePre

INITIALIZE = "_initialize"
_UNUSED_EXPORTS = {
    "memory",
    "__indirect_function_table",
    "table",
    "__data_end",
    "__heap_base",
    "__dso_handle",
    "__rtti_base",
}
"""Exports that toolchains add to commands besides functions. They are not defined: no instance has them."""


def is_command(module: Module) -> bool:
    """Whether the module is a command. Raises `WasmtimeError` if it is both kinds, or misuses either name."""
    markers = {export.name: export.type for export in module.exports if export.name in (START, INITIALIZE)}
    if len(markers) == 2:
        raise WasmtimeError(f"the module exports {START!r} and {INITIALIZE!r}; it cannot be both command and reactor")
    for name, ty in markers.items():
        if not isinstance(ty, FuncType):
            raise WasmtimeError(f"the module's export {name!r} is not a function")
    return START in markers


def functions_of(command: Module) -> list[tuple[str, FuncType]]:
    """Return the functions that a command exports. Raises `WasmtimeError` if it exports other items of use."""
    functions: list[tuple[str, FuncType]] = []
    for export in command.exports:
        if isinstance(export.type, FuncType):
            functions.append((export.name, export.type))
        elif export.name not in _UNUSED_EXPORTS:
            raise WasmtimeError(f"the command's export {export.name!r} is not a function")
    return functions


def on_fresh_instance(command: InstancePre, export: str) -> Callable[..., Any]:
    """Return a host function that instantiates the command and calls that export."""

    def call_export(caller: Caller, *args: Any) -> Any:
        return call(caller, cast("Func", find_export(caller.store, command.instantiate(caller), export)), *args)

    return call_export
