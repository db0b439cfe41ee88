"""Limits: how many contexts, how much memory, how many seconds and open files a program may use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from greenctx.errors import InvalidProgram
from greenctx.wasix._files.descriptors import MAX_FILES
from greenctx.wasix._modules.binary import NotUnderstood
from greenctx.wasix._modules.sizes import PAGE, Sizes

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._modules.sizes import Size

ELEMENT = 8  # bytes of a table's element, in wasmtime
TABLE_SHARE = 8  # where memories may grow as well, tables may grow by an eighth of the room
STACK = 2**19  # bytes of its fiber's stack that a guest's calls may fill: wasmtime's ``max_wasm_stack``
MAX_SIZE = 2**63 - 1  # the largest limit that wasmtime takes


class Limits:
    """The limits of a program; None is no limit.

    ``contexts``: contexts alive at any one time, besides main. At the limit ``context_create`` returns EAGAIN.

    ``memory``: bytes, of all memories and tables of the program together. Growth beyond it fails, and a program that
    starts with more is refused. The room for growth is divided beforehand: several memories may all grow to the same
    size. Tables may grow by an eighth of the room if memories may grow as well. The objects of guests that use wasm's
    garbage collector, exceptions among them, have a separate heap, to which the same limit applies.

    ``seconds``: from the start of `Program.run`. After that time every context unwinds, and `TimeLimitExceeded` is
    raised. A host function is not interrupted in the middle, unless it awaits or runs a program.

    ``files``: descriptors of files and directories open at any one time, standard streams and preopened directories
    included. At the limit opening one more returns EMFILE.

    ``stacks``: bytes of the host's memory that the stacks of contexts may fill, half a mebibyte each. As many contexts
    as fit may be alive, or fewer if ``contexts`` says so.
    """

    # A frozen dataclass, written out, because importing dataclasses takes a tenth of a small guest's run.

    __slots__ = ("contexts", "files", "memory", "seconds", "stacks")

    def __init__(
        self,
        *,
        contexts: int | None = None,
        memory: int | None = None,
        seconds: float | None = None,
        files: int | None = MAX_FILES,
        stacks: int | None = None,
    ) -> None:
        self.contexts: Final = contexts
        self.memory: Final = memory
        self.seconds: Final = seconds
        self.files: Final = files
        self.stacks: Final = stacks
        for name, value in self._items():
            kind = int | float if name == "seconds" else int
            if value is None:
                continue
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name} must be None or a number, not {value!r}")
            if not value >= 0:
                raise ValueError(f"{name} must be None or at least 0, not {value!r}")
        if isinstance(seconds, int) and seconds > sys.float_info.max:
            raise ValueError(f"seconds must be None or at most {sys.float_info.max}, which that number is not")

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(f"limits cannot be changed, nor can their {name}")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return self._items() == other._items() if isinstance(other, Limits) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._items()))

    def __repr__(self) -> str:
        return f"Limits({', '.join(f'{name}={value!r}' for name, value in self._items())})"

    def _items(self) -> list[tuple[str, float | None]]:
        return [(name, getattr(self, name)) for name in ("contexts", "memory", "seconds", "files", "stacks")]

    @property
    def max_contexts(self) -> int | None:
        """How many contexts may be alive at any one time, besides main, by ``contexts`` and ``stacks``."""
        by_stacks = None if self.stacks is None else self.stacks // STACK
        return min((one for one in (self.contexts, by_stacks) if one is not None), default=None)

    def cap(self, name: str, code: bytes) -> bytes:
        """Return the module with maxima for its memories and tables. Raises `InvalidProgram` if it starts beyond them.

        wasmtime's own limits are one size for all memories and one for all tables, without shared memories.
        """
        if self.memory is None:
            return code
        try:
            found = Sizes(code)
        except NotUnderstood as error:
            raise InvalidProgram(name, f"its memory cannot be limited: {error}") from error
        bytes_each, elements_each = _levels(name, found, self.memory)
        memories, tables = _own(found.memories), _own(found.tables)
        return found.with_maxima(
            [_end(one, bytes_each) for one in memories], [_end(one, elements_each) for one in tables]
        )

    def apply(self, store: Store) -> None:
        """Limit the heap of the garbage collector, which the module does not declare."""
        if self.memory is not None:
            store.set_limits(memory_size=min(self.memory, MAX_SIZE))

    def apply_to_run(self, store: Store, name: str, found: Sizes) -> None:
        """Limit one run of a module compiled with other maxima. Raises `InvalidProgram` if that is not possible.

        wasmtime applies one size to all memories of the store. It fits unless some memory starts beyond it.
        """
        if self.memory is None:
            return
        bytes_each, elements_each = _levels(name, found, self.memory)
        for things, level in ((_own(found.memories), bytes_each), (_own(found.tables), elements_each)):
            if any(one.minimum > level for one in things):
                raise InvalidProgram(name, "its memory cannot be limited for one run; give the limit to the Program")
        store.set_limits(memory_size=min(bytes_each, MAX_SIZE), table_elements=min(elements_each, MAX_SIZE))


def limits_of(given: Limits | None) -> Limits:
    """Return the given limits, or the default ones for None. Raises TypeError for any other object."""
    if given is not None and not isinstance(given, Limits):
        raise TypeError(f"limits must be None or such as Limits(memory=64 * 2**20, seconds=5.0), not {given!r}")
    return given or Limits()


def _own(things: list[Size]) -> list[Size]:
    return [one for one in things if not one.imported]


def _levels(name: str, found: Sizes, limit: int) -> tuple[int, int]:
    """Return the bytes to which all memories may grow, and the elements to which all tables may, within the limit."""
    starts = sum(one.minimum for one in found.memories) + ELEMENT * sum(one.minimum for one in found.tables)
    left = limit - starts
    if left < 0:
        raise InvalidProgram(name, f"it starts with {starts} bytes of memory, more than the limit of {limit}")
    memories, tables = _own(found.memories), _own(found.tables)
    for_tables = left
    if any(map(_can_grow, memories)):
        for_tables = left // TABLE_SHARE if any(map(_can_grow, tables)) else 0
    return _level(memories, left - for_tables, PAGE), _level(tables, for_tables // ELEMENT, 1)


def _can_grow(one: Size) -> bool:
    return one.maximum is None or one.maximum > one.minimum


def _end(one: Size, level: int) -> int:
    """Return the size to which one memory may grow, if all may grow to that level."""
    return max(one.minimum, level if one.maximum is None else min(level, one.maximum))


def _level(things: list[Size], left: int, step: int) -> int:
    """Return the level to which all may grow, so that together they grow by at most ``left``."""
    low, high = 0, (max((one.minimum for one in things), default=0) + left) // step
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_end(one, middle * step) - one.minimum for one in things) <= left:
            low = middle
        else:
            high = middle - 1
    return low * step
