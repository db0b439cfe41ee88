"""Regions of guest memory for shadow stacks: taken from the guest, kept for the next context, and watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Func, Memory, WasmtimeError

from greenctx.errors import ShadowStackUnavailable
from greenctx.wasix import suspend
from greenctx.wasix.abi import MALLOC, MEMORY
from greenctx.wasix.value_types import kind_of

if TYPE_CHECKING:
    from wasmtime import Store
    from wasmtime._instance import InstanceExports

    from greenctx.wasix.stack_pointer import StackPointer

ALIGNMENT = 16  # of LLVM's stack pointer
CANARY = b"greenctx canary!" * 4  # at the low end of each region, where an overflow begins
SMALLEST = 1024


class Regions:
    """Regions of one size. One that is given back is used again, and none is returned to the guest."""

    def __init__(self, store: Store, exports: InstanceExports, pointer: StackPointer, size: int) -> None:
        """``size`` in bytes; it is rounded up."""
        memory, malloc = exports[MEMORY], exports.get(MALLOC)
        assert isinstance(memory, Memory)
        self.size = max(SMALLEST, _aligned(size))
        self._pointer = pointer
        self._memory = memory
        self._malloc = malloc if isinstance(malloc, Func) and _maps_an_address(malloc, store, pointer.bits) else None
        self._free: list[int] = []

    def __bool__(self) -> bool:
        """Whether there is one at hand."""
        return bool(self._free)

    def take(self, store: Store) -> int:
        """Return the bottom of a region. May call the guest's malloc. Raises `ShadowStackUnavailable`."""
        bottom = self._free.pop() if self._free else self._from_guest(store)
        self._pointer.write_memory(bottom, CANARY)
        return bottom

    def give_back(self, bottom: int) -> None:
        self._free.append(bottom)

    def top(self, bottom: int) -> int:
        """Where a stack in that region begins; it grows down."""
        return bottom + self.size

    def is_overrun(self, bottom: int) -> bool:
        """Whether the stack in that region, which must be the one in use, has ever been beyond its end.

        A frame that leaves the canary's bytes alone, for its locals there are never written, is not noticed once it
        has returned.
        """
        lowest = bottom + len(CANARY)
        return self._pointer.get() < lowest or self._pointer.read_memory(bottom, len(CANARY)) != CANARY

    def _from_guest(self, store: Store) -> int:
        wanted = self.size if self._malloc is None else self.size + ALIGNMENT - 1
        if wanted >= 1 << self._pointer.bits:
            raise ShadowStackUnavailable(self.size)
        return self._from_memory(store) if self._malloc is None else self._from_malloc(store, self._malloc, wanted)

    def _from_malloc(self, store: Store, malloc: Func, wanted: int) -> int:
        sign = 1 << (self._pointer.bits - 1)
        block = suspend.call(store, malloc, (wanted ^ sign) - sign) & (2 * sign - 1)
        bottom = _aligned(block)
        if block == 0 or bottom + self.size > self._memory.data_len(store):  # the latter would be a broken malloc
            raise ShadowStackUnavailable(self.size)
        return bottom

    def _from_memory(self, store: Store) -> int:
        page = self._memory.page_size(store)
        pages = -(-self.size // page)
        try:
            start = self._memory.grow(store, pages) * page
        except WasmtimeError:
            raise ShadowStackUnavailable(self.size) from None
        # As many as there is room for: a page holds several small ones.
        self._free += range(start + self.size, start + pages * page - self.size + 1, self.size)
        return start


def _aligned(address: int) -> int:
    return -(-address // ALIGNMENT) * ALIGNMENT


def _maps_an_address(func: Func, store: Store, bits: int) -> bool:
    """Whether it is a function from an integer of so many bits to another."""
    ty, address = func.type(store), [f"i{bits}"]
    return [*map(kind_of, ty.params)] == address == [*map(kind_of, ty.results)]
