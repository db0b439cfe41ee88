"""A guest's code: read from a file, checked to be a core module, and compiled."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from wasmtime import Engine, FuncType, MemoryType, Module, WasmtimeError, wat2wasm

from greenctx._reports.foreign import read, read_file, reason_of
from greenctx.errors import InvalidProgram
from greenctx.wasix._modules import stack_maps
from greenctx.wasix._modules.abi import START, WAITING_CALLS, WASI_MODULE, WASIX_MODULES
from greenctx.wasix._modules.engines import new_engine
from greenctx.wasix._modules.exhaustion import check_resources

if TYPE_CHECKING:
    from typing import BinaryIO

    from greenctx.wasix._modules.cache import ModuleCache

MAX_BYTES = 2**30
"""The largest module that is read. Large programs have a tenth of it."""

MAX_MESSAGE = 600
_BINARY_MAGIC = b"\0asm"
_COMPONENT_LAYER = b"\1\0"


def read_code(name: str, file: BinaryIO | None = None) -> bytes:
    """Return the content of a file, which may be open already. Raises `InvalidProgram` if it cannot be read.

    If the head shows that it cannot be a module, only the head is returned.
    """
    try:
        return read_file(name, MAX_BYTES, _may_be_code) if file is None else read(file, MAX_BYTES, _may_be_code)
    except (OSError, ValueError) as error:
        check_resources(error)
        raise InvalidProgram(name, reason_of(error)) from error


def _may_be_code(head: bytes) -> bool:
    return head.startswith(_BINARY_MAGIC) or b"\0" not in head


def to_binary(name: str, code: bytes) -> bytes:
    """Return a core module's binary, from code in binary or text form. Raises `InvalidProgram` for other code."""
    if not code.strip():
        raise InvalidProgram(name, "it is empty")
    binary = code if code.startswith(_BINARY_MAGIC) else _from_text(name, code)
    if binary[6:8] == _COMPONENT_LAYER:
        raise InvalidProgram(name, "it is a component; only core modules can be run")
    return binary


def _from_text(name: str, code: bytes) -> bytes:
    try:
        text = code.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidProgram(name, "it is neither a WebAssembly module nor WebAssembly text")
    try:
        return bytes(wat2wasm(text))
    except WasmtimeError as error:
        raise InvalidProgram(name, f"it does not compile: {in_one_line(error)}") from error


def compile_module(name: str, binary: bytes, cache: ModuleCache | None = None) -> tuple[Engine, Module, bool]:
    """Compile a module, without garbage collection if possible. Raises `InvalidProgram` for an invalid one.

    Return the engine, the module, and whether it needs the collector. A module in the cache is loaded instead of
    compiled; a compiled one is put there.
    """
    found = None if cache is None else _load(binary, cache)
    engine, module, collector = found or _compile_anew(name, binary, cache)
    if not collector:
        stack_maps.note_none(module)
    return engine, module, collector


def _load(binary: bytes, cache: ModuleCache) -> tuple[Engine, Module, bool] | None:
    for collector in (False, True):
        compiled = cache.find(binary, collector)
        if compiled is not None:
            engine = new_engine(collector=collector, size=0)
            with suppress(WasmtimeError):  # it was compiled for another processor, for example
                return engine, Module.deserialize(engine, compiled), collector
    return None


def _compile_anew(name: str, binary: bytes, cache: ModuleCache | None) -> tuple[Engine, Module, bool]:
    # A collection does not see the stacks of suspended fibers, so guests that need no collector get none.
    collector = False
    try:
        engine, module = compile_binary(binary, collector=False)
    except WasmtimeError:
        collector = True
        try:
            engine, module = compile_binary(binary, collector=True)
        except WasmtimeError as error:
            check_resources(error)
            raise InvalidProgram(name, f"it does not compile: {in_one_line(error)}") from error
    if cache is not None:
        cache.keep(binary, collector, bytes(module.serialize()))
    return engine, module, collector


def compile_binary(binary: bytes, *, collector: bool) -> tuple[Engine, Module]:
    engine = new_engine(collector=collector, size=len(binary))
    return engine, Module(engine, binary)


def check_start(name: str, module: Module) -> None:
    """Raise `InvalidProgram` unless the module is a WASI command."""
    start = next((export.type for export in module.exports if export.name == START), None)
    if start is None:
        raise InvalidProgram(name, f"it exports no {START!r}, so it is not a WASI command")
    if not isinstance(start, FuncType):
        raise InvalidProgram(name, f"its export {START!r} is not a function")
    if start.params or start.results:
        raise InvalidProgram(name, f"its export {START!r} takes arguments or returns results")


def switches_contexts(module: Module) -> bool:
    """Whether the module imports WASIX's context_switch."""
    return any(wanted.module in WASIX_MODULES and wanted.name == "context_switch" for wanted in module.imports)


def never_waits(module: Module) -> bool:
    """Whether the guest never waits on its fiber: the module imports no function that may wait there."""
    return not any(
        isinstance(wanted.type, MemoryType)  # in a shared memory it may wait for another thread
        or (wanted.module == WASI_MODULE and WAITING_CALLS.match(wanted.name or ""))
        for wanted in module.imports
    )


def in_one_line(error: WasmtimeError) -> str:
    """Return the error's message in one line of limited length. It may quote the module's text."""
    text = " ".join(str(error).split())
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ..."
