"""The WASIX context calls: the current environment and guest memory in, an errno out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Func, Table, WasmtimeError

from greenctx.environment import current_environment
from greenctx.errors import NoEnvironment, ShadowStackUnavailable, TooManyContexts
from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.stores import Caller, state_of
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.process import Process
from greenctx.wasix._syscalls.table import SystemCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasmtime import Store

    from greenctx.wasix._native._fiber import StoreState


def context_calls() -> Iterator[SystemCall]:
    """Yield the calls, for guests with 32-bit and with 64-bit pointers."""
    for module, pointer in ((abi.WASIX_MODULE, "i32"), (abi.WASIX_MODULE_64, "i64")):
        yield SystemCall(module, "context_create", f"{pointer} i32 -> i32", context_create)
        yield SystemCall(module, "context_switch", "i64 -> i32", context_switch, needs_caller=False, is_switch=True)
        yield SystemCall(module, "context_destroy", "i64 -> i32", context_destroy, needs_caller=False)


def context_create(caller: Caller, result_pointer: int, index: int) -> int:
    """Create a suspended context that will call a function of the guest's table; store its id, a u64."""
    try:
        environment = current_environment()
    except NoEnvironment:
        return abi.NOTSUP
    store = caller.store
    func = _function_at(caller, index)
    if func is None:
        return abi.INVAL
    memory = GuestMemory(caller)
    memory.check(result_pointer, 8)
    state = state_of(store)
    entrypoint = _entrypoint(store, func, _EntrypointName(state, index))
    try:
        if state.shadow_stacks is None:
            context_id = environment.create_context(entrypoint)
        else:
            context_id = state.shadow_stacks.create_context(store, environment, entrypoint)
    except TooManyContexts:
        return abi.AGAIN
    except ShadowStackUnavailable:
        return abi.NOMEM
    memory.write_u64(result_pointer, context_id)
    if context_id == 2 and isinstance(state.process, Process) and state.process.on_second_context is not None:
        state.process.on_second_context()
    return abi.SUCCESS


def context_switch(context_id: int) -> int:
    """Switch to a suspended context. Returns when another context switches back."""
    try:
        environment = current_environment()
    except NoEnvironment:
        return abi.NOTSUP
    # Asked before the switch, because a SwitchTargetMissing that the switch raises can be another context's. Reading
    # active_context_id also makes the caller the active context, which an interruption may have left to this call.
    if context_id != environment.active_context_id and not environment.can_switch_to(context_id):
        return abi.INVAL
    environment.switch_context(context_id)
    return abi.SUCCESS


def context_destroy(context_id: int) -> int:
    """Destroy a suspended context. An unknown id is not an error."""
    try:
        environment = current_environment()
    except NoEnvironment:
        return abi.NOTSUP
    if context_id in (abi.MAIN_CONTEXT, environment.active_context_id):
        return abi.INVAL
    environment.destroy_context(context_id)
    return abi.SUCCESS


def _function_at(caller: Caller, index: int) -> Func | None:
    """Return the function at that index of the guest's table, if it has the type () -> ()."""
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


def _entrypoint(store: Store, func: Func, name: _EntrypointName) -> Callable[[], None]:
    """Return a function that calls the guest's.

    Not an object with a `__call__`: that would take more of the native stack, which switches copy.
    """

    def entrypoint() -> None:
        call(store, func)

    entrypoint.__wrapped__ = name  # type: ignore[attr-defined]
    return entrypoint


class _EntrypointName:
    """Tells the name of a function of the guest's table when it is asked. To read a module's names takes long."""

    __slots__ = ("_index", "_state")

    def __init__(self, state: StoreState, index: int) -> None:
        self._state = state
        self._index = index

    @property
    def __name__(self) -> str:
        process = self._state.process  # not by `process_of`, which refuses while the guest runs
        names = process.entrypoint_names if isinstance(process, Process) else None
        return (names.at(self._index) if names is not None else None) or f"table[{self._index}]"
