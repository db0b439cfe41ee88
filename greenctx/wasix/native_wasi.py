"""wasmtime's own WASI functions, callable from host functions on behalf of a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import wasmtime
from wasmtime import Func, Instance, Memory, Module, Store, WasmtimeError

from greenctx.wasix import abi, suspend

if TYPE_CHECKING:
    from wasmtime import Engine

    from greenctx.wasix.stdio import Sink, Source, Stdio
    from greenctx.wasix.stores import Caller

_SIGNATURES = {
    "fd_read": "i32 i32 i32 i32",
    "fd_write": "i32 i32 i32 i32",
    "fd_close": "i32",
    "fd_renumber": "i32 i32",
    "fd_fdstat_get": "i32 i32",
    "clock_time_get": "i32 i64 i32",
}


class NativeCalls:
    """The functions on one guest memory, and what is known of the file descriptors of its store."""

    def __init__(self, store: Store, instance: Instance, streams: dict[int, Source | Sink]) -> None:
        self._exports = instance.exports(store)
        self.streams = streams
        """The file descriptors that are still stdin, stdout or stderr, and read or write here."""

    def call(self, caller: Caller, name: str, *args: int) -> int:
        """Call the function; return its errno."""
        func = self._exports[name]
        assert isinstance(func, Func)
        return suspend.call_integers(caller.store, func, _SIGNATURES[name], *args)


class _OfStore:
    def __init__(self, streams: dict[int, Source | Sink]) -> None:
        self.streams = streams
        self.calls: dict[bytes, NativeCalls] = {}


class NativeWasi:
    """Makes the functions for each guest that a linker links.

    wasmtime's functions use the memory of the instance that calls them. A small generated instance owns none and
    exports the guest's, so calls that come through it work on that.
    """

    def __init__(self, engine: Engine, stdio: Stdio | None) -> None:
        self._engine = engine
        self._stdio = stdio
        self._module: Module | None = None
        self._stores: WeakKeyDictionary[Store, _OfStore] = WeakKeyDictionary()

    def of(self, caller: Caller) -> NativeCalls:
        """The functions on the memory that the calling guest exports."""
        memory = caller.get(abi.MEMORY)
        if not isinstance(memory, Memory):
            raise WasmtimeError(f"a guest that calls WASI has to export its memory as {abi.MEMORY!r}")
        store = caller.store
        found = self._stores.get(store)
        if found is None:
            found = self._stores[store] = _OfStore({} if self._stdio is None else self._stdio.streams())
        key = bytes(memory._memory)
        calls = found.calls.get(key)
        if calls is None:
            calls = found.calls[key] = NativeCalls(store, self._instantiate(store, memory), found.streams)
        return calls

    def _instantiate(self, store: Store, memory: Memory) -> Instance:
        if self._module is None:
            self._module = Module(self._engine, _shim())
        linker = wasmtime.Linker(self._engine)  # one for each: the program may run in several threads
        linker.define_wasi()
        linker.define(store, "guest", abi.MEMORY, memory)
        return suspend.instantiate(linker, store, self._module)


def _shim() -> str:
    imports = functions = ""
    for name, parameters in _SIGNATURES.items():
        arguments = " ".join(f"(local.get {index})" for index in range(len(parameters.split())))
        ty = f"(param {parameters}) (result i32)"
        imports += f'(import "{abi.WASI_MODULE}" "{name}" (func ${name} {ty}))\n'
        functions += f'(func (export "{name}") {ty} (call ${name} {arguments}))\n'
    return f"""(module
        {imports}
        (import "guest" "memory" (memory 0)) (export "memory" (memory 0))
        {functions})"""
