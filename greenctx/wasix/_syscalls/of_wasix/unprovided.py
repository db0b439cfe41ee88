"""Functions of WASIX that greenctx does not provide: they return notsup, or trap, when they are called.

Programs import far more than they call, because their libc does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Trap

from greenctx._reports.reports import logger
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.process import process_of
from greenctx.wasix._syscalls.table import SystemCall

if TYPE_CHECKING:
    from greenctx.wasix._fibers.stores import Caller


def unprovided(module: str, name: str, ty: str) -> SystemCall:
    """Declare a function that returns notsup, or traps if it returns no errno. The first call in a store is logged."""

    def refuse(caller: Caller, *_: int) -> int:
        called = process_of(caller.store).called_in_vain
        message = f"the guest called {module}.{name}, which greenctx does not provide"
        if (module, name) not in called:
            called.add((module, name))
            logger.info(message)
        if not ty.endswith("-> i32"):
            raise Trap(message)
        return abi.NOTSUP

    return SystemCall(module, name, ty, refuse, is_provided=False)
