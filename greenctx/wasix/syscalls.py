"""The WASIX context calls: the current environment and guest memory in, an errno out."""

from __future__ import annotations

from wasmtime import Func, Memory, Table, WasmtimeError

from greenctx.environment import current_environment
from greenctx.errors import NoEnvironment, TooManyContexts
from greenctx.wasix import abi
from greenctx.wasix.suspend import Caller, call


def context_create(caller: Caller, pointer: int, entrypoint: int) -> int:
    """Create a suspended context that will call a function of the guest's table; write its id, a u64, to memory."""
    try:
        environment = current_environment()
    except NoEnvironment:
        return abi.NOTSUP
    store = caller.store
    func = _entrypoint(caller, entrypoint & abi.U32_MASK)
    if func is None:
        return abi.INVAL
    memory = caller.get(abi.MEMORY)
    start = pointer & abi.U32_MASK  # wasmtime's package hands an i32 over as a signed int
    if not isinstance(memory, Memory) or start + 8 > memory.data_len(caller):
        return abi.FAULT
    try:
        context_id = environment.create_context(lambda: call(store, func))
    except TooManyContexts:
        return abi.AGAIN
    memory.write(caller, context_id.to_bytes(8, "little"), start)
    return abi.SUCCESS


def context_switch(context_id: int) -> int:
    """Switch to a suspended context; returns when the calling one is switched to."""
    try:
        environment = current_environment()
    except NoEnvironment:
        return abi.NOTSUP
    context_id &= abi.U64_MASK
    # Asked first: a SwitchTargetMissing that comes out of the switch can be another context's.
    if not environment._can_switch_to(context_id):
        return abi.INVAL
    environment.switch_context(context_id)
    return abi.SUCCESS


def context_destroy(context_id: int) -> int:
    """Destroy a suspended context; an id that is not there is no error."""
    try:
        environment = current_environment()
    except NoEnvironment:
        return abi.NOTSUP
    context_id &= abi.U64_MASK
    if context_id in (abi.MAIN_CONTEXT, environment.active_context_id):
        return abi.INVAL
    environment.destroy_context(context_id)
    return abi.SUCCESS


def _entrypoint(caller: Caller, index: int) -> Func | None:
    """The function at that index of the guest's table, if there is one of type () -> ()."""
    table = caller.get(abi.FUNCTION_TABLE)
    if not isinstance(table, Table):
        return None
    try:
        func = table.get(caller.store, index)
    except WasmtimeError:
        return None
    if not isinstance(func, Func):
        return None
    ty = func.type(caller)
    return None if ty.params or ty.results else func
