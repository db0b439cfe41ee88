"""Epochs, at whose ends guests yield: what ends an engine's epochs, and how a guest yields.

A program outside of event loops has a native `EpochThread` of its own, which needs no GIL. On event loops there may be
a thousand runs at a time, and one for each request of a server: too many for a thread each. So one thread in Python
ends the epochs of all engines whose guests run on event loops. No other thread waits for it: it ends when it finds
nothing to do.

No code waits for a lock either. A ``__del__`` that closes a program may run anywhere, in that thread too, because a
collection may; so may a signal handler. The state that the thread and the runs share changes in single steps, each
atomic under the GIL. Their order is right whatever runs in between.
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
"""An epoch outside of event loops: how soon a guest notices Ctrl-C and deadlines, and releases the GIL."""

MAX_EPOCH_SECONDS = 0.01
"""The longest epoch, in seconds: a new run waits this long at most for its own pace, and a limit of time for notice."""


def yield_every_epoch(store: Store) -> None:
    """Let guests give control back to Python whenever the engine's epoch ends, and never trap for it."""
    # wasmtime_context_epoch_deadline_async_yield_and_update will not do: a collection yields in the same way.
    store.set_epoch_deadline(1)
    capi.call_at_epoch_end(store, ON_EPOCH_END)


def epoch_thread(engine: Engine) -> EpochThread:
    """Return what ends the engine's epoch every `EPOCH_MICROSECONDS` while it is entered.

    The code that polls a guest then gets control back once an epoch: to notice a signal (in the main thread) or a
    deadline, and to let other threads run.
    """
    handle = capi.clone_engine(engine)
    return EpochThread(handle, capi.engine_address(handle), EPOCH_MICROSECONDS)


def can_be_signalled() -> bool:
    """Return whether Python runs signal handlers in the calling thread."""
    # `current_thread` will not do: under gevent each greenlet has its own. In a child of a fork, Python does not know
    # the native id of the main thread. On Linux it is the id of the process.
    return threading.get_native_id() in (os.getpid(), threading.main_thread().native_id)


# Called with the GIL held, so that no other thread can close the engine meanwhile. It is one addition.
_increment_epoch = capi.quick_function("engine_increment_epoch", 1)


_thread = unpatched("_thread")  # gevent and eventlet make greenlets of threads
start_new_thread, allocate_lock = _thread.start_new_thread, _thread.allocate_lock

_active: set[ref[SharedEpochThread]] = set()
_thread_runs = allocate_lock()  # locked while the thread runs; acquired without waiting, and released
_process = os.getpid()
"""The process that the thread belongs to."""


class SharedEpochThread:
    """Ends the epochs of one engine while it has subscriptions, at the pace of the quickest."""

    def __init__(self, engine: Engine) -> None:
        self._engine = capi.clone_engine(engine)
        self._address: int | None = capi.engine_address(self._engine)
        self._subscriptions: set[EpochSubscription] = set()
        self._reference = ref(self)

    def every(self, seconds: float) -> EpochSubscription:
        """Return a context manager for a run. While it is entered, epochs are at most so many seconds long."""
        return EpochSubscription(self, seconds)

    @property
    def seconds(self) -> float | None:
        """Return how many seconds an epoch takes; None while no run is in progress."""
        return min([one.seconds for one in self._subscriptions.copy()], default=None)

    def begin(self, subscription: EpochSubscription) -> None:
        if _process != os.getpid():  # a child of a fork that Python does not know of (uWSGI's)
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
        """Close the engine, even if interrupted runs are still subscribed."""
        self._address = None
        capi.close(self._engine)

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
    """Start the thread unless it runs."""
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
        # A run that began before the release may have found this thread running, and started none.
        if not _active or not _thread_runs.acquire(blocking=False):
            return


def _end_epochs() -> None:
    """End epochs until no run is subscribed."""
    never = allocate_lock()  # a lock, never released, to sleep on: gevent may have replaced time.sleep
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
    """Forget the parent's thread in a child of a fork, which has none."""
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
