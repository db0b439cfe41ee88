"""Regions of guest memory for shadow stacks: allocated in the guest, kept for the next context, and guarded."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from wasmtime import Func, WasmtimeError

from greenctx.errors import ShadowStackUnavailable
from greenctx.wasix._fibers import calls
from greenctx.wasix._fibers.values import type_text
from greenctx.wasix._native._fiber import ShadowStack

if TYPE_CHECKING:
    from wasmtime import Memory, Store

    from greenctx.wasix._native._fiber import StackPointer

ALIGNMENT = 16  # of LLVM's stack pointer
CANARY = b"greenctx canary!" * 4  # at the low end of each region, where an overflow begins
MIN_SIZE = 1024


class StackPool:
    """Regions of one size. A freed region is used again, and never returned to the guest."""

    def __init__(self, store: Store, memory: Memory, malloc: object, pointer: StackPointer, size: int) -> None:
        """``malloc`` is the guest's export of that name. ``size`` is in bytes, and rounded up."""
        self.size = max(MIN_SIZE, _aligned(size))
        self._pointer = pointer
        self._memory = memory
        ty = f"i{pointer.bits} -> i{pointer.bits}"
        self._malloc = malloc if isinstance(malloc, Func) and type_text(malloc.type(store)) == ty else None
        self._in_malloc = False
        self._free: list[int] = []

    def __bool__(self) -> bool:
        """Return whether a region is free."""
        return bool(self._free)

    def take(self, store: Store) -> int:
        """Return the bottom of a region. May call the guest's malloc. Raises `ShadowStackUnavailable`."""
        bottom = self._free.pop() if self._free else self._from_guest(store)
        ctypes.memmove(self._pointer.memory_address() + bottom, CANARY, len(CANARY))
        return bottom

    def give_back(self, bottom: int) -> None:
        self._free.append(bottom)

    def stack(self, bottom: int, on_overflow: object) -> ShadowStack:
        """Return the stack in that region, which begins at its top and grows down."""
        return ShadowStack(bottom + self.size, bottom, CANARY, on_overflow)

    def _from_guest(self, store: Store) -> int:
        wanted = self.size if self._malloc is None else self.size + ALIGNMENT - 1
        if wanted >= 1 << self._pointer.bits:
            raise ShadowStackUnavailable(self.size)
        return self._from_memory(store) if self._malloc is None else self._from_malloc(store, self._malloc, wanted)

    def _from_malloc(self, store: Store, malloc: Func, wanted: int) -> int:
        sign = 1 << (self._pointer.bits - 1)
        if self._in_malloc:  # malloc creates a context, whose region would need malloc, without end
            raise ShadowStackUnavailable(self.size)
        self._in_malloc = True
        try:
            block = calls.call(store, malloc, (wanted ^ sign) - sign) & (2 * sign - 1)
        finally:
            self._in_malloc = False
        bottom = _aligned(block)
        if block == 0 or bottom + self.size > self._memory.data_len(store):  # no memory, or a broken malloc
            raise ShadowStackUnavailable(self.size)
        return bottom

    def _from_memory(self, store: Store) -> int:
        page = self._memory.page_size(store)
        pages = -(-self.size // page)
        try:
            start = self._memory.grow(store, pages) * page
        except WasmtimeError:
            raise ShadowStackUnavailable(self.size) from None
        # A page holds several small regions: keep the free ones.
        self._free += range(start + self.size, start + pages * page - self.size + 1, self.size)
        return start


def _aligned(address: int) -> int:
    return -(-address // ALIGNMENT) * ALIGNMENT
