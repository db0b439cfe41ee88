"""One thread that ends the epochs of all engines whose guests run on event loops.

There may be a thousand runs at a time, and one for each request of a server: too many for a thread each, as
`_fiber.Ticker` has. Nobody waits for this one: it ends by itself when it finds nothing to do.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from wasmtime import Engine


def _real(name: str) -> Any:
    """A function of `_thread`, though gevent may have put one in its place that makes greenlets of threads."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(import_module("_thread"), name) if monkey is None else monkey.get_original("_thread", name)


start_new_thread, allocate_lock = _real("start_new_thread"), _real("allocate_lock")

_active: WeakSet[SharedTicker] = WeakSet()
_lock = allocate_lock()  # while it is held nothing below changes, and no epoch ends
_thread_runs = False


class SharedTicker:
    """Ends the epochs of one engine while any run of it is in progress; as often as the most demanding one asks for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs = 0
        self.seconds = float("inf")

    def every(self, seconds: float) -> Ticks:
        """What a run is to enter."""
        return Ticks(self, seconds)

    def begin(self, seconds: float) -> None:
        global _thread_runs
        with _lock:
            self._runs += 1
            self.seconds = min(self.seconds, seconds)
            _active.add(self)
            if not _thread_runs:
                start_new_thread(_tick, (seconds,))
                _thread_runs = True

    def end(self) -> None:
        with _lock:
            self._runs -= 1
            if not self._runs:
                self._rest()

    def close(self) -> None:
        """Leave the engine alone from now on, whatever an interruption has left behind."""
        with _lock:
            self._rest()

    def tick(self) -> None:
        self._engine.increment_epoch()

    def _rest(self) -> None:
        _active.discard(self)
        self.seconds = float("inf")


class Ticks:
    """One run's share."""

    def __init__(self, ticker: SharedTicker, seconds: float) -> None:
        self._ticker = ticker
        self._seconds = seconds

    def __enter__(self) -> None:
        self._ticker.begin(self._seconds)

    def __exit__(self, *_: object) -> None:
        self._ticker.end()


def _tick(seconds: float) -> None:
    global _thread_runs
    never = allocate_lock()  # not time.sleep, which gevent may have replaced
    never.acquire()
    while not never.acquire(timeout=seconds):
        with _lock:
            tickers = [*_active]
            if not tickers:
                _thread_runs = False
                return
            for ticker in tickers:
                ticker.tick()
            seconds = min(ticker.seconds for ticker in tickers)
            del tickers, ticker  # which would keep the last program's engine alive


def _after_fork() -> None:
    global _lock, _thread_runs
    _lock, _thread_runs = allocate_lock(), False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
