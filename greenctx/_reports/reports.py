"""The delivery of reports: what the instruments of an environment have to be told."""

from __future__ import annotations

import logging
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
"""Each is the name of an instrument's method. `greenctx.Instrument` documents them, with their arguments."""

no_ops: set[object] = set()
"""Functions that do nothing, and so need not be called: the methods of the class `greenctx.Instrument` itself."""


class Reports:
    """What the instruments of one environment have to be told yet.

    Whoever notices something appends it to ``pending``, in the same breath as it remembers that (no calls between, see
    admission.py), and then lets `deliver` tell it. So nothing is lost when that is interrupted.
    """

    __slots__ = ("_subscribers", "_told", "deliverer", "pending")

    def __init__(self, instruments: Iterable[object]) -> None:
        self.pending: list[tuple[Any, ...]] = []
        """Each is the name of a method and its arguments."""
        self.deliverer: greenlet | None = None
        """The greenlet in which an instrument is being told something."""
        self._told = 0  # how many there were before the first of the pending
        self._subscribers = [_Subscriber(instrument) for instrument in instruments]

    def deliver(self, environment: Environment) -> None:
        """Tell every instrument what it has not been told yet."""
        if self.deliverer is not None:  # an instrument waits in its method (for gevent, say), and will be told
            return
        self.deliverer = getcurrent()
        try:
            self._tell(environment)
        finally:
            self.deliverer = None

    def _tell(self, environment: Environment) -> None:
        # A function of its own, for the jump that closes a loop is in no `try` of the same function (on Python 3.13).
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
        logger.exception(
            "the instrument %r raised in %s and is removed; the program goes on", subscriber.instrument, name
        )


class _Subscriber:
    """One instrument, and how many things it was told."""

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
