"""WASI's functions under WASIX's name, as older toolchains import them, ``fd_write`` and all.

They are those of WASI preview 1, but for bad arguments: wasmtime ends the program at a pointer to outside memory and at
an unknown flag, Wasmer returns an errno.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from wasmtime import WasmtimeError

from greenctx.wasix._files.wasmtime_wasi import PARAMETERS
from greenctx.wasix._modules import abi
from greenctx.wasix._native._fiber import DIRECT_CALLS
from greenctx.wasix._syscalls.process import call_wasmtime
from greenctx.wasix._syscalls.table import BAD_POINTER, SystemCall, wasi_call
from greenctx.wasix._syscalls.wasi import WasiCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables

_REFUSED = re.compile(r"(?P<pointer>Pointer (out of bounds|overflow|not aligned))|Invalid (enum|flag) value")
"""Matches wasmtime's messages about arguments that its WASI functions cannot read."""


def wasi_in_wasix(descriptors: DescriptorTables) -> dict[str, SystemCall]:
    """Declare them, by name."""
    calls = wasi_calls(descriptors, abi.WASIX_MODULE, for_wasix=True)
    renumber = calls["fd_renumber"]
    copying = _copying(descriptors, renumber.function)
    return calls | {"fd_renumber": SystemCall(renumber.module, renumber.name, renumber.type, copying)}


def wasi_calls(descriptors: DescriptorTables, module: str, *, for_wasix: bool) -> dict[str, SystemCall]:
    """Declare WASI's functions in a module of another name: greenctx's own, and calls of wasmtime for the others.

    ``for_wasix``: also serve here those that differ once there are WASIX's calls about files.
    """
    functions = WasiCalls(descriptors)
    calls = {
        name: wasi_call(name, partial(descriptors.call_wasmtime if name in DIRECT_CALLS else call_wasmtime, name))
        for name in PARAMETERS
    }
    calls |= {call.name: call for call in functions.calls()}
    if for_wasix:
        calls |= {call.name: call for call in functions.calls_for_wasix()}
    return {
        name: declare(module, name, call.type, call.function, is_direct=call.is_direct)
        if call.needs_caller
        else SystemCall(module, name, call.type, call.function, needs_caller=False)
        for name, call in calls.items()
    }


def declare(
    module: str, name: str, ty: str, function: Callable[..., int | None], *, is_direct: bool = False
) -> SystemCall:
    """Declare a function that returns an errno for what wasmtime's would end the program for."""
    bad_pointer = BAD_POINTER[module]

    def serve(caller: Caller, *args: int, **settings: object) -> int | None:
        try:
            result = function(caller, *args, **settings)
        except WasmtimeError as error:
            refused = _REFUSED.search(str(error))
            if refused is None:
                raise
            return bad_pointer if refused["pointer"] else abi.INVAL
        return bad_pointer if result == abi.FAULT else result

    return SystemCall(module, name, ty, serve, is_direct=is_direct)


def _copying(descriptors: DescriptorTables, renumber: Callable[..., int | None]) -> Callable[..., int | None]:
    """Return ``fd_renumber`` as in WASIX: it leaves the given descriptor open."""

    def fd_renumber(caller: Caller, fd: int, to: int) -> int | None:
        descriptors.of(caller).copies = True
        return renumber(caller, fd, to)

    return fd_renumber
