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
from greenctx.wasix._syscalls.process import call_wasmtime
from greenctx.wasix._syscalls.table import SystemCall, wasi_call
from greenctx.wasix._syscalls.wasi import WasiCalls

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.process import DescriptorTables

_REFUSED = re.compile(r"(?P<pointer>Pointer (out of bounds|overflow|not aligned))|Invalid (enum|flag) value")
"""What wasmtime says about arguments that its WASI functions cannot read."""


def wasi_in_wasix(descriptors: DescriptorTables) -> dict[str, SystemCall]:
    """Declare them, by name: those that are served here, and for the others calls of wasmtime's."""
    functions = WasiCalls(descriptors)
    served = {call.name: call for call in (*functions.calls(), *functions.calls_for_wasix())}
    others = [wasi_call(name, partial(call_wasmtime, name)) for name in PARAMETERS]
    calls = {call.name: _declare(call.name, call.type, call.function) for call in others}
    for name, call in served.items():
        if call.needs_caller:
            calls[name] = _declare(name, call.type, call.function)
        else:
            calls[name] = SystemCall(abi.WASIX_MODULE, name, call.type, call.function, needs_caller=False)
    calls["fd_renumber"] = _declare("fd_renumber", calls["fd_renumber"].type, _copying(descriptors, calls))
    return calls


def _declare(name: str, ty: str, function: Callable[..., int | None]) -> SystemCall:
    def serve(caller: Caller, *args: int) -> int | None:
        try:
            result = function(caller, *args)
        except WasmtimeError as error:
            refused = _REFUSED.search(str(error))
            if refused is None:
                raise
            return abi.MEMVIOLATION if refused["pointer"] else abi.INVAL
        return abi.MEMVIOLATION if result == abi.FAULT else result

    return SystemCall(abi.WASIX_MODULE, name, ty, serve)


def _copying(descriptors: DescriptorTables, calls: dict[str, SystemCall]) -> Callable[..., int | None]:
    """Return ``fd_renumber`` as WASIX has it: it leaves the descriptor open that it was given."""
    renumber = calls["fd_renumber"].function

    def fd_renumber(caller: Caller, fd: int, to: int) -> int | None:
        descriptors.of(caller).copies = True
        return renumber(caller, fd, to)

    return fd_renumber
