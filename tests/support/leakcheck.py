"""A leak is a failing test: `assert_no_leak` reruns a scenario until memory settles, and fails when it does not.

Three things are measured, because each sees leaks that the others cannot: the objects that the collector tracks, by
type (they name the culprit); the blocks of Python's allocator (strings, ints, exceptions' arguments); the memory of the
process (what C code allocates by itself, the saved stacks of greenlets among it). The collector is off meanwhile, so
that a reference cycle is a leak, too.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY_SLACK = 128 * 1024
"""How much memory may grow in a round of small scenarios: allocators take it from the system in portions."""


class MemoryDidNotSettleError(AssertionError):
    """The scenario leaves something behind, every time it runs."""


def own_memory(process: int | str = "self") -> int:
    """Return how much memory the process has, without pages of files, in bytes.

    Not all resident memory: when memory is short the system takes back pages of files, which would hide a leak, and
    reading them again would look like a leak.
    """
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return sum(int(fields[name].removesuffix("kB")) * 1024 for name in ("RssAnon", "VmSwap"))


@contextmanager
def collector_off() -> Iterator[None]:
    """Collect what there is, then leave everything to reference counting."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
        gc.collect()


@dataclass
class Snapshot:
    objects: Counter[type]
    blocks: int
    memory: int

    @classmethod
    def take(cls) -> Snapshot:
        return cls(Counter(map(type, gc.get_objects())), sys.getallocatedblocks(), own_memory())

    def growth_since(self, before: Snapshot, repeats: int, memory_slack: int) -> str:
        """Return what grew in a round of that many runs, as a phrase; an empty one if nothing did.

        Less than one in every other run is noise (a cache, a counter that became a bigger int), not a leak.
        """
        grown: Counter[str] = Counter()  # by name: different types may have the same
        for cls, now in self.objects.items():
            grown[f"{cls.__module__}.{cls.__qualname__}"] += now - before.objects[cls]
        phrases = [f"{count} {name}" for name, count in sorted(grown.items()) if count * 2 >= repeats]
        if (blocks := self.blocks - before.blocks) * 2 >= repeats:
            phrases.append(f"{blocks} blocks")
        if (memory := self.memory - before.memory) > memory_slack:
            phrases.append(f"{memory} bytes of memory")
        return ", ".join(phrases)


def assert_no_leak(
    scenario: Callable[[], object],
    *,
    repeats: int = 50,
    calm_rounds: int = 3,
    max_rounds: int = 20,
    memory_slack: int = MEMORY_SLACK,
) -> None:
    """Run ``scenario`` in rounds of ``repeats`` until ``calm_rounds`` in a row left nothing behind.

    Raises `MemoryDidNotSettleError`, which says what was left last, if that has not happened after ``max_rounds``.
    """
    calm = 0
    left = ""
    with collector_off():
        scenario()
        before = Snapshot.take()
        for _ in range(max_rounds):
            for _ in range(repeats):
                scenario()
            now = Snapshot.take()
            growth = now.growth_since(before, repeats, memory_slack)
            before, left = now, growth or left
            calm = 0 if growth else calm + 1
            if calm == calm_rounds:
                return
    raise MemoryDidNotSettleError(f"{repeats} runs of {scenario} leave behind: {left}")
