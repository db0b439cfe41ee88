"""Bare greenlets, which most figures are compared with."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from collections.abc import Callable


def ping_pong(times: int, clock: Callable[[], float] = perf_counter) -> float:
    """How long a switch takes, of so many there and back between two of them, in seconds of that clock."""
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
