"""One thread that ends the epochs of all engines whose guests run on event loops.

There may be a thousand runs at a time, and one for each request of a server: too many for a thread each, as
`_fiber.Ticker` has. Nobody waits for this one: it ends by itself when it finds nothing to do.

Nor does anybody wait for a lock. A collection may come anywhere, and with it a ``__del__`` that closes a program, in
this thread, too; so may a signal's handler. What the thread and the runs share changes in single steps, each of which
the GIL makes whole, and in an order that is right whoever comes in between.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import ref

from greenctx.wasix._native import capi

if TYPE_CHECKING:
    from wasmtime import Engine

LONGEST = 0.01
"""Between two ends of epochs, in seconds: so soon a new run has its pace, and a time limit is noticed."""

# With the GIL held, so that nobody can close it meanwhile. It is one addition.
_increment_epoch = capi.quick_function("engine_increment_epoch", 1)


def _real(name: str) -> Any:
    """A function of `_thread`, though gevent may have put one in its place that makes greenlets of threads."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(import_module("_thread"), name) if monkey is None else monkey.get_original("_thread", name)


start_new_thread, allocate_lock = _real("start_new_thread"), _real("allocate_lock")

_active: set[ref[SharedTicker]] = set()
_thread_runs = allocate_lock()  # locked while it does; taken and given back, never waited for


class SharedTicker:
    """Ends the epochs of one engine while any run of it is in progress; as often as the most demanding one asks for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = capi.clone_engine(engine)
        self._address: int | None = capi.engine_address(self._engine)
        self._runs: set[Ticks] = set()
        self._reference = ref(self)

    def every(self, seconds: float) -> Ticks:
        """What a run is to enter."""
        return Ticks(self, seconds)

    @property
    def seconds(self) -> float | None:
        """How often it does; None where no run is in progress."""
        return min([run.seconds for run in self._runs.copy()], default=None)

    def begin(self, run: Ticks) -> None:
        self._runs.add(run)
        _active.add(self._reference)
        if _thread_runs.acquire(blocking=False):
            try:
                start_new_thread(_run, ())
            except BaseException:
                _thread_runs.release()
                self.end(run)
                raise

    def end(self, run: Ticks) -> None:
        self._runs.discard(run)  # the thread does the rest

    def close(self) -> None:
        """Let go of the engine, whatever an interruption has left behind."""
        self._address = None
        self._engine.close()

    def tick(self) -> bool:
        """End an epoch; return whether there is still a run that wants that."""
        # Nothing is called between the first line and the call, so that nobody can close it in between.
        address = self._address
        if address is None or not self._runs:
            return False
        _increment_epoch(address)
        return True


class Ticks:
    """One run's share."""

    def __init__(self, ticker: SharedTicker, seconds: float) -> None:
        self._ticker = ticker
        self.seconds = seconds

    def __enter__(self) -> None:
        self._ticker.begin(self)

    def __exit__(self, *_: object) -> None:
        self._ticker.end(self)


def _run() -> None:
    while True:
        try:
            _tick()
        finally:
            _thread_runs.release()
        # A run that has begun since found that this thread still ran.
        if not _active or not _thread_runs.acquire(blocking=False):
            return


def _tick() -> None:
    """End epochs for as long as somebody wants that."""
    never = allocate_lock()  # not time.sleep, which gevent may have replaced
    never.acquire()
    while _active:
        never.acquire(timeout=min(map(_pace, _active.copy()), default=LONGEST))
        for reference in _active.copy():
            _tick_one(reference)


def _pace(reference: ref[SharedTicker]) -> float:
    ticker = reference()
    return LONGEST if ticker is None else min(ticker.seconds or LONGEST, LONGEST)


def _tick_one(reference: ref[SharedTicker]) -> None:
    ticker = reference()
    if ticker is None:
        _active.discard(reference)
    elif not ticker.tick():
        _active.discard(reference)
        if ticker.tick():  # for a run that has begun in between, and found it there
            _active.add(reference)


def _after_fork() -> None:
    global _thread_runs
    _thread_runs = allocate_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
