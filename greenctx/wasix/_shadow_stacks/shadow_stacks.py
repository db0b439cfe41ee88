"""Shadow stacks: a region of guest memory for each context's address-taken locals.

LLVM keeps such locals on a stack in linear memory whose top is the global ``__stack_pointer``. In WASIX all contexts
share it, and a plain C guest corrupts it: one context returns to a shallower frame while another waits below. Here each
greenlet that calls the guest has its own stack. Main has the one that the linker laid out; a context has a region from
its creation to its end. A context that Python created gets its region when it calls the guest, and gives it back when
that call ends.

The native part sets the pointer only right before guest code runs (`Fiber.run`). Then it does not matter what happened
since the guest ran last: switches, nested calls, traps, exceptions, destroyed contexts. `in_use` says whose pointer the
global holds, so the global is left alone when the same stack runs again. Restoring the pointer without a region for
each context was tried and is wrong: contexts overwrite each other's locals.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, NoReturn, cast
from weakref import WeakKeyDictionary

from greenlet import getcurrent, greenlet
from wasmtime import Global, GlobalType, Memory, MemoryType

from greenctx._core.scope import current_context_id
from greenctx.errors import InvalidProgram, ShadowStackOverflow, ShadowStackUnavailable
from greenctx.wasix._fibers.values import kind_of
from greenctx.wasix._modules.abi import MALLOC, MEMORY, STACK_POINTER
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import ShadowStack, StackPointer
from greenctx.wasix._shadow_stacks.stack_pool import StackPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wasmtime import Instance, Module, Store

    from greenctx.environment import ContextSwitchingEnvironment
    from greenctx.wasix._native._fiber import Fiber


def check_exports(name: str, module: Module) -> None:
    """Raise `InvalidProgram` unless the module exports what shadow stacks need."""
    types = {export.name: export.type for export in module.exports}
    pointer, memory = types.get(STACK_POINTER), types.get(MEMORY)
    if not isinstance(pointer, GlobalType) or not pointer.mutable or kind_of(pointer.content) not in ("i32", "i64"):
        raise InvalidProgram(
            name,
            f"shadow stacks need its {STACK_POINTER!r}, which it does not export as a mutable global; "
            f"link it with -Wl,--export={STACK_POINTER}",
        )
    if not isinstance(memory, MemoryType) or memory.is_shared:
        raise InvalidProgram(name, f"shadow stacks need a memory that is not shared, exported as {MEMORY!r}")


class ShadowStacks:
    """The stacks of one running program. The greenlet that makes this object has main's stack.

    It does not refer to the store: the store's `StoreState` refers to it, and the cycle would delay the store's end.
    """

    def __init__(self, store: Store, instance: Instance, size: int) -> None:
        """``size`` is that of each region, in bytes. The module must have passed `check_exports`."""
        pointer = cast("Global", capi.find_export(store, instance, STACK_POINTER))
        memory = cast("Memory", capi.find_export(store, instance, MEMORY))
        malloc = capi.find_export(store, instance, MALLOC)
        addresses = capi.context_address(store), capi.item_address(pointer), capi.item_address(memory)
        self.pointer = StackPointer(*addresses, keep_alive=(pointer, memory))
        self.pool = StackPool(store, memory, malloc, self.pointer, size)
        self._on_overflow = _Overflow(self.pool.size)
        self._main = self.pointer.in_use = ShadowStack(self.pointer.get())
        self._stacks: WeakKeyDictionary[greenlet, ShadowStack] = WeakKeyDictionary({getcurrent(): self._main})
        # Regions of contexts that had not begun at the last sweep.
        self._reserved: dict[tuple[ContextSwitchingEnvironment, int], int] = {}
        self._sweep_at = 16

    def create_context(
        self, store: Store, environment: ContextSwitchingEnvironment, entrypoint: Callable[[], object]
    ) -> int:
        """Create a context with a region. Raises `ShadowStackUnavailable`, and the errors of `create_context`."""

        @wraps(entrypoint, ())
        def on_region() -> None:
            me = getcurrent()
            self._reserved.pop((environment, context_id), None)
            try:
                self._place(me, bottom)
                entrypoint()
            finally:
                self._end(me, bottom)

        bottom = self._take(store)
        try:
            context_id = environment.create_context(on_region)
        except BaseException:
            self.pool.give_back(bottom)
            raise
        self._reserved[environment, context_id] = bottom
        return context_id

    def begin(self, store: Store, fiber: Fiber) -> CallOnStack:
        """Prepare a call into the guest by the current greenlet. Raises `ShadowStackUnavailable`."""
        me = getcurrent()
        stack = self._stacks.get(me)
        if stack is not None:
            return CallOnStack(self.pointer, stack, fiber)
        self._stacks[me] = self._main  # for malloc's locals
        try:
            bottom = self._take(store)
        finally:
            self._stacks.pop(me, None)
        return CallOnStack(self.pointer, self._place(me, bottom), fiber, lambda: self._end(me, bottom))

    @contextmanager
    def lowered(self, size: int) -> Iterator[None]:
        """Leave that many bytes of the current greenlet's stack alone, in calls that it makes meanwhile.

        The guest that runs on it goes on where it was.
        """
        stack = self._stacks[getcurrent()]
        before = self.pointer.get() if self.pointer.in_use is stack else stack.pointer
        self._set(stack, before - size)
        try:
            yield
        finally:
            self._set(stack, before)

    def _set(self, stack: ShadowStack, pointer: int) -> None:
        """Set the pointer that the guest has when it runs on the stack next."""
        stack.pointer = pointer % 2**64
        if self.pointer.in_use is stack:
            self.pointer.in_use = None

    def _take(self, store: Store) -> int:
        # A sweep looks at all reservations. Doubling the threshold keeps the cost of each creation constant on average.
        if not self.pool and len(self._reserved) >= self._sweep_at:
            self._sweep()
        try:
            return self.pool.take(store)
        except ShadowStackUnavailable:
            self._sweep()
            if not self.pool:
                raise
            return self.pool.take(store)

    def _place(self, me: greenlet, bottom: int) -> ShadowStack:
        stack = self._stacks[me] = self.pool.stack(bottom, self._on_overflow)
        return stack

    def _end(self, me: greenlet, bottom: int) -> None:
        self._stacks.pop(me, None)
        self.pool.give_back(bottom)

    def _sweep(self) -> None:
        """Take back the regions of contexts that were destroyed before they began."""
        for (environment, context_id), bottom in [*self._reserved.items()]:
            registry = environment._registry
            if context_id not in registry.unstarted and context_id not in registry.started:
                del self._reserved[environment, context_id]
                self.pool.give_back(bottom)
        self._sweep_at = max(16, 2 * len(self._reserved))


class CallOnStack:
    """One call into the guest. Its locals go on one stack, below those of the calls around it."""

    __slots__ = ("_at_end", "_pointer", "_stack", "_start")

    def __init__(
        self, pointer: StackPointer, stack: ShadowStack, fiber: Fiber, at_end: Callable[[], None] | None = None
    ) -> None:
        self._pointer = pointer
        self._stack = stack
        self._start = pointer.get() if pointer.in_use is stack else stack.pointer
        self._at_end = at_end
        fiber.use_stack(pointer, stack)

    def end(self) -> None:
        """Free the frames that the call left on the stack, if it trapped or was destroyed."""
        pointer, stack = self._pointer, self._stack
        stack.pointer = self._start
        if pointer.in_use is stack:
            pointer.in_use = None
        if self._at_end is not None:
            self._at_end()


class _Overflow:
    """Replaces the host function that was called when the overflow was noticed, and raises when it is served."""

    def __init__(self, size: int) -> None:
        self._size = size

    def serve(self, *_: object) -> NoReturn:
        raise ShadowStackOverflow(current_context_id(), self._size)
