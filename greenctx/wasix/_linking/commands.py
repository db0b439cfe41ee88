"""WASI's two kinds of modules, as `Linker.define_module` defines them.

Each call of a command is to a fresh instance; the others (reactors) are instantiated once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from wasmtime import Func, FuncType, WasmtimeError

from greenctx.wasix._fibers.calls import call
from greenctx.wasix._modules.abi import START

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Module

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._linking.linker import Linker
    from greenctx.wasix._linking.requirements import InstancePre

INITIALIZE = "_initialize"
_ALLOWED = {"memory", "__indirect_function_table", "table", "__data_end", "__heap_base", "__dso_handle", "__rtti_base"}
"""What toolchains make commands export besides functions. Nobody can use it: there is no instance that it is of."""


def is_command(module: Module) -> bool:
    """Whether it is a command; `WasmtimeError` if it claims to be both, or what makes it one is not a function."""
    markers = {export.name: export.type for export in module.exports if export.name in (START, INITIALIZE)}
    if len(markers) == 2:
        raise WasmtimeError(f"the module exports {START!r} and {INITIALIZE!r}; it cannot be both command and reactor")
    for name, ty in markers.items():
        if not isinstance(ty, FuncType):
            raise WasmtimeError(f"the module's export {name!r} is not a function")
    return START in markers


def define_command(linker: Linker, name: str, module: Module) -> None:
    """Define the functions of a command."""
    functions: list[tuple[str, FuncType]] = []
    for export in module.exports:
        if isinstance(export.type, FuncType):
            functions.append((export.name, export.type))
        elif export.name not in _ALLOWED:
            raise WasmtimeError(f"the command's export {export.name!r} is not a function")
    pre = linker.instantiate_pre(module)
    for export_name, ty in functions:
        linker.define_func(name, export_name, ty, _on_a_fresh_instance(pre, export_name), access_caller=True)


def _on_a_fresh_instance(pre: InstancePre, export: str) -> Callable[..., Any]:
    def call_export(caller: Caller, *args: Any) -> Any:
        return call(caller, cast("Func", pre.instantiate(caller).exports(caller)[export]), *args)

    return call_export
