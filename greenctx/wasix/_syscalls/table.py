"""How system calls are declared: a name, a type, the function that serves the call, and the answer to a bad pointer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from greenctx.wasix._files.wasmtime_wasi import PARAMETERS
from greenctx.wasix._modules import abi
from greenctx.wasix._native._fiber import DIRECT_CALLS
from greenctx.wasix._syscalls.guest_memory import MemoryFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from greenctx.wasix._fibers.stores import Caller

BAD_POINTER = {
    abi.WASI_MODULE: abi.FAULT,
    abi.WASI_UNSTABLE_MODULE: abi.FAULT,
    abi.WASIX_MODULE: abi.MEMVIOLATION,
    abi.WASIX_MODULE_64: abi.MEMVIOLATION,
}
"""The errno for a pointer to outside of the memory, by the call's import module: as in wasmtime and Wasmer."""


class SystemCall(NamedTuple):
    """One function that guests import from WASI or WASIX."""

    module: str
    name: str
    type: str
    """As in WebAssembly text, such as "i32 i64 -> i32". The function gets every argument unsigned."""
    function: Callable[..., int | None]
    """It may raise `MemoryFault`. Returns an errno, if the type has a result."""
    needs_caller: bool = True
    """Whether the function's first argument is a `Caller`. Without one there is no memory, so no bad pointer either."""
    is_switch: bool = False
    """Whether this is context_switch, most of whose calls `Fiber.poll` serves without calling the function."""
    is_direct: bool = False
    """Whether a call of WASI's function of that name may take its place, as `_fiber.DirectDescriptors` describes."""
    is_provided: bool = True
    """Whether greenctx provides what the call is for. If not, the function returns notsup, or traps."""

    def host_function(self) -> Callable[..., int | None]:
        """Return the function, which now answers a bad pointer instead of raising `MemoryFault`."""
        if not self.needs_caller:
            return self.function
        answer = None if self.type.endswith("->") else BAD_POINTER[self.module]
        return _answering(self.function, answer)


def calls_of(functions: object, module: str, types: Mapping[str, str]) -> Iterator[SystemCall]:
    """Declare the methods that have the names of these types."""
    for name, ty in types.items():
        yield SystemCall(module, name, ty, getattr(functions, name))


def wasi_call(name: str, function: Callable[..., int]) -> SystemCall:
    """Declare a function that takes the place of wasmtime's of that name."""
    ty = f"{PARAMETERS[name]} -> i32".strip()
    return SystemCall(abi.WASI_MODULE, name, ty, function, is_direct=name in DIRECT_CALLS)


def wasi_calls_of(functions: object, *names: str) -> Iterator[SystemCall]:
    """Declare the methods of these names, which replace wasmtime's functions."""
    for name in names:
        yield wasi_call(name, getattr(functions, name))


def _answering(function: Callable[..., int | None], answer: int | None) -> Callable[..., int | None]:
    def serve(caller: Caller, *args: int) -> int | None:
        try:
            return function(caller, *args)
        except MemoryFault:
            return answer

    return serve
