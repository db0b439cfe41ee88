"""Running within a deadline on an event loop: directly on asyncio, by way of anyio on others (trio, for example)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from greenctx._core.aio import run_in_task
from greenctx.errors import TimeLimitExceeded
from greenctx.wasix._clock.alarms import Alarm
from greenctx.wasix._clock.event_loop import anyio_unless_asyncio

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix._clock.deadline import Deadline

T = TypeVar("T")


async def run_within(deadline: Deadline, function: Callable[[], T]) -> T:
    """Run the function in the calling task. When the deadline is over, cancel it and raise `TimeLimitExceeded`."""
    seconds = deadline.left()
    if seconds is None:
        return await run_in_task(function)
    anyio = anyio_unless_asyncio()
    if anyio is None:
        try:
            async with asyncio.timeout(seconds) as scope:
                loop = asyncio.get_running_loop()

                def expire() -> None:
                    with suppress(RuntimeError):  # it has ended
                        scope.reschedule(loop.time())

                with Alarm(seconds, loop, expire):
                    return await run_in_task(function)
        except TimeoutError as error:
            if isinstance(error, TimeLimitExceeded) or not scope.expired():
                raise
            raise deadline.exceeded() from error
    ended: BaseException | None = None
    try:
        with anyio.move_on_after(seconds):
            try:
                return await run_in_task(function)
            except BaseException as error:
                ended = error  # its context has the errors of unwinding
                raise
        raise deadline.exceeded() from ended
    finally:
        del ended  # its traceback refers to this frame
