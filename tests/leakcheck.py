"""A leak is a failing test: `assert_no_leak` reruns a scenario until memory settles, and fails when it does not.

Three things are measured, for each sees what the others cannot: the objects that the collector tracks, by type (they
name the culprit); the blocks of Python's allocator (strings, ints, exceptions' arguments); the resident memory (what C
code allocates by itself, the saved stacks of greenlets among it). The collector is off meanwhile, so that a reference
cycle is a leak, too.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = os.sysconf("SC_PAGE_SIZE")
RESIDENT_SLACK = 128 * 1024
"""What resident memory may grow by in a round of small scenarios: allocators take it from the system in portions."""


class MemoryDidNotSettleError(AssertionError):
    """The scenario leaves something behind, every time it runs."""


def resident_bytes() -> int:
    """The resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


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
    objects: Counter[str]
    blocks: int
    resident: int

    @classmethod
    def take(cls) -> Snapshot:
        objects = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
        return cls(objects, sys.getallocatedblocks(), resident_bytes())

    def growth_since(self, before: Snapshot, repeats: int, resident_slack: int) -> str:
        """What grew in a round of that many runs, as a phrase; empty if nothing did.

        Less than one in every other run is noise (a cache, a counter that became a bigger int), not a leak.
        """
        grown = {name: now - before.objects[name] for name, now in self.objects.items()}
        phrases = [f"{count} {name}" for name, count in sorted(grown.items()) if count * 2 >= repeats]
        if (blocks := self.blocks - before.blocks) * 2 >= repeats:
            phrases.append(f"{blocks} blocks")
        if (resident := self.resident - before.resident) > resident_slack:
            phrases.append(f"{resident} bytes of resident memory")
        return ", ".join(phrases)


def assert_no_leak(
    scenario: Callable[[], object],
    *,
    repeats: int = 50,
    calm_rounds: int = 3,
    max_rounds: int = 20,
    resident_slack: int = RESIDENT_SLACK,
) -> None:
    """Run ``scenario`` in rounds of ``repeats`` until ``calm_rounds`` in a row left nothing behind.

    Raises `MemoryDidNotSettleError` if that has not happened after ``max_rounds``.
    """
    calm = 0
    growth = ""
    with collector_off():
        scenario()
        before = Snapshot.take()
        for _ in range(max_rounds):
            for _ in range(repeats):
                scenario()
            now = Snapshot.take()
            growth = now.growth_since(before, repeats, resident_slack)
            before = now
            calm = 0 if growth else calm + 1
            if calm == calm_rounds:
                return
    raise MemoryDidNotSettleError(f"{repeats} runs of {scenario} leave behind: {growth or 'something, now and then'}")
