"""Environments inside of tasks, and what their contexts await."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from greenctx import (
    ContextSwitchingEnvironment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

Environment = ContextSwitchingEnvironment
T = TypeVar("T")


async def later(value: T, turns: int = 1) -> T:
    """The value, after so many turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


async def never(log: list[Any] | None = None) -> NoReturn:
    """Waits until it is cancelled."""
    try:
        await asyncio.get_running_loop().create_future()
    except BaseException as error:
        if log is not None:
            log.append(type(error).__name__)
        raise
    raise AssertionError


def in_task(main: Callable[[Environment], T]) -> T:
    """Run it as main in an environment in a task."""
    env = ContextSwitchingEnvironment()
    return asyncio.run(env.run_main_context_async(main, env))


class Waiting:
    """A run in a task, which is about to wait somewhere in its main or a context."""

    def __init__(self, main: Callable[[Environment], Any]) -> None:
        self.env = ContextSwitchingEnvironment()
        self.task = asyncio.ensure_future(self.env.run_main_context_async(main, self.env))

    async def until_it_waits(self) -> asyncio.Task[Any]:
        while self.env._active is None:
            await asyncio.sleep(0)
        return self.task


class Step:
    """Awaits a single turn of whoever steps the coroutine; returns what that sends."""

    def __await__(self) -> Generator[str, Any, Any]:
        return (yield "a step")


def step() -> Step:
    return Step()
