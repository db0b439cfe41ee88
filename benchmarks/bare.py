"""Bare greenlets, the baseline of most figures."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from collections.abc import Callable


def ping_pong(times: int, clock: Callable[[], float] = perf_counter) -> float:
    """Return the seconds of one switch, by that clock: of so many between two greenlets, there and back."""
    here = getcurrent()

    def other() -> None:
        while True:
            here.switch()

    there = greenlet(other)
    there.switch()
    began = clock()
    for _ in range(times // 2):
        there.switch()
    seconds = (clock() - began) / times
    there.throw()
    return seconds
