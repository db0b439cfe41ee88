"""Fiber stacks: how many the kernel allows, and a clear error when there are no more.

Each unfinished call into a guest has a fiber, whose stack wasmtime maps. A stack takes two of the mappings that Linux
allows a process (vm.max_map_count, 65530 by default). Near 32,000 suspended guests the next ``mmap`` fails with ENOMEM.
Python's own allocator fails then, too, and contexts could not unwind. So some mappings are left for Python.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import TYPE_CHECKING

from wasmtime import WasmtimeError

from greenctx.errors import FiberStacksExhausted

if TYPE_CHECKING:
    from greenctx.wasix._native._fiber import StoreState

MAPPINGS_PER_STACK = 2
SPARE_MAPPINGS = 2048
SPARE_BYTES = 16 * 2**20
ENOMEM = "(os error 12)"


def _max_map_count() -> int | None:
    try:
        return int(Path("/proc/sys/vm/max_map_count").read_text())
    except (OSError, ValueError):  # not Linux
        return None


MAX_MAP_COUNT = _max_map_count()
MAX_STACKS = None if MAX_MAP_COUNT is None else max(1, (MAX_MAP_COUNT - SPARE_MAPPINGS) // MAPPINGS_PER_STACK)


class _Spare:
    """Memory kept in reserve, and freed when there is no other, so that the contexts can unwind."""

    def __init__(self) -> None:
        self._addresses: mmap.mmap | None = None

    def keep(self) -> None:
        if self._addresses is None:
            self._addresses = mmap.mmap(-1, SPARE_BYTES)

    def give_back(self) -> None:
        if self._addresses is not None:
            self._addresses.close()
            self._addresses = None


_spare = _Spare()


def check_stack_limit(state: StoreState) -> None:
    """Raise `FiberStacksExhausted` if the store has as many calls as there can be."""
    _spare.keep()  # kept anew if it was freed, as soon as there is memory
    if MAX_STACKS is not None and state.calls >= MAX_STACKS:
        raise FiberStacksExhausted(state.calls, MAX_MAP_COUNT)


def explain_exhaustion(error: Exception, state: StoreState) -> Exception:
    """Return the error to raise for a call that ``error`` ended: `FiberStacksExhausted` if the error says ENOMEM."""
    # `check_stack_limit` counts one store's calls. Other stores or the host may have many mappings, too, or the process
    # has a limit of address space.
    if isinstance(error, WasmtimeError) and ENOMEM in str(error).split("\n", 1)[0]:
        _spare.give_back()  # first of all, because even the exception takes memory
        exhausted = FiberStacksExhausted(state.calls, MAX_MAP_COUNT)
        exhausted.__cause__ = error
        return exhausted
    return error
