"""wasmtime's own WASI functions, callable from host functions on behalf of a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import wasmtime
from wasmtime import Func, Instance, Memory, Module, Store, WasmtimeError

from greenctx.wasix import abi, suspend

if TYPE_CHECKING:
    from wasmtime import Engine

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
    """The functions for one guest memory, and what is known of the guest's file descriptors."""

    def __init__(self, store: Store, instance: Instance) -> None:
        self._exports = instance.exports(store)
        self.stdio = {0: 0, 1: 1, 2: 2}
        """Which of stdin, stdout and stderr (0, 1, 2) each file descriptor is that is still one of them."""

    def stdio_of(self, fd: int) -> int | None:
        return self.stdio.get(fd)

    def call(self, caller: Caller, name: str, *args: int) -> int:
        """Call the function; return its errno."""
        func = self._exports[name]
        assert isinstance(func, Func)
        errno: int = suspend.call(caller.store, func, *args)
        return errno


class NativeWasi:
    """Makes the functions for each guest that a linker links.

    wasmtime's functions use the memory of the instance that calls them. A small generated instance owns none and
    exports the guest's, so calls that come through it work on that.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._linker = wasmtime.Linker(engine)
        self._linker.define_wasi()
        self._linker.allow_shadowing = True
        self._module: Module | None = None
        self._calls: WeakKeyDictionary[Store, dict[bytes, NativeCalls]] = WeakKeyDictionary()

    def of(self, caller: Caller) -> NativeCalls:
        """The functions on the memory that the calling guest exports."""
        memory = caller.get(abi.MEMORY)
        if not isinstance(memory, Memory):
            raise WasmtimeError(f"a guest that calls WASI has to export its memory as {abi.MEMORY!r}")
        calls = self._calls.setdefault(caller.store, {})
        key = bytes(memory._memory)
        if key not in calls:
            if self._module is None:
                self._module = Module(self._engine, _shim())
            self._linker.define(caller.store, "guest", abi.MEMORY, memory)
            calls[key] = NativeCalls(caller.store, suspend.instantiate(self._linker, caller.store, self._module))
        return calls[key]


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
