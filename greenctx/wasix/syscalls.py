"""The WASIX context calls: the current environment and guest memory in, an errno out."""

from __future__ import annotations

from wasmtime import Func, Table, WasmtimeError

from greenctx.current import current_environment
from greenctx.errors import NoEnvironment, ShadowStackUnavailable, TooManyContexts
from greenctx.wasix import abi
from greenctx.wasix.entrypoints import Entrypoint
from greenctx.wasix.memory import GuestMemory, MemoryFault
from greenctx.wasix.stores import Caller, state_of


def context_create(caller: Caller, pointer: int, entrypoint: int, mask: int = abi.U32_MASK) -> int:
    """Create a suspended context that will call a function of the guest's table; write its id, a u64, to memory."""
    try:
        environment = current_environment()
    except NoEnvironment:
        return abi.NOTSUP
    store = caller.store
    index = entrypoint & abi.U32_MASK
    func = _entrypoint(caller, index)
    if func is None:
        return abi.INVAL
    try:
        memory = GuestMemory(caller, mask)
        memory.check(pointer, 8)
    except MemoryFault:
        return abi.FAULT
    stacks = state_of(store).shadow_stacks
    try:
        if stacks is None:
            context_id = environment.create_context(Entrypoint(store, func, index))
        else:
            context_id = stacks.create_context(store, environment, Entrypoint(store, func, index))
    except TooManyContexts:
        return abi.AGAIN
    except ShadowStackUnavailable:
        return abi.NOMEM
    memory.write_u64(pointer, context_id)
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
