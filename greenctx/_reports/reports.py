"""The delivery of events to the instruments of an environment."""

from __future__ import annotations

import logging
import sys
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from greenctx._reports.delivery import Delivery, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenlet import greenlet

    from greenctx._core.context import Context

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


class Reports(Delivery):
    """The reported state of one environment, and the events that its instruments have not been told yet."""

    __slots__ = ()

    def __init__(self, instruments: Iterable[object]) -> None:
        self.pending: list[tuple[Any, ...]] = []
        """The name of a method and its arguments, for each event."""
        self.deliverer: greenlet | None = None
        """The greenlet that is calling an instrument."""
        self.told = 0
        """How many events came before the first of `pending`."""
        self.seen: Context | None = None
        """The active context, as it was reported; None before main begins, and at the end."""
        self.target: object = None
        """The target of the latest switch."""
        self.next_id = 0
        """The id after that of the last context whose creation was reported."""
        self._subscribe([_subscriber(instrument) for instrument in instruments])

    def _subscribe(self, subscribers: list[Subscriber]) -> None:
        self.subscribers = subscribers
        wanted = {name for subscriber in subscribers for name in subscriber.methods}
        self.wants_switches = "context_switched" in wanted
        """Whether a switch is an event. Most events are switches, so it matters if no instrument is told of them."""
        self.wants_host_calls = not wanted.isdisjoint(("host_call_started", "host_call_ended"))
        """Whether a host call is an event. The same holds for these, in programs."""

    def _remove(self, subscriber: Subscriber, name: str) -> None:
        self._subscribe([other for other in self.subscribers if other is not subscriber])
        try:
            logger.exception(
                "the instrument %r raised in %s and is removed; the program goes on", subscriber.instrument, name
            )
        except Exception:  # from a filter, say; logging reports what handlers raise, in the same way
            if logging.raiseExceptions and sys.stderr is not None:
                with suppress(Exception):
                    traceback.print_exc()


def _subscriber(instrument: object) -> Subscriber:
    if isinstance(instrument, type) or not any(hasattr(instrument, name) for name in EVENTS):
        raise TypeError(f"an instrument is an object with methods of greenctx.Instrument, not {instrument!r}")
    methods: dict[str, Callable[..., object]] = {}
    for name in EVENTS:
        method = getattr(instrument, name, None)
        if method is not None and getattr(method, "__func__", None) not in no_ops:
            methods[name] = method
    return Subscriber(instrument, methods)
