"""Environments in tasks, in company: of context variables, other tasks, groups, threads, event loops."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
from contexts import MAIN, start
from processes import check_script
from tasks import in_task, later, never

from greenctx import (
    ContextSwitchingEnvironment,
    NotInAsyncRun,
    await_,
    current_environment,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Environment = ContextSwitchingEnvironment

variable: ContextVar[str] = ContextVar("variable", default="none")


# Variables, tasks, loops.


def test_context_variables() -> None:
    """Main shares the task's; each context has a copy, in which what it awaits runs; tasks get copies of that."""

    async def setter(value: str) -> str:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0)
        return before

    async def getter() -> str:
        await asyncio.sleep(0)
        return variable.get()

    def main(env: Environment) -> None:
        assert variable.get() == "of the task"

        def entrypoint(name: str) -> Callable[[], None]:
            def run() -> None:
                assert await_(setter(name)) == "of main"
                env.switch_context(MAIN)
                assert await_(getter()) == variable.get() == name
                assert await_(asyncio.ensure_future(getter())) == name
                env.switch_context(MAIN)

            return run

        variable.set("of main")
        contexts = [start(env, entrypoint(f"of context {number}")) for number in (1, 2)]
        for context in contexts:
            env.switch_context(context)
            assert await_(getter()) == "of main"

    async def everything() -> str:
        variable.set("of the task")
        env = ContextSwitchingEnvironment()
        await env.run_main_context_async(main, env)
        return variable.get()

    assert asyncio.run(everything()) == "of main"


def test_many_environments_on_one_loop() -> None:
    """1,000 environments in 1,000 tasks: each context sees its task, its environment, its variables."""

    def main(env: Environment, number: int) -> int:
        task = asyncio.current_task()
        sums = [0]

        def check(name: str) -> None:
            assert asyncio.current_task() is task
            assert current_environment() is env
            assert variable.get() == name

        def entrypoint() -> None:
            name = f"context {env.active_context_id} of {number}"
            variable.set(name)
            while True:
                sums[0] += await_(later(number))
                check(name)
                env.switch_context(MAIN)
                check(name)

        variable.set(f"main of {number}")
        contexts = [env.create_context(entrypoint) for _ in range(5)]
        for _ in range(3):
            for context in contexts:
                env.switch_context(context)
                check(f"main of {number}")
                sums[0] += await_(later(1))
                check(f"main of {number}")
        return sums[0]

    async def run(number: int) -> int:
        env = ContextSwitchingEnvironment()
        return await env.run_main_context_async(main, env, number)

    async def everything() -> list[int]:
        return await asyncio.gather(*map(run, range(1000)))

    assert asyncio.run(everything()) == [15 * number + 15 for number in range(1000)]


def test_task_group() -> None:
    """An error in one run cancels the others in its group, and each of them is unwound."""
    log: list[int] = []

    async def run(number: int) -> None:
        def main(env: Environment) -> None:
            def entrypoint() -> None:
                try:
                    await_(later(None, 5) if number == 3 else never())
                    raise ValueError(number)
                finally:
                    await_(later(None))
                    log.append(number)

            env.switch_context(env.create_context(entrypoint))

        env = ContextSwitchingEnvironment()
        await env.run_main_context_async(main, env)

    async def everything() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(run(number))

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(everything())
    assert [repr(error) for error in caught.value.exceptions] == ["ValueError(3)"]
    assert sorted(log) == [*range(10)]


def test_a_task_group_inside_of_a_context() -> None:
    """A context may await a group of tasks, in each of which an environment runs."""

    def main(env: Environment) -> list[int]:
        async def group() -> list[int]:
            async with asyncio.TaskGroup() as tasks:
                runs = [tasks.create_task(one(number)) for number in range(10)]
            return [run.result() for run in runs]

        async def one(number: int) -> int:
            inner = ContextSwitchingEnvironment()
            return await inner.run_main_context_async(lambda: await_(later(number, number)))

        found: list[int] = []

        def entrypoint() -> None:
            found.extend(await_(group()))
            env.switch_context(MAIN)

        start(env, entrypoint)
        return found

    assert in_task(main) == [*range(10)]


