"""A module's WASIX imports beyond the calls that every linker defines: declared when a module needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import FuncType

from greenctx.wasix._fibers.values import type_text
from greenctx.wasix._modules.abi import WASI_UNSTABLE_MODULE, WASIX_MODULE, WASIX_MODULE_64, WASIX_MODULES
from greenctx.wasix._syscalls.of_wasix.clocks import ClockCalls
from greenctx.wasix._syscalls.of_wasix.epoll import EPOLL_TYPES, EpollCalls
from greenctx.wasix._syscalls.of_wasix.files import FILE_TYPES
from greenctx.wasix._syscalls.of_wasix.lone_process import LONE_PROCESS_TYPES, LoneProcessCalls
from greenctx.wasix._syscalls.of_wasix.preview0 import wasi_preview0
from greenctx.wasix._syscalls.of_wasix.terminal import TERMINAL_TYPES, TerminalCalls
from greenctx.wasix._syscalls.of_wasix.types import pointers_as, wasix_types
from greenctx.wasix._syscalls.of_wasix.unprovided import unprovided
from greenctx.wasix._syscalls.of_wasix.wasi_in_wasix import wasi_in_wasix
from greenctx.wasix._syscalls.table import SystemCall, calls_of
from greenctx.wasix._syscalls.wasi import proc_exit
from greenctx.wasix._syscalls.wasix import SHARED_TYPES, WasixCalls, thread_exit

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from wasmtime import Module

    from greenctx.wasix._linking.imports import Key
    from greenctx.wasix._syscalls.process import DescriptorTables


def calls_for(
    module: Module, modules: Container[str], defined: Container[Key], descriptors: DescriptorTables, *, wasi: bool
) -> Iterator[SystemCall]:
    """Yield a call for each function that the module imports from those of WASIX and WASI, unless that is defined.

    Functions that greenctx does not provide are included. Unknown names, and types that WASIX's function never had, are
    left out, so that those imports are refused. Without ``wasi``, WASI's functions are left out too.
    """
    call: SystemCall | None
    provided = {name: _provided(name, descriptors) for name in WASIX_MODULES}
    of_wasi, of_preview0 = wasi_in_wasix(descriptors), wasi_preview0(descriptors)
    for wanted in module.imports:
        key = wanted.module, wanted.name or ""
        if wanted.module not in modules or key in defined or not isinstance(wanted.type, FuncType):
            continue
        ty = type_text(wanted.type)
        if key[0] == WASI_UNSTABLE_MODULE:
            call = of_preview0.get(key[1])
            if call is not None and call.type == ty:
                yield call
            continue
        call = provided[key[0]].get((key[1], ty))
        if key[0] == WASIX_MODULE and key[1] in of_wasi:
            call = of_wasi[key[1]]
            if wasi and call.type == ty:
                yield call
        elif call is not None:
            yield call
        elif key[0] == WASIX_MODULE and key[1] in FILE_TYPES:  # left out by `define_wasix`
            continue
        elif ty in wasix_types(key[0]).get(key[1], ()):
            yield unprovided(*key, ty)


def _provided(module: str, descriptors: DescriptorTables) -> Mapping[tuple[str, str], SystemCall]:
    """Declare the functions that greenctx provides, by name and type."""
    lone_process = LoneProcessCalls()
    calls = [
        *_calls_of(lone_process, module, LONE_PROCESS_TYPES),
        *_calls_of(TerminalCalls(descriptors), module, TERMINAL_TYPES),
        *_calls_of(EpollCalls(descriptors, 8 if module == WASIX_MODULE_64 else 4), module, EPOLL_TYPES),
        *_calls_of(ClockCalls(), module, {"clock_time_set": "i32 i64 -> i32"}),
        *_calls_of(WasixCalls(descriptors), module, SHARED_TYPES),
        *(SystemCall(module, "proc_join", ty, lone_process.proc_join) for ty in wasix_types(module)["proc_join"]),
        SystemCall(module, "proc_exit", "i32 ->", proc_exit, needs_caller=False),
        SystemCall(module, "proc_exit2", "i32 ->", proc_exit, needs_caller=False),
        SystemCall(module, "thread_exit", "i32 ->", thread_exit, needs_caller=False),
    ]
    return {(call.name, call.type): call for call in calls}


def _calls_of(functions: object, module: str, types: Mapping[str, str]) -> Iterator[SystemCall]:
    return calls_of(functions, module, {name: pointers_as(module, ty) for name, ty in types.items()})
