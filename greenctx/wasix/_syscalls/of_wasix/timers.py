"""Interval timers, which raise signals in the guest (``setitimer``), and waits that timers interrupt.

A timer uses no thread or signal of the host. greenctx checks it where a handler may run: before it serves a host
function, while a call waits, and at the end of an epoch. So a timer ends with its program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx.wasix._clock.waiting import wait_until_ready
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._native._fiber import monotonic
from greenctx.wasix._shadow_stacks.red_zone import RedZone

if TYPE_CHECKING:
    from collections.abc import Collection

    from wasmtime import Store

    from greenctx.wasix._clock.readiness import Wait
    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._syscalls.signals import Signals


class _Timer:
    __slots__ = ("ends_at", "seconds")

    def __init__(self, seconds: float, repeats: bool) -> None:
        self.ends_at = monotonic() + seconds
        self.seconds = seconds if repeats else None
        """The interval of a repeating timer; None for another."""


class Timers:
    """The timers of one program, one for each signal. The store's `StoreState` has them while a timer is set."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._timers: dict[int, _Timer] = {}
        self._red_zone: RedZone | None = None

    def set(self, caller: Caller, signal: int, seconds: float, *, repeats: bool) -> None:
        """Raise the signal in so many seconds, once or again and again; 0 seconds remove the timer."""
        state = state_of(caller.store)
        if self._red_zone is None:
            self._red_zone = RedZone(caller)
        self._timers.pop(signal, None)
        if seconds:
            self._timers[signal] = _Timer(seconds, repeats)
        state.timers = self if self._timers else None

    def left(self) -> float:
        """Return how many seconds are left until the first timer ends."""
        return max(0.0, min(one.ends_at for one in self._timers.values()) - monotonic())

    def deliver(self, store: Store) -> None:
        """Raise the due signals in the running context, which has called a host function."""
        now = monotonic()
        for signal, timer in [*self._timers.items()]:
            if timer.ends_at > now or self._timers.get(signal) is not timer:  # a handler has set it anew
                continue
            if self._signals.is_handled(signal):  # later, so that the interrupted code goes on in between
                continue
            if timer.seconds is None:
                del self._timers[signal]
            else:  # it ends no more often than it is looked at
                timer.ends_at = max(timer.ends_at + timer.seconds, now)
            if not self._timers:
                state_of(store).timers = None
            self._signals.raise_(store, signal)

    def deliver_between_instructions(self, store: Store) -> None:
        """Raise the due signals at the end of an epoch, in the middle of the guest's code, or let them wait."""
        if self.left() or self._red_zone is None or not self._red_zone.is_known(store):
            return
        with self._red_zone.left_alone(store):
            self.deliver(store)


def wait(caller: Caller, seconds: float | None, wanted: Collection[Wait] = ()) -> set[Wait]:
    """Wait for the guest as `wait_until_ready` does, until a timer's signal has been handled at the latest.

    So callers check again what to wait for, because the handler may have changed everything.
    """
    state = state_of(caller.store)
    timers = state.timers
    if timers is None:
        return wait_until_ready(state.deadline, seconds, wanted)
    left = timers.left()
    found = wait_until_ready(state.deadline, left if seconds is None else min(seconds, left), wanted)
    if not found:  # else the signal comes with the next call, because its handler might consume the result
        timers.deliver(caller.store)
    return found


def can_be_signalled(caller: Caller) -> bool:
    """Whether a timer is set, whose handler may end a wait that nothing else would end."""
    return state_of(caller.store).timers is not None
