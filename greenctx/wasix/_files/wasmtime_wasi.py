"""wasmtime's own WASI functions, for host functions to call on behalf of a guest.

wasmtime's functions use the memory of the instance that calls them. A small generated instance, which owns no memory
and exports the guest's, makes them work on the guest's memory.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import wasmtime
from wasmtime import Func, Memory, Store

from greenctx.wasix._fibers import calls
from greenctx.wasix._fibers.stores import check_wasi_is_set
from greenctx.wasix._modules import abi
from greenctx.wasix._modules.engines import OwnModule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._native.capi import AsExtern

_OFTEN_USED = {
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
_SELDOM_USED = {
    "args_get": "i32 i32",
    "args_sizes_get": "i32 i32",
    "clock_res_get": "i32 i32",
    "environ_get": "i32 i32",
    "environ_sizes_get": "i32 i32",
    "fd_advise": "i32 i64 i64 i32",
    "fd_allocate": "i32 i64 i64",
    "fd_datasync": "i32",
    "fd_fdstat_set_rights": "i32 i64 i64",
    "fd_filestat_set_size": "i32 i64",
    "fd_filestat_set_times": "i32 i64 i64 i32",
    "fd_pread": "i32 i32 i32 i64 i32",
    "fd_pwrite": "i32 i32 i32 i64 i32",
    "fd_readdir": "i32 i32 i32 i64 i32",
    "fd_sync": "i32",
    "random_get": "i32 i32",
    "sched_yield": "",
    "sock_recv": "i32 i32 i32 i32 i32 i32",
    "sock_send": "i32 i32 i32 i32 i32",
    "sock_shutdown": "i32 i32",
}
PARAMETERS = _OFTEN_USED | _SELDOM_USED
"""The callable functions, and the types of their parameters. Each returns an errno.

Functions that greenctx calls only for guests that import WASI under WASIX's name are in a separate instance, because
most programs would compile it in vain.
"""


class WasmtimeWasi:
    """wasmtime's functions, which read and write one memory."""

    def __init__(self, store: Store, memory: Memory | None) -> None:
        """Without a guest's memory the functions use a new one. Raises `WasiNotSet`."""
        check_wasi_is_set(store)
        self.memory = memory
        self._exports = self._instantiate(store, _on_scratch if memory is None else _on_guest)
        self._seldom_used: Mapping[str, AsExtern] | None = None

    def call(self, caller: Caller, name: str, *args: int) -> int:
        """Call the function; return its errno."""
        return calls.call_integers(caller.store, self.function(caller, name), PARAMETERS[name], *args)

    def function(self, caller: Caller, name: str) -> Func:
        """Return the function."""
        func = self._exports.get(name)
        if func is None:
            if self._seldom_used is None:
                self._seldom_used = self._instantiate(caller.store, _seldom_on_guest)
            func = self._seldom_used[name]
        assert isinstance(func, Func)
        return func

    def _instantiate(self, store: Store, shims: OwnModule) -> Mapping[str, AsExtern]:
        engine = store.engine
        linker = wasmtime.Linker(engine)  # one for each store: several threads may run a program at the same time
        linker.define_wasi()
        if self.memory is not None:
            linker.define(store, "guest", abi.MEMORY, self.memory)
        return calls.instantiate(linker, store, shims.on(engine)).exports(store)


class Scratch(WasmtimeWasi):
    """The functions on a memory of the host, for questions that the guest did not ask."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, None)

    @property
    def _own_memory(self) -> Memory:
        memory = self._exports[abi.MEMORY]
        assert isinstance(memory, Memory)
        return memory

    def put(self, caller: Caller, address: int, data: bytes) -> None:
        """Write to the memory."""
        self._own_memory.write(caller.store, data, address)

    def get(self, caller: Caller, address: int, size: int) -> bytes:
        """Read from the memory."""
        return bytes(self._own_memory.read(caller.store, address, address + size))


def _shim(memory: str, functions_of: Mapping[str, str]) -> str:
    """Return the text of the generated module."""
    imports = functions = ""
    for name, parameters in functions_of.items():
        arguments = " ".join(f"(local.get {index})" for index in range(len(parameters.split())))
        ty = f"(param {parameters}) (result i32)"
        imports += f'(import "{abi.WASI_MODULE}" "{name}" (func ${name} {ty}))\n'
        functions += f'(func (export "{name}") {ty} (call ${name} {arguments}))\n'
    return f"(module {imports} {memory} {functions})"


_GUEST_MEMORY = '(import "guest" "memory" (memory 0)) (export "memory" (memory 0))'
_on_guest = OwnModule(partial(_shim, _GUEST_MEMORY, _OFTEN_USED))
_seldom_on_guest = OwnModule(partial(_shim, _GUEST_MEMORY, _SELDOM_USED))
_on_scratch = OwnModule(partial(_shim, '(memory (export "memory") 1)', _OFTEN_USED))
