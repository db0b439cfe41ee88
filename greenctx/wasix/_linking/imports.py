"""A module's imports, checked against a linker before the module is instantiated."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from wasmtime import Linker, Module, WasmtimeError

from greenctx.errors import InvalidProgram, WrongStore
from greenctx.wasix._modules.compile import in_one_line
from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmtime import ImportType, Store

    from greenctx.wasix._native.capi import Storelike

Key = tuple[str, str]
"""The module and the name of an import, or of a definition in a linker."""


_imports: WeakKeyDictionary[Module, Sequence[Key]] = WeakKeyDictionary()
"""A cache: reading the imports of a module takes a tenth of a small run."""


def imports_of(module: Module) -> Sequence[Key]:
    """Return the imports of the module. Raises TypeError for any other object."""
    if not isinstance(module, Module):
        raise TypeError(f"expected a wasmtime.Module, not {module!r}")
    keys = _imports.get(module)
    if keys is None:
        keys = _imports[module] = [(wanted.module, wanted.name or "") for wanted in module.imports]
    return keys


def import_name(wanted: ImportType) -> str:
    """Return the import's name for messages."""
    return f"{wanted.module}.{wanted.name}"


def missing_imports(linker: Linker, store: Store, module: Module) -> list[str]:
    """Return the names of the imports that the linker does not define."""
    return [".".join(key) for key in imports_of(module) if not is_defined(linker, store, key)]


def is_defined(linker: Linker, store: Storelike, key: Key) -> bool:
    """Whether the linker has that definition."""
    try:
        Linker.get(linker, store, *key)
    except WasmtimeError:
        return False
    return True


def check_imports(name: str, linker: Linker, store: Store, module: Module) -> None:
    """Raise `InvalidProgram` unless the linker defines every import of the module, each with the type it needs."""
    missing = missing_imports(linker, store, module)
    if missing:
        raise InvalidProgram(name, f"nothing provides what it imports: {', '.join(missing)}")
    try:
        capi.check_imports(linker, module)
    except WasmtimeError as error:
        raise InvalidProgram(name, f"it cannot be linked: {in_one_line(error)}") from error


def check_engine(linker: Linker, module: Module) -> None:
    """Raise `WrongStore` if the module belongs to another engine."""
    # A module does not tell its engine, so wasmtime is asked. wasmtime 50 checks the engine before the imports, 45
    # after them.
    try:
        Linker.instantiate_pre(linker, module)
    except WasmtimeError as error:
        if "cross-`Engine`" in str(error):
            raise WrongStore("module") from error
