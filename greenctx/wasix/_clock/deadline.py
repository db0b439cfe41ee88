"""Interruption of guests: epochs, which give control back to Python every few milliseconds, and the time limit."""

from __future__ import annotations

import select
import threading
import time
from contextvars import ContextVar
from errno import EBADF
from typing import TYPE_CHECKING

from greenctx._core.aio import await_, current_run
from greenctx.errors import TimeLimitExceeded
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import Ticker

if TYPE_CHECKING:
    from collections.abc import Collection
    from contextvars import Token

    from wasmtime import Engine

TICK_MICROSECONDS = 10_000
YIELD_SECONDS = 0.01
LONGEST_WAIT = 3600.0  # of an event loop, which has limits; what is longer is waited for in parts
LONGEST_CALL = 0.25
"""Of the system's, in seconds. A signal that comes right before such a call, or to another thread, does not end it."""


Wait = tuple[int, bool]
"""A file descriptor to wait for: until it can be written to, if true; else until it can be read from."""

_innermost: ContextVar[TimeLimit | None] = ContextVar("greenctx.time_limit", default=None)


class TimeLimit:
    """A point in time at which a program has to have ended, or none.

    While it is entered it holds for the programs that host functions run meanwhile, too: theirs end no later.
    """

    def __init__(self, seconds: float | None, yield_every: float = YIELD_SECONDS) -> None:
        self.yield_every = yield_every
        """On an event loop: for how many seconds a guest may compute before others have to have their turn."""
        self._seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds
        self._holds = False

    @classmethod
    def within_the_current(cls, seconds: float | None, yield_every: float = YIELD_SECONDS) -> TimeLimit:
        """A limit of so many seconds from now or, if that ends earlier, the one that is entered now."""
        limit, outer = cls(seconds, yield_every), _innermost.get()
        if outer is None or not outer._holds:  # a task that its program has started inherits it, and may live longer
            return limit
        if outer._end is not None and (limit._end is None or outer._end < limit._end):
            limit._seconds, limit._end = outer._seconds, outer._end
        return limit

    def __bool__(self) -> bool:
        return self._end is not None

    def __enter__(self) -> None:
        self._holds = True
        self._token: Token[TimeLimit | None] = _innermost.set(self)

    def __exit__(self, *_: object) -> None:
        self._holds = False
        _innermost.reset(self._token)
        del self._token  # refers to the context, in which this object is

    def check(self) -> None:
        """Raise `TimeLimitExceeded` from that point in time on. On an event loop, let others run if it is time to."""
        self._raise_if_over()
        run = current_run()
        # Half of it: what an epoch ends too early for, the next one does in time.
        if run is not None and time.monotonic() - run.resumed_at >= self.yield_every / 2:
            from greenctx.wasix._clock import event_loop  # with asyncio, which takes long to import

            await_(event_loop.give_way())
            self._raise_if_over()

    def _raise_if_over(self) -> None:
        if self.left() == 0:
            raise self.exceeded()

    def left(self) -> float | None:
        """How many seconds are left of it; None: it has no end."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def exceeded(self) -> TimeLimitExceeded:
        """The error to raise."""
        assert self._seconds is not None
        return TimeLimitExceeded(self._seconds)

    def wait(self, seconds: float | None, wanted: Collection[Wait] = ()) -> set[Wait]:
        """Wait for so long, or without end, or until one of those is ready; return those that are.

        On an event loop others run meanwhile. Signal handlers do, so Ctrl-C ends it with KeyboardInterrupt. Raises
        `TimeLimitExceeded`, and OSError for a descriptor that is not open.
        """
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            self.check()
            now, on_loop = time.monotonic(), current_run() is not None
            ends = [end for end in (until, self._end) if end is not None]
            left = min([LONGEST_WAIT if on_loop else LONGEST_CALL, *(max(0.0, end - now) for end in ends)])
            if on_loop:
                if not (found := _ready(wanted, 0)) and left:
                    from greenctx.wasix._clock import event_loop

                    await_(event_loop.wait(wanted, left))
                    found = _ready(wanted, 0)
            elif wanted:
                found = _ready(wanted, left)
            else:
                found = set()
                time.sleep(left)
            if found:
                return found
            if until is not None and time.monotonic() >= until:
                self.check()
                return set()


def _ready(wanted: Collection[Wait], seconds: float) -> set[Wait]:
    """Wait for one of those; return all that are ready."""
    if not wanted:
        return set()
    if not hasattr(select, "poll"):  # Windows, where only sockets can be waited for
        return set(wanted)
    masks: dict[int, int] = {}
    for descriptor, to_write in wanted:
        masks[descriptor] = masks.get(descriptor, 0) | (select.POLLOUT if to_write else select.POLLIN)
    poll = select.poll()
    for descriptor, mask in masks.items():
        poll.register(descriptor, mask)
    found = dict(poll.poll(seconds * 1000))
    if any(mask & select.POLLNVAL for mask in found.values()):
        raise OSError(EBADF, "not an open file descriptor")
    # Whatever else it is (an error, or that nobody is at the other end), reading and writing do not wait for it.
    return {
        (descriptor, to_write)
        for descriptor, to_write in wanted
        if found.get(descriptor, 0) & ~(select.POLLIN if to_write else select.POLLOUT)
    }


def ticker(engine: Engine) -> Ticker:
    """What ends the engine's epoch every `TICK_MICROSECONDS` while it is entered.

    Whoever polls a guest then gets control back once an epoch: to notice a signal, which only the main thread can, or
    the end of a time limit, or to let other threads run.
    """
    handle = capi.clone_engine(engine)
    return Ticker(handle, capi.engine_address(handle), TICK_MICROSECONDS)


def can_be_signalled() -> bool:
    """Whether Python runs signal handlers in the calling thread."""
    # Not by `current_thread`, which under gevent is another one for each greenlet.
    return threading.get_native_id() == threading.main_thread().native_id
