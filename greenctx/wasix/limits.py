"""Limits: how many contexts, how much memory and how many seconds a program may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from greenctx.errors import InvalidProgram
from greenctx.wasix.binary import PAGE, NotUnderstood, sizes

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix.binary import Size

ELEMENT = 8  # bytes that wasmtime takes for an element of a table
TABLE_SHARE = 8  # where memories may grow, too, tables may by one part in so many of what is left
LARGEST = 2**63 - 1  # that wasmtime can be told


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a program may use; None is no limit.

    ``contexts``: contexts alive at any one time, besides main. At the limit ``context_create`` answers again.

    ``memory``: bytes, of all memories and tables of the program together. Growth beyond it fails, and a program that
    starts with more is refused. What wasmtime can be told is one size for every memory and one for every table, so
    where several of them may grow, each may only up to what all could reach at once; and if memories may, tables may
    take an eighth of what is left. The objects of guests that use wasm's garbage collector, exceptions among them, have
    a heap of their own, which may be as large as a memory.

    ``seconds``: from the start of `Program.run`, after which every context is unwound and `TimeLimitExceeded` raised.
    Host functions are not interrupted in the middle; programs that they run are.
    """

    contexts: int | None = None
    memory: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, kind in (("contexts", int), ("memory", int), ("seconds", int | float)):
            value = getattr(self, name)
            if value is None:
                continue
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name} must be None or a number, not {value!r}")
            if not value >= 0:
                raise ValueError(f"{name} must be None or at least 0, not {value!r}")

    def apply(self, store: Store, name: str, code: bytes) -> None:
        """Set wasmtime's limits for that module; raise `InvalidProgram` if it starts beyond ours."""
        if self.memory is None:
            return
        try:
            memories, tables = sizes(code)
        except NotUnderstood as error:
            raise InvalidProgram(name, f"its memory cannot be limited: {error}") from error
        # The growth of shared memories cannot be limited: they count as what they may grow to.
        starts = sum((one.maximum or 0) if one.shared else one.minimum for one in memories)
        starts += ELEMENT * sum(one.minimum for one in tables)
        left = self.memory - starts
        if left < 0:
            raise InvalidProgram(name, f"it starts with {starts} bytes of memory, more than the limit of {self.memory}")
        memories = [one for one in memories if not one.shared]
        for_tables = left
        if any(map(_can_grow, memories)):
            for_tables = left // TABLE_SHARE if any(map(_can_grow, tables)) else 0
            left -= for_tables
        bytes_each = _size_each(memories, left, PAGE)
        elements_each = _size_each(tables, for_tables // ELEMENT, 1)
        if bytes_each is None or elements_each is None:
            raise InvalidProgram(name, f"its memories start too unequal for the limit of {self.memory} bytes in all")
        store.set_limits(memory_size=min(bytes_each, LARGEST), table_elements=min(elements_each, LARGEST))


def _can_grow(one: Size) -> bool:
    return one.maximum is None or one.maximum > one.minimum


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
