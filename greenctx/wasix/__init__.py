"""Guests on wasmtime: WASIX programs whose contexts are those of a `greenctx.ContextSwitchingEnvironment`.

`Program` loads and runs a WASI command. `Linker` and `call` are for embedders with an engine and a store of their own.
"""

try:
    import wasmtime as _wasmtime  # noqa: F401
except ImportError as error:
    if error.name != "wasmtime":  # a part of Python's, ctypes for one
        raise ImportError(f"greenctx.wasix needs wasmtime, which cannot be imported: {error}") from error
    raise ImportError("greenctx.wasix needs wasmtime: install greenctx[wasix]") from error
try:
    import greenctx.wasix._native._fiber
    import greenctx.wasix._program.program  # and with it all that uses the native part  # noqa: F401
except ImportError as error:
    if error.name != "greenctx.wasix._native._fiber":
        raise
    from greenctx.wasix._program.missing import advice

    is_there = not isinstance(error, ModuleNotFoundError)
    raise ImportError(f"greenctx.wasix lacks its native part ({error}): {advice(is_there)}") from error

from greenctx.errors import (
    CalledWithinGuest,
    Deadlock,
    FiberStacksExhausted,
    GuestException,
    GuestExit,
    InvalidProgram,
    ProgramClosed,
    ProgramInUse,
    ReferencesTooLate,
    ResourcesExhausted,
    ShadowStackOverflow,
    ShadowStackUnavailable,
    StoreInUse,
    TimeLimitExceeded,
    WasiNotSet,
    WrongStore,
)
from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.functions import Func, Global, Table
from greenctx.wasix._fibers.stores import Caller
from greenctx.wasix._fibers.traps import GuestFrame, GuestTrap
from greenctx.wasix._fibers.values import F32, I32
from greenctx.wasix._files.stdio import Stdio
from greenctx.wasix._linking.instances import Instance
from greenctx.wasix._linking.linker import Linker
from greenctx.wasix._linking.requirements import InstancePre
from greenctx.wasix._program.limits import Limits
from greenctx.wasix._program.program import Program
from greenctx.wasix._program.wasi_config import ReadOnly

__all__ = [
    "F32",
    "I32",
    "CalledWithinGuest",
    "Caller",
    "Deadlock",
    "FiberStacksExhausted",
    "Func",
    "Global",
    "GuestException",
    "GuestExit",
    "GuestFrame",
    "GuestTrap",
    "Instance",
    "InstancePre",
    "InvalidProgram",
    "Limits",
    "Linker",
    "Program",
    "ProgramClosed",
    "ProgramInUse",
    "ReadOnly",
    "ReferencesTooLate",
    "ResourcesExhausted",
    "ShadowStackOverflow",
    "ShadowStackUnavailable",
    "Stdio",
    "StoreInUse",
    "Table",
    "TimeLimitExceeded",
    "WasiNotSet",
    "WrongStore",
    "call",
]
