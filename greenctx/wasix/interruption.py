"""Interruption of guests: epochs, which give control back to Python every few milliseconds, and the time limit."""

from __future__ import annotations

import select
import threading
import time
from typing import TYPE_CHECKING

from greenctx.errors import TimeLimitExceeded

if TYPE_CHECKING:
    from types import TracebackType

    from wasmtime import Engine

TICK_SECONDS = 0.01


class TimeLimit:
    """A point in time at which a program has to have ended, or none."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        """Raise `TimeLimitExceeded` from that point in time on."""
        if self._end is not None and time.monotonic() >= self._end:
            assert self._seconds is not None
            raise TimeLimitExceeded(self._seconds)

    def wait(self, seconds: float | None, *readable: int) -> list[int]:
        """Wait for so long, or without end, or until one of the file descriptors is readable; return those that are.

        Signal handlers run meanwhile, so Ctrl-C ends it with KeyboardInterrupt. Raises `TimeLimitExceeded`, and OSError
        for a descriptor that cannot be waited for.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            self.check()
            now = time.monotonic()
            left = min([threading.TIMEOUT_MAX, *(max(0.0, end - now) for end in (until, self._end) if end is not None)])
            if readable:
                if found := select.select(readable, [], [], left)[0]:
                    return found
            else:
                time.sleep(left)
            if until is not None and time.monotonic() >= until:
                self.check()
                return []


class Ticker:
    """Ends an engine's epoch every `TICK_SECONDS` while it is entered, if anybody needs that.

    Whoever polls a guest then gets control back once an epoch: to notice a signal, which only the main thread can, or
    the end of a time limit.
    """

    def __init__(self, engine: Engine, needed: bool) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="greenctx epochs", daemon=True) if needed else None

    def __enter__(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _tick(self) -> None:
        while not self._stop.wait(TICK_SECONDS):
            self._engine.increment_epoch()


def can_be_signalled() -> bool:
    """Whether Python runs signal handlers in the calling thread."""
    return threading.current_thread() is threading.main_thread()
