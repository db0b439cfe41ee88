"""Environments in the tasks of asyncio, and its event loop in a context, with nothing that greenctx has for it."""

from __future__ import annotations

import asyncio

import pytest
from contexts import in_environment, sleeper

import greenctx
from greenctx import ContextSwitchingEnvironment, current_environment

Environment = ContextSwitchingEnvironment


def test_an_environment_in_each_of_several_tasks() -> None:
    """Tasks run an environment each, one after the other between awaits; each sees its own as current."""

    async def work(count: int) -> int:
        total = 0
        for _ in range(3):
            env: Environment = ContextSwitchingEnvironment()

            def main(env: Environment = env) -> int:
                for _ in range(count):
                    env.switch_context(env.create_context(sleeper(env)))
                assert current_environment() is env
                return count

            total += env.run_main_context(main)
            await asyncio.sleep(0)
            with pytest.raises(greenctx.NoEnvironment):
                current_environment()
        return total

    async def everything() -> list[int]:
        return await asyncio.gather(*map(work, range(5)))

    assert asyncio.run(everything()) == [0, 3, 6, 9, 12]


def test_an_event_loop_in_a_context() -> None:
    """A context may run an event loop; callbacks of the loop may switch, and the loop waits meanwhile."""
    log: list[str] = []

    def main(env: Environment) -> None:
        async def work() -> None:
            log.append("in the loop")
            env.switch_context(0)
            await asyncio.sleep(0)
            log.append("in the loop again")

        def entrypoint() -> None:
            asyncio.run(work())
            env.switch_context(0)

        context = env.create_context(entrypoint)
        env.switch_context(context)
        log.append("main")
        env.switch_context(context)

    in_environment(main)
    assert log == ["in the loop", "main", "in the loop again"]