def test_two_event_loops_in_two_threads() -> None:
    """Each has its environments, and knows nothing of the other's."""
    results: dict[int, list[int]] = {}
    barrier = threading.Barrier(2)

    def main(env: Environment, number: int) -> int:
        found: list[int] = []

        def entrypoint() -> None:
            while True:
                found.append(await_(later(number, 3)))
                env.switch_context(MAIN)

        context = env.create_context(entrypoint)
        for _ in range(10):
            env.switch_context(context)
        return sum(found)

    async def run(number: int) -> int:
        env = ContextSwitchingEnvironment()
        return await env.run_main_context_async(main, env, number)

    async def everything(base: int) -> None:
        barrier.wait()
        results[base] = await asyncio.gather(*(run(base + number) for number in range(50)))

    threads = [threading.Thread(target=lambda base=base: asyncio.run(everything(base))) for base in (0, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {base: [10 * (base + number) for number in range(50)] for base in (0, 1000)}


def test_a_thread_that_a_context_awaits() -> None:
    """A thread of asyncio.to_thread has the context's variables, but is not in the context's environment."""

    def main(env: Environment) -> tuple[int, str]:
        def in_thread() -> str:
            assert current_environment() is env
            inner = ContextSwitchingEnvironment()
            inner.run_main_context(lambda: seen.append(inner._outer))
            with pytest.raises(NotInAsyncRun):
                await_(later(1))
            return "done"

        seen: list[object] = []
        result = await_(asyncio.to_thread(in_thread))
        assert seen == [None]
        return env.active_context_id, result

    assert in_task(main) == (0, "done")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="new in 3.12")
def test_eager_tasks() -> None:
    """A task whose first step runs in the context that creates it goes on in the loop."""

    def main(env: Environment) -> list[object]:
        log: list[object] = []

        async def run(number: int) -> int:
            inner = ContextSwitchingEnvironment()
            return await inner.run_main_context_async(lambda: await_(later(number, 3)))

        async def create() -> list[int]:
            loop = asyncio.get_running_loop()
            eager: Any = asyncio.Task  # the argument is new in 3.12
            tasks = [eager(run(number), loop=loop, eager_start=True) for number in range(3)]
            results: list[int] = await asyncio.gather(*tasks)
            return results

        def entrypoint() -> None:
            log.extend(await_(create()))
            env.switch_context(MAIN)

        start(env, entrypoint)
        return log

    assert in_task(main) == [0, 1, 2]


def test_asynchronous_generators() -> None:
    """A context iterates over one, whose hooks are the event loop's."""

    async def numbers() -> Any:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    log: list[object] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            generator = numbers()
            log.append(await_(anext(generator)))
            env.switch_context(MAIN)
            log.append(await_(anext(generator)))
            await_(generator.aclose())
            env.switch_context(MAIN)

        context = start(env, entrypoint)
        env.switch_context(context)

    in_task(main)
    assert log == [0, 1, "closed"]


def test_contexts_start_flat_although_main_awaits() -> None:
    """A chain of contexts, each of which starts the next and awaits, does not become deeper."""
    count = 5000

    def main(env: Environment) -> int:
        started: list[int] = []

        def entrypoint() -> None:
            started.append(await_(later(1, len(started) % 2)))
            env.switch_context(env.create_context(entrypoint) if len(started) < count else MAIN)

        await_(later(None))
        env.switch_context(env.create_context(entrypoint))
        return len(started)

    assert in_task(main) == count


TRIO = """
import os, signal, sys, threading, time
import trio
from greenctx import *

def press_ctrl_c():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGINT)

def compute():
    threading.Thread(target=press_ctrl_c, daemon=True).start()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        pass
    raise AssertionError("Ctrl-C was ignored")

def in_a_context(env):
    env.switch_context(env.create_context(compute))

def check(main, **settings):
    async def run():
        env = ContextSwitchingEnvironment(**settings)
        await env.run_main_context_async(main, env)
    async def run_without_awaiting():
        env = ContextSwitchingEnvironment(**settings)
        env.run_main_context(main, env)
    for one in (run, run_without_awaiting):
        interrupted = False
        try:
            trio.run(one)
        except* KeyboardInterrupt:
            interrupted = True
        assert interrupted
"""


@pytest.mark.parametrize("main", ["lambda env: compute()", "in_a_context"])
@pytest.mark.parametrize("settings", ["", "instruments=[Statistics()]"])
def test_ctrl_c_under_trio(main: str, settings: str) -> None:
    """Ctrl-C interrupts computing Python code, in main and in other contexts, as it does in trio's own tasks."""
    pytest.importorskip("trio")
    check_script(f"{TRIO}\ncheck({main}, {settings})")
