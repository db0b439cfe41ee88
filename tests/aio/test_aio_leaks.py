"""Environments in tasks leave nothing behind, and nothing that only the garbage collector could free."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from contexts import MAIN, start
from leakcheck import assert_no_leak
from tasks import later, never

from greenctx import (
    ContextSwitchingEnvironment,
    await_,
    current_environment,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

Environment = ContextSwitchingEnvironment


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled", "is closed", "times out"])
def test_nothing_leaks(end: str) -> None:
    """However it ends, a run leaves nothing behind, not even for the collector."""
    loop = asyncio.new_event_loop()

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            try:
                await_(later(None))
                env.switch_context(MAIN)
            finally:
                if end != "is closed":
                    await_(later(None))

        start(env, entrypoint)
        env.switch_context(env.create_context(last))

    def last() -> None:
        env = current_environment()
        if end == "raises":
            raise ValueError
        await_(later(None, 2) if end == "returns" else never())
        env.switch_context(MAIN)

    async def everything() -> None:
        env = ContextSwitchingEnvironment()
        run: Coroutine[Any, Any, None] = env.run_main_context_async(main, env)
        if end == "is closed":
            run.send(None)
            run.close()
        elif end == "is cancelled":
            task = asyncio.ensure_future(run)
            await later(None, 5)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        elif end == "times out":
            with suppress(TimeoutError):
                async with asyncio.timeout(0.0001):
                    await run
        else:
            with suppress(ValueError):
                await run

    try:
        assert_no_leak(lambda: loop.run_until_complete(everything()))
    finally:
        loop.close()
