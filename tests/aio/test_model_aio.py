"""The state machine of test_model.py, with the environment in a task: contexts await their commands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from random_runs.machine import Machine
from random_runs.model import MAIN, End, World, tell, unwrapped

from greenctx import await_

if TYPE_CHECKING:
    from collections.abc import Callable


class AioWorld(World):
    """Run the event loop until the active context wants its next command."""

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._wanted: asyncio.Future[Callable[[], object] | End]
        self._task = self._loop.create_task(self._run_async())
        self._loop.run_forever()

    def command(self, command: Callable[[], object] | End) -> None:
        self._wanted.set_result(command)
        self._loop.run_forever()

    def cancel(self) -> None:
        """Cancel the task, while it waits for a command."""
        self._task.cancel()
        self._loop.run_forever()

    def preempt(self, context_id: int) -> None:
        """The active context resumes that one by hand."""

        def switch() -> None:
            caught: BaseException | None = None
            try:
                self.greenlets[context_id].switch()
            except BaseException as raised:
                caught = unwrapped(raised)
            self.let_it_notice()
            if caught is not None:
                try:
                    raise caught
                finally:
                    del caught

        self.command(switch)

    def close(self) -> None:
        self._loop.close()

    def _next_command(self) -> Any:
        self._wanted = self._loop.create_future()
        self._loop.stop()
        return await_(self._wanted)

    async def _run_async(self) -> None:
        try:
            await self.env.run_main_context_async(self.obey, MAIN)
        except BaseException as error:
            self.result = tell(error)
        else:
            self.result = "returned"
        self.greenlets.clear()
        self._loop.stop()


class AioMachine(Machine):
    """The rules of `Machine`, and those of a task."""

    world: AioWorld
    world_class = AioWorld

    @rule(turns=st.integers(0, 3))
    def wait(self, turns: int) -> None:
        """The active context awaits, and goes on."""

        async def some_turns() -> int:
            for _ in range(turns):
                await asyncio.sleep(0)
            return turns

        self.model.returned(turns)
        self.world.command(lambda: await_(some_turns()))

    @rule()
    def cancel(self) -> None:
        """The active context gets the CancelledError, whichever it is."""
        self.model.raised("CancelledError()")
        self.world.cancel()


TestModel = pytest.mark.both_forms(AioMachine.TestCase)
