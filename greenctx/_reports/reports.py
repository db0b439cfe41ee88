"""The delivery of events to the instruments of an environment."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenlet import greenlet

    from greenctx._core.environment import Environment

logger = logging.getLogger("greenctx")

EVENTS = (
    "context_created",
    "context_started",
    "context_switched",
    "context_canceled",
    "context_ended",
    "context_destroyed",
    "host_call_started",
    "host_call_ended",
    "environment_ended",
)
"""The names of an instrument's methods. `greenctx.Instrument` documents them, with their arguments."""

no_ops: set[object] = set()
"""The methods of the class `greenctx.Instrument` itself, which do nothing, and so need not be called."""


class Reports:
    """The events that the instruments of one environment have not been told yet.

    Code that notices an event adds it to ``pending`` and notes that it has noticed it, with no call between the two: by
    ``+=`` and not by ``append``, after which CPython would look for signals. Then it calls `deliver`. So an
    interruption loses no event, and tells none twice.
    """

    __slots__ = ("_subscribers", "_told", "deliverer", "pending")

    def __init__(self, instruments: Iterable[object]) -> None:
        self.pending: list[tuple[Any, ...]] = []
        """The name of a method and its arguments, for each event."""
        self.deliverer: greenlet | None = None
        """The greenlet that is calling an instrument."""
        self._told = 0  # how many events came before the first of `pending`
        self._subscribers = [_Subscriber(instrument) for instrument in instruments]

    def deliver(self, environment: Environment) -> None:
        """Tell every instrument the events that it has not been told yet."""
        if self.deliverer is not None:  # an instrument waits in its method (for gevent, say), and gets these later
            return
        self.deliverer = getcurrent()
        try:
            self._tell(environment)
        finally:
            self.deliverer = None

    def _tell(self, environment: Environment) -> None:
        # A separate function, so that the `finally` of `deliver` covers the backward jumps of these loops. CPython
        # leaves such jumps out of the exception table of their own function (CPython issues 108214 and 130279).
        end = self._told + len(self.pending)
        for subscriber in self._subscribers:
            while subscriber.told < end:
                name, *arguments = self.pending[subscriber.told - self._told]
                method = subscriber.methods.get(name)
                if method is not None:
                    try:
                        method(environment, *arguments)
                    except Exception:
                        self._remove(subscriber, name)
                        break
                subscriber.told += 1
        done = end - self._told
        self._told = end
        del self.pending[:done]

    def _remove(self, subscriber: _Subscriber, name: str) -> None:
        self._subscribers = [other for other in self._subscribers if other is not subscriber]
        try:
            logger.exception(
                "the instrument %r raised in %s and is removed; the program goes on", subscriber.instrument, name
            )
        except Exception:  # from a filter, say; logging reports what handlers raise, in the same way
            if logging.raiseExceptions and sys.stderr is not None:
                with suppress(Exception):
                    traceback.print_exc()


class _Subscriber:
    """One instrument, and how many events it was told."""

    __slots__ = ("instrument", "methods", "told")

    def __init__(self, instrument: object) -> None:
        if isinstance(instrument, type) or not any(hasattr(instrument, name) for name in EVENTS):
            raise TypeError(f"an instrument is an object with methods of greenctx.Instrument, not {instrument!r}")
        self.instrument = instrument
        self.told = 0
        self.methods: dict[str, Callable[..., object]] = {}
        for name in EVENTS:
            method = getattr(instrument, name, None)
            if method is not None and getattr(method, "__func__", None) not in no_ops:
                self.methods[name] = method
