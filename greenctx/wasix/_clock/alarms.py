"""Alarms: they end waits of event loops in time, even if the loop's own clock stands still.

An event loop goes by `time.monotonic`, which tests may stop (freezegun does). Timers of such a loop never end. The
thread that ends epochs while a program runs on an event loop rings the alarms, too.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from greenctx.wasix._native._fiber import monotonic

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

_set: set[Alarm] = set()
"""All alarms. The set changes in single steps, each atomic under the GIL."""


class Alarm:
    """While it is entered, calls a function in an event loop's thread when so many seconds have passed."""

    def __init__(self, seconds: float, loop: AbstractEventLoop, function: Callable[[], object]) -> None:
        self.ends_at = monotonic() + seconds
        self._loop = loop
        self._function = function

    def __enter__(self) -> None:
        _set.add(self)

    def __exit__(self, *_: object) -> None:
        _set.discard(self)

    def ring(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._function)


def ring_alarms() -> None:
    """Ring the due alarms, each once."""
    if _set:
        now = monotonic()
        for alarm in _set.copy():
            if alarm.ends_at <= now and alarm in _set:
                _set.discard(alarm)
                alarm.ring()
