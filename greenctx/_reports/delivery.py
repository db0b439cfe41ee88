"""Delivery: the events of one environment, and which instruments were told them. Has a compiled twin.

Code that notices an event adds it to `Delivery.pending` and notes that it has noticed it, with no call between the two:
by ``+=`` and not by ``append``, after which CPython would look for signals. Then it calls `Delivery.deliver`. So an
interruption neither loses an event nor reports it twice.

The Python code here is the specification. The bottom of this module replaces the classes by those of `_delivery.pyx`,
as in switching.py. The twin also has short cuts, `switch_context` and `serve_guests`: see `ReportingEnvironment`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

if TYPE_CHECKING:
    from collections.abc import Callable


class Subscriber:
    """One instrument, and how many events it was told."""

    __slots__ = ("instrument", "methods", "told")

    def __init__(self, instrument: object, methods: dict[str, Callable[..., object]]) -> None:
        self.instrument = instrument
        self.methods = methods
        self.told = 0


class Delivery:
    """Base of `Reports`, which sets and explains these attributes: the events to tell, and how they are told."""

    __slots__ = (
        "deliverer",
        "next_id",
        "pending",
        "seen",
        "subscribers",
        "target",
        "told",
        "wants_host_calls",
        "wants_switches",
    )

    def deliver(self, environment: Any) -> None:
        """Tell every instrument the events that it has not been told yet."""
        if self.deliverer is not None:  # an instrument waits in its method (for gevent, say), and gets these later
            return
        self.deliverer = getcurrent()
        try:
            self._tell(environment)
        finally:
            self.deliverer = None

    def _tell(self, environment: Any) -> None:
        # A separate function, so that the `finally` of `deliver` covers the backward jumps of these loops. CPython
        # leaves such jumps out of the exception table of their own function (CPython issues 108214 and 130279).
        end = self.told + len(self.pending)
        for subscriber in self.subscribers:
            while subscriber.told < end:
                name, *facts = self.pending[subscriber.told - self.told]
                method = subscriber.methods.get(name)
                if method is not None:
                    try:
                        method(environment, *facts)
                    except Exception:
                        self._remove(subscriber, name)
                        break
                subscriber.told += 1
        done = end - self.told
        self.told = end
        del self.pending[:done]

    deliverer: Any
    next_id: int
    pending: list[tuple[Any, ...]]
    seen: Any
    subscribers: list[Subscriber]
    target: object
    told: int
    wants_host_calls: bool
    wants_switches: bool
    _remove: Any


switch_context: Callable[[Any, int], None] | None = None


def serve_guests(_environment: Any) -> None:
    """Let guests switch by a short cut of their own. There is none in pure Python."""


if not TYPE_CHECKING and os.environ.get("GREENCTX_PURE", "0") in ("", "0"):  # pragma: no cover
    with suppress(ImportError):
        from greenctx._reports._delivery import Delivery, Subscriber, serve_guests, switch_context  # noqa: F401, TC001
