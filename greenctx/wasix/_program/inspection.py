"""Inspection: a module's imports and exports, and why it cannot be run."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from wasmtime import FuncType, GlobalType, MemoryType, Module, Store, TableType, WasiConfig

from greenctx._reports.foreign import printable
from greenctx.errors import InvalidProgram
from greenctx.wasix._files.stdio import Stdio
from greenctx.wasix._linking.imports import check_imports, import_name, missing_imports
from greenctx.wasix._linking.linker import Linker
from greenctx.wasix._modules import abi
from greenctx.wasix._modules.compile import (
    check_start,
    compile_module,
    read_code,
    to_binary,
)
from greenctx.wasix._modules.shared_memory import unshare_memory
from greenctx.wasix._modules.sizes import Size, Sizes
from greenctx.wasix._native import capi
from greenctx.wasix._shadow_stacks.shadow_stacks import check_exports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_NAME = 100
"""Characters of a name that the text shows. Names in real programs are shorter."""

_CONTEXT_CALLS = ("context_create", "context_switch", "context_destroy")


@dataclass(frozen=True)
class Import:
    """An import of the module. ``name`` is as in error messages."""

    name: str
    kind: str
    provided: bool
    answers_enotsup: bool = False
    """Whether it is a function of WASIX that greenctx does not provide: calls return ENOTSUP, or trap."""

    @property
    def word(self) -> str:
        """The state of the import, as the text shows it. A module with an unknown import cannot be run."""
        return "provided" if self.provided else "answers ENOTSUP" if self.answers_enotsup else "unknown"


@dataclass(frozen=True)
class Export:
    """An export of the module."""

    name: str
    kind: str


@dataclass(frozen=True)
class Inspection:
    """A module's facts and needs. Sizes of memories are in bytes, sizes of tables in elements."""

    file: str
    type: str
    size: int
    runnable: bool
    reason: str | None
    """Why it cannot be run."""
    contexts: bool
    """Whether it imports any of the WASIX context calls."""
    needs_collector: bool
    imports: tuple[Import, ...]
    missing: tuple[str, ...]
    """The names of the imports that nothing provides when the program is run."""
    exports: tuple[Export, ...]
    memories: tuple[Size, ...]
    tables: tuple[Size, ...]
    stack_pointer: bool
    """Whether it exports ``__stack_pointer`` in the form that shadow stacks need."""
    malloc: bool
    warnings: tuple[str, ...]
    """Problems that contexts will have although the module runs, and their remedies."""

    def as_dict(self) -> dict[str, Any]:
        """Return the inspection as a dictionary that JSON can hold."""
        sizes = {"memories": self.memories, "tables": self.tables}
        return asdict(self) | {what: tuple(one._asdict() for one in found) for what, found in sizes.items()}

    def as_text(self) -> str:
        """Return the inspection as lines that a terminal can show, whatever the names in the module."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterable[str]:
        reason = f" ({len(self.missing)} of its imports are missing)" if self.missing else ""
        if self.reason and not self.missing:
            reason = f" ({_printable(self.reason, 4 * MAX_NAME)})"
        yield f"{_printable(self.file, len(self.file))}: {self.type}, {self.size} bytes"
        yield f"runnable: {_yes(self.runnable)}{reason}"
        yield f"contexts: {_yes(self.contexts)}"
        yield from (f"warning: {warning}" for warning in self.warnings)
        pointer = f"{abi.STACK_POINTER} {'' if self.stack_pointer else 'not '}exported"
        yield f"shadow stacks: {_yes(self.stack_pointer)} ({pointer}, malloc {'' if self.malloc else 'not '}exported)"
        yield f"needs the garbage collector: {_yes(self.needs_collector)}"
        for title, things, show in (("memories", self.memories, _bytes), ("tables", self.tables, str)):
            yield from _section(title, (_limits(thing, show) for thing in things))
        yield from _section(
            "imports",
            (f"{one.word:15} {one.kind} {_printable(one.name)}" for one in self.imports),
        )
        yield from _section("exports", (f"{one.kind} {_printable(one.name)}" for one in self.exports))


def inspect_file(path: str | os.PathLike[str]) -> Inspection:
    """Inspect a .wasm or .wat file. Raises `InvalidProgram` unless this wasmtime can compile it."""
    name = os.fspath(path)
    return inspect_code(name, read_code(name))


def inspect_code(name: str, content: bytes) -> Inspection:
    """Inspect the content of the file of that name."""
    binary = to_binary(name, content)
    engine, module, needs_collector = compile_module(name, binary)
    imports, exports = module.imports, tuple(Export(export.name, _kind(export.type)) for export in module.exports)
    own = unshare_memory(binary)
    if own is not binary:  # as Program runs it
        module = Module(engine, own)
    with capi.closing(Store(engine)) as store, capi.closing(Linker(engine)) as linker:
        store.set_wasi(WasiConfig())
        linker.define_wasi(Stdio())
        linker.define_wasix()
        unprovided = {f"{key[0]}.{key[1]}" for key in linker.define_wasix_imports(module)}
        missing = missing_imports(linker, store, module)
        reason = _reason(lambda: check_start(name, module), lambda: check_imports(name, linker, store, module))
    sizes, lacking = Sizes(binary), {*missing}
    calls = {one.name for one in imports if one.module in abi.WASIX_MODULES}
    stack_pointer = _reason(lambda: check_exports(name, module)) is None
    return Inspection(
        file=name,
        type=f"core module ({'binary' if content is binary else 'text'})",
        size=len(content),
        runnable=reason is None,
        reason=reason,
        contexts=not calls.isdisjoint(_CONTEXT_CALLS),
        needs_collector=needs_collector,
        imports=tuple(
            Import(name := import_name(one), _kind(one.type), name not in lacking | unprovided, name in unprovided)
            for one in imports
        ),
        missing=tuple(missing),
        exports=exports,
        memories=tuple(sizes.memories),
        tables=tuple(sizes.tables),
        stack_pointer=stack_pointer,
        malloc=Export(abi.MALLOC, "function") in exports,
        warnings=tuple(_warnings(exports, stack_pointer)) if "context_create" in calls else (),
    )


def _warnings(exports: tuple[Export, ...], stack_pointer: bool) -> Iterable[str]:
    if Export(abi.FUNCTION_TABLE, "table") not in exports:
        yield (
            f"every context_create returns EINVAL, because {abi.FUNCTION_TABLE} is not exported: "
            "link with -Wl,--export-table"
        )
    if stack_pointer:
        yield "contexts share one C stack, unless --shadow-stack 64KiB gives each a stack of its own"
    else:
        yield (
            f"if it is compiled from C, its contexts share one C stack, because {abi.STACK_POINTER} is not exported: "
            f"link with -Wl,--export={abi.STACK_POINTER} and run with --shadow-stack 64KiB"
        )


def _reason(*checks: Callable[[], None]) -> str | None:
    try:
        for check in checks:
            check()
    except InvalidProgram as error:
        return error.reason
    return None


def _kind(ty: object) -> str:
    kinds = {FuncType: "function", GlobalType: "global", MemoryType: "memory", TableType: "table"}
    return kinds.get(type(ty), "tag")


def _section(title: str, items: Iterable[str]) -> Iterable[str]:
    found = [f"  {item}" for item in items]
    yield f"{title}: {len(found) or 'none'}"
    yield from found


def _limits(thing: Size, show: Callable[[int], str]) -> str:
    details = [
        f"{show(thing.minimum)} to {'any size' if thing.maximum is None else show(thing.maximum)}",
        *(["64-bit"] if thing.is_64 else []),
        *(["shared"] if thing.shared else []),
        *(["imported"] if thing.imported else []),
        *(f"exported as {_printable(name)}" for name in thing.exported),
    ]
    return ", ".join(details)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count} bytes"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def _printable(text: str, max_length: int = MAX_NAME) -> str:
    """Return the text shortened, and without characters that would move a terminal's cursor."""
    shown = printable(text[:max_length])
    return shown if len(text) <= max_length else f"{shown}... ({len(text)} characters)"
