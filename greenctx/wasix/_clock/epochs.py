"""Epochs, at whose ends guests give control back: what ends an engine's epochs, and how a guest yields then.

A program outside of event loops has a native `EpochThread` of its own, which needs no GIL. On event loops there may be
a thousand runs at a time, and one for each request of a server: too many for a thread each. So one thread in Python
ends the epochs of all engines whose guests run on event loops. Nobody waits for that thread: it ends by itself when it
finds nothing to do.

Nor does anybody wait for a lock. A collection may come anywhere, and with it a ``__del__`` that closes a program, in
that thread, too; so may a signal's handler. What the thread and the runs share changes in single steps, each of which
the GIL makes whole, and in an order that is right whoever comes in between.
"""

from __future__ import annotations

import os
import threading
from errno import EAGAIN
from typing import TYPE_CHECKING
from weakref import ref

from greenctx.errors import ResourcesExhausted
from greenctx.wasix._clock.alarms import ring_alarms
from greenctx.wasix._modules.unpatched import unpatched
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import ON_EPOCH_END, EpochThread, restart_epoch_threads

if TYPE_CHECKING:
    from wasmtime import Engine, Store

EPOCH_MICROSECONDS = 10_000
"""Of a program outside of event loops: how soon Ctrl-C and deadlines are noticed, and the GIL is released."""

MAX_EPOCH_SECONDS = 0.01
"""Between two ends of epochs, in seconds: so soon a new run has its pace, and a time limit is noticed."""


def yield_every_epoch(store: Store) -> None:
    """Let guests give control back to Python whenever the engine's epoch ends, and never trap for it."""
    # Not by wasmtime_context_epoch_deadline_async_yield_and_update: a collection yields, too, and would look the same.
    store.set_epoch_deadline(1)
    capi.call_at_epoch_end(store, ON_EPOCH_END)


def epoch_thread(engine: Engine) -> EpochThread:
    """Return what ends the engine's epoch every `EPOCH_MICROSECONDS` while it is entered.

    Whoever polls a guest then gets control back once an epoch: to notice a signal, which only the main thread can, or
    a deadline, or to let other threads run.
    """
    handle = capi.clone_engine(engine)
    return EpochThread(handle, capi.engine_address(handle), EPOCH_MICROSECONDS)


def can_be_signalled() -> bool:
    """Return whether Python runs signal handlers in the calling thread."""
    # Not by `current_thread`, which under gevent is another one for each greenlet. Where the process is a child of a
    # fork, Python does not know what its main thread is called there: on Linux it is called as the process.
    return threading.get_native_id() in (os.getpid(), threading.main_thread().native_id)


# With the GIL held, so that nobody can close it meanwhile. It is one addition.
_increment_epoch = capi.quick_function("engine_increment_epoch", 1)


_thread = unpatched("_thread")  # gevent and eventlet make greenlets of threads
start_new_thread, allocate_lock = _thread.start_new_thread, _thread.allocate_lock

_active: set[ref[SharedEpochThread]] = set()
_thread_runs = allocate_lock()  # locked while the thread runs; acquired without waiting, and released
_process = os.getpid()
"""The process whose thread that is."""


class SharedEpochThread:
    """Ends the epochs of one engine while it has subscriptions, as often as the most demanding one asks for."""

    def __init__(self, engine: Engine) -> None:
        self._engine = capi.clone_engine(engine)
        self._address: int | None = capi.engine_address(self._engine)
        self._subscriptions: set[EpochSubscription] = set()
        self._reference = ref(self)

    def every(self, seconds: float) -> EpochSubscription:
        """Return what a run enters: so many seconds apart, at most, epochs end meanwhile."""
        return EpochSubscription(self, seconds)

    @property
    def seconds(self) -> float | None:
        """Return how many seconds an epoch takes; None while no run is in progress."""
        return min([one.seconds for one in self._subscriptions.copy()], default=None)

    def begin(self, subscription: EpochSubscription) -> None:
        if _process != os.getpid():  # a child of a fork that Python was not told of, as uWSGI's are
            _forget_thread()
        self._subscriptions.add(subscription)
        _active.add(self._reference)
        try:
            _start_thread()
        except BaseException as error:
            self.end(subscription)
            if isinstance(error, RuntimeError):
                raise ResourcesExhausted(EAGAIN) from error
            raise

    def end(self, subscription: EpochSubscription) -> None:
        self._subscriptions.discard(subscription)  # the thread finds out, and drops the engine

    def close(self) -> None:
        """Let go of the engine, even if interrupted runs are still subscribed."""
        self._address = None
        self._engine.close()

    def end_epoch(self) -> bool:
        """End an epoch; return whether a run is still subscribed."""
        # Nothing is called between the first line and the call, so that no `__del__` and no signal handler can close
        # the engine in between.
        address = self._address
        if address is None or not self._subscriptions:
            return False
        _increment_epoch(address)
        return True


class EpochSubscription:
    """One run's subscription, in force while it is entered."""

    def __init__(self, shared: SharedEpochThread, seconds: float) -> None:
        self._shared = shared
        self.seconds = seconds

    def __enter__(self) -> None:
        self._shared.begin(self)

    def __exit__(self, *_: object) -> None:
        self._shared.end(self)


def _start_thread() -> None:
    """See to it that the thread runs."""
    if _thread_runs.acquire(blocking=False):
        try:
            start_new_thread(_run, ())
        except BaseException:
            _thread_runs.release()
            raise


def _run() -> None:
    while True:
        try:
            _end_epochs()
        finally:
            _thread_runs.release()
        # A run that has begun since then may have found that this thread still runs, and started none.
        if not _active or not _thread_runs.acquire(blocking=False):
            return


def _end_epochs() -> None:
    """End epochs until no run is subscribed."""
    never = allocate_lock()  # a lock that is never released, to wait for: gevent may have replaced time.sleep
    never.acquire()
    while _active:
        never.acquire(timeout=min(map(_pace, _active.copy()), default=MAX_EPOCH_SECONDS))
        for reference in _active.copy():
            _end_epoch_of(reference)
        ring_alarms()


def _pace(reference: ref[SharedEpochThread]) -> float:
    shared = reference()
    return MAX_EPOCH_SECONDS if shared is None else min(shared.seconds or MAX_EPOCH_SECONDS, MAX_EPOCH_SECONDS)


def _end_epoch_of(reference: ref[SharedEpochThread]) -> None:
    shared = reference()
    if shared is None:
        _active.discard(reference)
    elif not shared.end_epoch():
        _active.discard(reference)
        if shared.end_epoch():  # a run has begun in between, and found the entry still there
            _active.add(reference)


def _forget_thread() -> None:
    """In a child of a fork, where there is none."""
    global _thread_runs, _process
    _thread_runs = allocate_lock()
    _process = os.getpid()


def _after_fork() -> None:
    _forget_thread()
    restart_epoch_threads()
    if _active:
        _start_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
