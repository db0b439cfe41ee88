"""wasmtime's own WASI functions, callable from host functions on behalf of a guest."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import wasmtime
from wasmtime import Func, Instance, Memory, Module, Store, WasmtimeError

from greenctx.wasix._fibers import calls
from greenctx.wasix._fibers.stores import check_wasi_is_set
from greenctx.wasix._files.descriptors import Descriptors
from greenctx.wasix._files.directories import Directories
from greenctx.wasix._modules import abi
from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from wasmtime import Engine

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._files.stdio import Stdio

PARAMETERS = {
    "clock_time_get": "i32 i64 i32",
    "fd_close": "i32",
    "fd_fdstat_get": "i32 i32",
    "fd_fdstat_set_flags": "i32 i32",
    "fd_filestat_get": "i32 i32",
    "fd_prestat_dir_name": "i32 i32 i32",
    "fd_prestat_get": "i32 i32",
    "fd_read": "i32 i32 i32 i32",
    "fd_renumber": "i32 i32",
    "fd_seek": "i32 i64 i32 i32",
    "fd_tell": "i32 i32",
    "fd_write": "i32 i32 i32 i32",
    "path_create_directory": "i32 i32 i32",
    "path_filestat_get": "i32 i32 i32 i32 i32",
    "path_filestat_set_times": "i32 i32 i32 i32 i64 i64 i32",
    "path_link": "i32 i32 i32 i32 i32 i32 i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
    "path_readlink": "i32 i32 i32 i32 i32 i32",
    "path_remove_directory": "i32 i32 i32",
    "path_rename": "i32 i32 i32 i32 i32 i32",
    "path_symlink": "i32 i32 i32 i32 i32",
    "path_unlink_file": "i32 i32 i32",
}
"""The functions that there are, and what they take. Each returns an errno."""

SCRATCH_SIZE = 65536


class NativeCalls:
    """The functions on one memory."""

    def __init__(self, store: Store, instance: Instance) -> None:
        self._exports = instance.exports(store)

    def call(self, caller: Caller, name: str, *args: int) -> int:
        """Call the function; return its errno."""
        func = self._exports[name]
        assert isinstance(func, Func)
        return calls.call_integers(caller.store, func, PARAMETERS[name], *args)


class Scratch(NativeCalls):
    """The functions on a memory of our own, for what the host itself asks. It begins at 0 and has `SCRATCH_SIZE`."""

    @property
    def _memory(self) -> Memory:
        memory = self._exports[abi.MEMORY]
        assert isinstance(memory, Memory)
        return memory

    def put(self, caller: Caller, address: int, data: bytes) -> None:
        """Write to the memory."""
        self._memory.write(caller.store, data, address)

    def get(self, caller: Caller, address: int, size: int) -> bytes:
        """Read from the memory."""
        return bytes(self._memory.read(caller.store, address, address + size))


class _OfStore:
    def __init__(self, descriptors: Descriptors) -> None:
        self.descriptors = descriptors
        self.directories = Directories()
        self.calls: dict[bytes, NativeCalls] = {}
        self.scratch: Scratch | None = None


class NativeWasi:
    """Makes the functions for each guest that a linker links, and knows the descriptors of each store.

    wasmtime's functions use the memory of the instance that calls them. A small generated instance owns none and
    exports the guest's, so calls that come through it work on that.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.stdio: Stdio | None = None
        """The standard streams; None leaves reading and writing to wasmtime."""
        self._stores: WeakKeyDictionary[Store, _OfStore] = WeakKeyDictionary()

    def of(self, caller: Caller) -> NativeCalls:
        """The functions on the memory that the calling guest exports."""
        memory = caller.get(abi.MEMORY)
        if not isinstance(memory, Memory):
            raise WasmtimeError(f"a guest that calls WASI has to export its memory as {abi.MEMORY!r}")
        known = self._of_store(caller.store)
        key = capi.memory_key(memory)
        calls = known.calls.get(key)
        if calls is None:
            calls = known.calls[key] = NativeCalls(caller.store, self._instantiate(caller.store, memory))
        return calls

    def scratch(self, caller: Caller) -> Scratch:
        """The functions on a memory of our own."""
        known = self._of_store(caller.store)
        if known.scratch is None:
            known.scratch = Scratch(caller.store, self._instantiate(caller.store, None))
        return known.scratch

    def descriptors(self, caller: Caller) -> Descriptors:
        """Which of the program's file descriptors are not wasmtime's."""
        return self._of_store(caller.store).descriptors

    def directories(self, caller: Caller) -> Directories:
        """The program's directories."""
        return self._of_store(caller.store).directories

    def _of_store(self, store: Store) -> _OfStore:
        known = self._stores.get(store)
        if known is None:
            streams = {} if self.stdio is None else self.stdio.streams()
            known = self._stores[store] = _OfStore(Descriptors(streams))
        return known

    def _instantiate(self, store: Store, memory: Memory | None) -> Instance:
        check_wasi_is_set(store)
        linker = wasmtime.Linker(self._engine)  # one for each: the program may run in several threads
        linker.define_wasi()
        if memory is None:
            return calls.instantiate(linker, store, self._on_scratch)
        linker.define(store, "guest", abi.MEMORY, memory)
        return calls.instantiate(linker, store, self._on_guest)

    @cached_property
    def _on_guest(self) -> Module:
        return Module(self._engine, _shim('(import "guest" "memory" (memory 0)) (export "memory" (memory 0))'))

    @cached_property
    def _on_scratch(self) -> Module:
        return Module(self._engine, _shim('(memory (export "memory") 1)'))


def _shim(memory: str) -> str:
    imports = functions = ""
    for name, parameters in PARAMETERS.items():
        arguments = " ".join(f"(local.get {index})" for index in range(len(parameters.split())))
        ty = f"(param {parameters}) (result i32)"
        imports += f'(import "{abi.WASI_MODULE}" "{name}" (func ${name} {ty}))\n'
        functions += f'(func (export "{name}") {ty} (call ${name} {arguments}))\n'
    return f"(module {imports} {memory} {functions})"
