"""The red zone: 128 bytes below a guest's stack pointer, where LLVM keeps locals without moving the pointer.

Only functions without calls do so (RedZoneSize in LLVM's WebAssemblyFrameLowering.cpp). A handler that runs in the
middle of such a function, at the end of an epoch, must leave these bytes alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from wasmtime import Global

from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._fibers.values import kind_of
from greenctx.wasix._modules.abi import STACK_POINTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasmtime import Store

    from greenctx.wasix._fibers.stores import Caller

SIZE = 128

_BITS = {"i32": 32, "i64": 64}


class RedZone:
    """The red zone of the guest that calls."""

    def __init__(self, caller: Caller) -> None:
        item = caller.get(STACK_POINTER)
        self._pointer: Global | None = None
        if isinstance(item, Global):
            ty = item.type(caller)
            self._bits = _BITS.get(kind_of(ty.content) or "", 0)
            if self._bits and ty.mutable:
                self._pointer = item

    def is_known(self, store: Store) -> bool:
        """Whether a handler can leave the zone alone in the middle of code without a call."""
        # Guests that may hold references cannot be called there at all (see `StoreState.enter`).
        return self._pointer is not None and state_of(store).gc_anchor is None

    @contextmanager
    def left_alone(self, store: Store) -> Iterator[None]:
        """While entered, calls of the guest put their locals below the zone."""
        assert self._pointer is not None
        stacks = state_of(store).shadow_stacks
        if stacks is not None:
            with stacks.lowered(SIZE):
                yield
            return
        before = self._pointer.value(store)
        half = 1 << (self._bits - 1)  # the package has signed numbers, and a guest's pointer may be anything
        self._pointer.set_value(store, (before - SIZE + half) % (2 * half) - half)
        try:
            yield
        finally:
            self._pointer.set_value(store, before)
