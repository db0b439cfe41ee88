"""Instruments: objects that are told what the contexts of an environment do; and the delivery of these reports."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenlet import greenlet

    from greenctx.environment import ContextSwitchingEnvironment

logger = logging.getLogger("greenctx")


class Instrument:
    """Base of instruments: override what you want to hear of. (Any object with some of these methods will do.)

    The methods are called in the thread of the environment, soon after what they tell of, and in its order. They must
    not call the environment back (`NotTheActiveContext`), but for ``contexts`` and ``format_stacks``.

    An instrument that raises an `Exception` is removed, which the logger ``greenctx`` reports as an error; the program
    goes on. Other exceptions, KeyboardInterrupt for one, are not the instrument's and come out of the call that the
    context is in; the instrument is then told once more of what it had not finished with. Nothing goes unreported.
    """

    def context_created(
        self, environment: ContextSwitchingEnvironment, context_id: int, entrypoint: Callable[[], object], /
    ) -> None:
        """The active context has created another one."""

    def context_started(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """A context, main (0) included, begins to run."""

    def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int, /) -> None:
        """Another context is the active one: by a switch, a destruction, an end, or because somebody resumed it."""

    def context_canceled(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """The active context destroys one that has started, which will get `ContextCanceled`."""

    def context_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, error: BaseException | None, /
    ) -> None:
        """A context's entrypoint, or main, has returned (None) or raised. One that never started does not end."""

    def context_destroyed(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """A context is gone because the active one, or the end of main, has destroyed it."""

    def host_call_started(self, environment: ContextSwitchingEnvironment, context_id: int, name: str, /) -> None:
        """A guest has called a host function (of a `greenctx.wasix.Linker` that reports), "module.name"."""

    def host_call_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, name: str, error: BaseException | None, /
    ) -> None:
        """The host function has returned (None) or raised. Calls of one context end in the reverse of their order."""

    def environment_ended(self, environment: ContextSwitchingEnvironment, /) -> None:
        """``run_main_context`` is about to return or to raise."""


METHODS = [name for name in vars(Instrument) if not name.startswith("_")]


def name_of(entrypoint: object) -> str:
    """What to call a context with that entrypoint."""
    for _ in range(100):  # wrappers of wrappers; a ring is no function that functools has made
        inner = entrypoint.func if isinstance(entrypoint, partial) else getattr(entrypoint, "__wrapped__", None)
        if inner is None:
            break
        entrypoint = inner
    name = getattr(entrypoint, "__name__", None)
    return name if isinstance(name, str) else type(entrypoint).__name__


class Reports:
    """What the instruments of one environment have to be told yet.

    Whoever notices something appends it to ``news``, in the same breath as it remembers that (no calls between, see
    state.py), and then lets `deliver` tell it. So nothing is lost when that is interrupted.
    """

    __slots__ = ("_feeds", "_told", "deliverer", "news")

    def __init__(self, instruments: Iterable[object]) -> None:
        self.news: list[tuple[Any, ...]] = []
        """Each is the name of a method and its arguments."""
        self.deliverer: greenlet | None = None
        """The greenlet in which an instrument is being told something."""
        self._told = 0  # how many there were before the first of the news
        self._feeds = [_Feed(instrument) for instrument in instruments]

    def deliver(self, environment: ContextSwitchingEnvironment) -> None:
        """Tell every instrument what it has not been told yet."""
        if self.deliverer is not None:  # an instrument waits in its method (for gevent, say), and will be told
            return
        self.deliverer = getcurrent()
        try:
            self._tell(environment)
        finally:
            self.deliverer = None

    def _tell(self, environment: ContextSwitchingEnvironment) -> None:
        # A function of its own, for the jump that closes a loop is in no `try` of the same function (on Python 3.13).
        end = self._told + len(self.news)
        for feed in self._feeds:
            while feed.told < end:
                name, *arguments = self.news[feed.told - self._told]
                method = feed.methods.get(name)
                if method is not None:
                    try:
                        method(environment, *arguments)
                    except Exception:
                        self._remove(feed, name)
                        break
                feed.told += 1
        done = end - self._told
        self._told = end
        del self.news[:done]

    def _remove(self, feed: _Feed, name: str) -> None:
        self._feeds = [other for other in self._feeds if other is not feed]
        logger.exception("the instrument %r raised in %s and is removed; the program goes on", feed.instrument, name)


class _Feed:
    """One instrument, and how many things it was told."""

    __slots__ = ("instrument", "methods", "told")

    def __init__(self, instrument: object) -> None:
        if isinstance(instrument, type) or not any(hasattr(instrument, name) for name in METHODS):
            raise TypeError(f"an instrument is an object with methods of greenctx.Instrument, not {instrument!r}")
        self.instrument = instrument
        self.told = 0
        self.methods: dict[str, Callable[..., object]] = {}
        for name in METHODS:
            method = getattr(instrument, name, None)
            if method is not None and getattr(method, "__func__", None) is not getattr(Instrument, name):
                self.methods[name] = method
