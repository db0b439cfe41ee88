"""The WASIX context calls: the current environment and guest memory in, an errno out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wasmtime import Func, Table, WasmtimeError

from greenctx._core.scope import current_environment
from greenctx.errors import NoEnvironment, ShadowStackUnavailable, TooManyContexts
from greenctx.wasix._fibers.stores import Caller, state_of
from greenctx.wasix._fibers.values import func_type
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.entrypoints import entrypoint_of
from greenctx.wasix._syscalls.guest_memory import GuestMemory, MemoryFault

if TYPE_CHECKING:
    from collections.abc import Callable


def define_context_calls(define_func: Callable[..., None], define_switch: Callable[..., None]) -> None:
    """Define the calls with a linker's ``define_func``, and the switch with what is particular about it."""
    create64 = partial(context_create, mask=abi.U64_MASK)
    modules = ((abi.CONTEXT_MODULE, "i32", context_create), (abi.CONTEXT_MODULE_64, "i64", create64))
    for module, pointer, create in modules:
        define_func(module, "context_create", func_type(f"{pointer} i32 -> i32"), create, access_caller=True)
        define_switch(module, "context_switch", func_type("i64 -> i32"), context_switch)
        define_func(module, "context_destroy", func_type("i64 -> i32"), context_destroy)


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
            context_id = environment.create_context(entrypoint_of(store, func, index))
        else:
            context_id = stacks.create_context(store, environment, entrypoint_of(store, func, index))
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
    # Asked first: a SwitchTargetMissing that comes out of the switch can be another context's. And for the caller: an
    # interruption may have left it to its next call to be made the active one.
    if context_id != environment.active_context_id and not environment._can_switch_to(context_id):
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
