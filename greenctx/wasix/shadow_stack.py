"""Shadow stacks: a region of guest memory for each context's address-taken locals.

LLVM keeps such locals on a stack in linear memory whose top is the global ``__stack_pointer``. WASIX leaves it shared
by all contexts, and a plain C guest corrupts it when one context returns to a shallower frame while another waits
below. With regions each context has its own, and the pointer is put back whenever a host function returns to the guest:
only there can another context have run. (Putting it back without regions would be wrong: contexts would write over each
other.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Func, Global, Memory, WasmtimeError

from greenctx.environment import ContextSwitchingEnvironment
from greenctx.errors import InvalidProgram, ShadowStackOverflow
from greenctx.wasix.abi import MEMORY, U32_MASK
from greenctx.wasix.binary import PAGE
from greenctx.wasix.suspend import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Instance, Store

STACK_POINTER = "__stack_pointer"
ALIGNMENT = 16  # of LLVM's stack pointer for wasm32
CANARY = b"greenctx canary!" * 4  # at the low end of each region, where an overflow begins


class ShadowStackUnavailable(Exception):
    """There is no memory for another region. Answered with errno nomem."""


class ShadowStacks:
    """The regions of one running program."""

    def __init__(self, store: Store, instance: Instance, name: str, size: int) -> None:
        """``size`` is that of each region, in bytes. `InvalidProgram` if the guest does not export what it takes."""
        exports = instance.exports(store)
        pointer, memory, allocate = exports.get(STACK_POINTER), exports.get(MEMORY), exports.get("malloc")
        if not isinstance(pointer, Global) or not pointer.type(store).mutable:
            raise InvalidProgram(
                name,
                f"shadow stacks need its {STACK_POINTER!r}, which it does not export; "
                f"link it with -Wl,--export={STACK_POINTER}",
            )
        assert isinstance(memory, Memory)
        self._store = store
        self._pointer = pointer
        self._memory = memory
        self._malloc = allocate if isinstance(allocate, Func) else None
        self._size = -(-size // ALIGNMENT) * ALIGNMENT
        self._free: list[int] = []
        self._bottoms: dict[int, int] = {}  # of the regions in use, by context id
        self._sweep_at = 16

    def create_context(self, environment: ContextSwitchingEnvironment, entrypoint: Callable[[], object]) -> int:
        """Create a context with a region of its own. Raises `ShadowStackUnavailable`, or what the environment does."""

        def on_region() -> None:
            self._pointer.set_value(self._store, _signed(bottom + self._size))
            entrypoint()

        context_id = environment.create_context(on_region)
        try:
            bottom = self._allocate(environment)
        except BaseException:
            environment.destroy_context(context_id)
            raise
        self._memory.write(self._store, CANARY, bottom)
        self._bottoms[context_id] = bottom
        return context_id

    def around(self, host_function: Callable[[], object], environment: object) -> None:
        """Run a host function; afterwards the stack pointer is what it was."""
        pointer = self._pointer.value(self._store)
        if isinstance(environment, ContextSwitchingEnvironment):
            self._check(environment.active_context_id, pointer & U32_MASK)
        host_function()
        self._pointer.set_value(self._store, pointer)

    def _allocate(self, environment: ContextSwitchingEnvironment) -> int:
        """The bottom of a region that no living context has."""
        if not self._free and len(self._bottoms) >= self._sweep_at:
            self._sweep(environment)
        if self._free:
            return self._free.pop()
        if self._malloc is not None:
            block = call(self._store, self._malloc, self._size + ALIGNMENT) & U32_MASK
            if block == 0:
                raise ShadowStackUnavailable
            return int(-(-block // ALIGNMENT)) * ALIGNMENT
        try:
            return self._memory.grow(self._store, -(-self._size // PAGE)) * PAGE
        except WasmtimeError:
            raise ShadowStackUnavailable from None

    def _check(self, context_id: int, pointer: int) -> None:
        bottom = self._bottoms.get(context_id)
        if bottom is None:  # main, on the stack that the linker laid out
            return
        canary = self._memory.read(self._store, bottom, bottom + len(CANARY))
        if pointer < bottom + len(CANARY) or canary != CANARY:
            raise ShadowStackOverflow(context_id, self._size)

    def _sweep(self, environment: ContextSwitchingEnvironment) -> None:
        """Take back the regions of contexts that have ended. Seldom, so that it costs little for each context."""
        alive = set(environment._registry.ids())
        ended = [context_id for context_id in self._bottoms if context_id not in alive]
        self._free += [self._bottoms.pop(context_id) for context_id in ended]
        self._sweep_at = max(16, 2 * len(self._bottoms))


def _signed(address: int) -> int:
    return address - (1 << 32) if address >= 1 << 31 else address
