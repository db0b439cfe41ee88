"""Limits: how many contexts, how much memory and how many seconds a program may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from greenctx.errors import InvalidProgram
from greenctx.wasix.binary import PAGE, sizes

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix.binary import Size

ELEMENT = 8  # bytes that wasmtime takes for an element of a table
TABLE_SHARE = 8  # tables may grow by one part in so many of what is left


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use; None is no limit.

    ``contexts``: contexts alive at any one time, besides main. At the limit ``context_create`` answers again.

    ``memory``: bytes, of all memories and tables of the program together. Growth beyond it fails, and a program that
    starts with more is refused. wasmtime's own limit is the same for each memory and each table; so where a program has
    several, each may grow to the size that all of them could reach at once, and tables by an eighth of what is left.

    ``seconds``: from the start of `Program.run`, after which every context is unwound and `TimeLimitExceeded` raised.
    """

    contexts: int | None = None
    memory: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("contexts", "memory", "seconds"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be None or at least 0, not {value!r}")

    def apply(self, store: Store, name: str, code: bytes) -> None:
        """Set wasmtime's limits for that module; raise `InvalidProgram` if it starts beyond ours."""
        if self.memory is None:
            return
        memories, tables = sizes(code)
        starts = sum(one.minimum for one in memories) + ELEMENT * sum(one.minimum for one in tables)
        left = self.memory - starts
        if left < 0:
            raise InvalidProgram(name, f"it starts with {starts} bytes of memory, more than the limit of {self.memory}")
        for_tables = left // TABLE_SHARE if tables else 0
        bytes_each = _size_each(memories, left - for_tables, PAGE)
        elements_each = _size_each(tables, for_tables // ELEMENT, 1)
        if bytes_each is None or elements_each is None:
            raise InvalidProgram(name, f"its memories start too unequal for the limit of {self.memory} bytes in all")
        store.set_limits(memory_size=bytes_each, table_elements=elements_each)


def _size_each(things: list[Size], left: int, step: int) -> int | None:
    """The size to which each may grow so that all together grow by at most ``left``; None if some start larger."""
    largest_start = max((one.minimum for one in things), default=0)

    def growth(size: int) -> int:
        reached = (size if one.maximum is None else min(size, one.maximum) for one in things)
        return sum(max(0, end - one.minimum) for end, one in zip(reached, things, strict=True))

    if growth(largest_start) > left:
        return None
    low, high = largest_start // step, (largest_start + left) // step
    while low < high:
        middle = (low + high + 1) // 2
        if growth(middle * step) <= left:
            low = middle
        else:
            high = middle - 1
    return max(low * step, largest_start)
