"""Waiting by the event loop that a program runs on: directly on asyncio, by way of anyio on others (trio, say)."""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from greenctx.wasix._clock.alarms import Alarm

if TYPE_CHECKING:
    from collections.abc import Collection

    from greenctx.wasix._clock.readiness import Wait


def anyio_unless_asyncio() -> Any:
    """Return the module anyio if the running task is not one of asyncio, else None."""
    try:
        if asyncio.current_task() is not None:
            return None
    except RuntimeError:  # asyncio runs no event loop here
        pass
    try:
        import anyio
        import anyio.lowlevel
    except ImportError as error:
        raise ImportError("programs on event loops other than asyncio's need anyio: install anyio") from error
    return anyio


async def give_way() -> None:
    """Let the loop's other tasks run."""
    anyio = anyio_unless_asyncio()
    await (asyncio.sleep(0) if anyio is None else anyio.lowlevel.checkpoint())


async def wait(wanted: Collection[Wait], seconds: float) -> None:
    """Wait until a descriptor is ready, or for so long."""
    anyio = anyio_unless_asyncio()
    with ExitStack() as cleanup:
        copies = []
        for descriptor, to_write in wanted:
            # A loop takes one reader for each descriptor, and other code may wait for the same one: hence the copy.
            copies.append((os.dup(descriptor), to_write))
            cleanup.callback(os.close, copies[-1][0])
        await (_wait_by_asyncio(copies, seconds) if anyio is None else _wait_by(anyio, copies, seconds))


async def _wait_by_asyncio(wanted: Collection[Wait], seconds: float) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    with ExitStack() as cleanup:
        cleanup.callback(loop.call_later(seconds, end).cancel)
        cleanup.enter_context(Alarm(seconds, loop, end))
        for descriptor, to_write in wanted:
            (loop.add_writer if to_write else loop.add_reader)(descriptor, end)
            cleanup.callback(loop.remove_writer if to_write else loop.remove_reader, descriptor)
        await ended


async def _wait_by(anyio: Any, wanted: Collection[Wait], seconds: float) -> None:
    async def wait_for(descriptor: int, to_write: bool) -> None:
        await (anyio.wait_writable if to_write else anyio.wait_readable)(descriptor)
        scope.cancel()

    with anyio.move_on_after(seconds) as scope:
        async with anyio.create_task_group() as group:
            for one in wanted:
                group.start_soon(wait_for, *one)
            await anyio.sleep_forever()
