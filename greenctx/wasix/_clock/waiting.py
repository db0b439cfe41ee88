"""Waiting for a guest: interruptibly, no longer than its deadline, and by the event loop if there is one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from greenctx._core.aio import await_, current_run
from greenctx.wasix._clock.readiness import find_ready
from greenctx.wasix._native._fiber import monotonic

if TYPE_CHECKING:
    from collections.abc import Collection

    from greenctx.wasix._clock.deadline import Deadline
    from greenctx.wasix._clock.readiness import Wait

MAX_LOOP_WAIT = 3600.0
"""The longest single wait by an event loop, in seconds: loops have limits. A longer wait is done in parts."""

MAX_SYSTEM_WAIT = 0.25
"""The longest system call, in seconds: a signal right before the call, or to another thread, does not end it."""


def checkpoint(deadline: Deadline) -> None:
    """Raise `TimeLimitExceeded` if the deadline is over. On an event loop, let other tasks run if it is time to."""
    deadline.check()
    run = current_run()
    if run is None:
        return
    now = monotonic()
    if run.computes_since is None:
        # The run got control back at some time within the epoch that ends here. An epoch is half of `yield_every`, so
        # the next epoch is the last, even if it ends a little early.
        run.computes_since = now - deadline.yield_every / 4
    elif now - run.computes_since >= deadline.yield_every / 2:
        from greenctx.wasix._clock import event_loop  # imports asyncio, which takes long

        await_(event_loop.give_way())
        deadline.check()


def wait_until_ready(deadline: Deadline, seconds: float | None, wanted: Collection[Wait] = ()) -> set[Wait]:
    """Wait until a descriptor is ready, for so long or without end; return the ready ones.

    On an event loop other tasks run meanwhile. Signal handlers run too, so Ctrl-C raises KeyboardInterrupt. Raises
    `TimeLimitExceeded`, and OSError for a closed descriptor.
    """
    until = None if seconds is None else monotonic() + seconds
    while True:
        checkpoint(deadline)
        now, on_loop = monotonic(), current_run() is not None
        ends = [end for end in (until, deadline.ends_at) if end is not None]
        left = min([MAX_LOOP_WAIT if on_loop else MAX_SYSTEM_WAIT, *(max(0.0, end - now) for end in ends)])
        if on_loop:
            if not (found := find_ready(wanted, 0)) and left:
                from greenctx.wasix._clock import event_loop

                await_(event_loop.wait(wanted, left))
                found = find_ready(wanted, 0)
        elif wanted:
            found = find_ready(wanted, left)
        else:
            found = set()
            time.sleep(left)
        if found:
            return found
        if until is not None and monotonic() >= until:
            checkpoint(deadline)
            return set()
