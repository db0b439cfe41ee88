"""Environments inside of tasks: the event loop waits for the awaitables of their contexts."""

from __future__ import annotations

import asyncio
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from contexts import MAIN, guest_code, in_environment, start, state
from greenlet import getcurrent, greenlet
from tasks import Waiting, in_task, later, never, step

from greenctx import (
    ContextEntrypointReturned,
    ContextSwitchingEnvironment,
    EnvironmentAlreadyUsed,
    NotInAsyncRun,
    NotTheActiveContext,
    await_,
    current_environment,
)
from greenctx._core.scope import NoContexts

if TYPE_CHECKING:
    from collections.abc import Awaitable

Environment = ContextSwitchingEnvironment


# Results and errors.


def test_results_come_back_into_the_context_that_awaits() -> None:
    """Main and contexts get results, in their own contexts, and switch in between as usual."""
    log: list[object] = []

    def main(env: Environment) -> str:
        def entrypoint() -> None:
            for number in range(3):
                log.append((env.active_context_id, await_(later(number))))
                env.switch_context(MAIN)

        context = start(env, entrypoint)
        for letter in "ab":
            log.append((env.active_context_id, await_(later(letter))))
            env.switch_context(context)
        return await_(later("the end"))

    assert in_task(main) == "the end"
    assert log == [(1, 0), (0, "a"), (1, 1), (0, "b"), (1, 2)]


def test_exceptions_come_back_into_the_context_that_awaits() -> None:
    """An exception is raised where the context awaits, its traceback whole: the coroutine's frames are in it."""

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("from the coroutine")

    def main(env: Environment) -> list[str]:
        names: list[str] = []

        def entrypoint() -> None:
            try:
                await_(fails())
            except ValueError as error:
                names.extend(frame.name for frame in traceback.extract_tb(error.__traceback__))
            env.switch_context(MAIN)

        start(env, entrypoint)
        return names

    assert in_task(main) == ["entrypoint", "await_", "_step_to_the_end", "_wait_for", "fails"]


def test_what_a_context_does_not_catch_is_raised_in_main() -> None:
    """Main gets it like any exception of a context."""

    async def fails() -> None:
        raise ValueError("from the coroutine")

    def main(env: Environment) -> None:
        with pytest.raises(ValueError, match="from the coroutine"):
            env.switch_context(env.create_context(lambda: await_(fails())))
        with pytest.raises(ContextEntrypointReturned):
            env.switch_context(env.create_context(lambda: await_(later(None))))
        assert state(env) == (0, [])

    in_task(main)


def test_main_raises(error: BaseException) -> None:
    """The coroutine raises main's exception unchanged, a GreenletExit included."""

    def main() -> NoReturn:
        await_(step())
        raise error

    env = ContextSwitchingEnvironment()
    coroutine = env.run_main_context_async(main)
    coroutine.send(None)
    if isinstance(error, StopIteration):  # which no coroutine may raise
        with pytest.raises(RuntimeError, match="StopIteration"):
            coroutine.send(None)
        return
    with pytest.raises(type(error)) as caught:
        coroutine.send(None)
    assert caught.value is error
    assert error.__context__ is None


def test_any_event_loop() -> None:
    """An awaitable yields any value to the code that steps the coroutine, and gets its answers."""
    env = ContextSwitchingEnvironment()
    log: list[object] = []

    def main() -> str:
        log.append(await_(step()))
        with pytest.raises(KeyError):
            await_(step())
        return "done"

    coroutine = env.run_main_context_async(main)
    assert coroutine.send(None) == "a step"
    assert coroutine.send("an answer") == "a step"
    with pytest.raises(StopIteration) as stop:
        coroutine.throw(KeyError())
    assert stop.value.value == "done"
    assert log == ["an answer"]


def test_what_the_event_loop_throws_keeps_its_traceback() -> None:
    """The traceback keeps the frames in which the error was raised."""

    def raised_elsewhere() -> KeyError:
        try:
            raise KeyError
        except KeyError as error:
            return error

    def main() -> list[str]:
        try:
            await_(step())
        except KeyError as error:
            return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        raise AssertionError

    coroutine = Environment().run_main_context_async(main)
    coroutine.send(None)
    with pytest.raises(StopIteration) as stop:
        coroutine.throw(raised_elsewhere())
    assert stop.value.value[0] == "main"
    assert stop.value.value[-1] == "raised_elsewhere"


def test_every_kind_of_awaitable() -> None:
    """Coroutines, futures, tasks and objects can be awaited; anything else is a TypeError, as with ``await``."""

    def main(_: Environment) -> list[object]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        found = [await_(future), await_(loop.create_task(later("task"))), await_(later("coroutine"))]
        found += await_(asyncio.gather(later("one", 2), later("two")))
        found.append(await_(asyncio.wait_for(later("in time"), 100)))
        with pytest.raises(TypeError, match=r"can't be (used in 'await' expression|awaited)"):
            await_(42)  # type: ignore[arg-type]
        return found

    assert in_task(main) == ["future", "task", "coroutine", "one", "two", "in time"]


def test_what_need_not_wait_does_not() -> None:
    """The event loop does not run when there is nothing to wait for."""

    async def at_once() -> str:
        return "at once"

    def main(_: Environment) -> str:
        ran: list[str] = []
        asyncio.get_running_loop().call_soon(ran.append, "the loop")
        assert await_(at_once()) == "at once"
        assert ran == []
        await_(later(None))
        return ran[0]

    assert in_task(main) == "the loop"


def test_other_tasks_run_meanwhile() -> None:
    """The loop goes on, and resumes the context only when the result is there, without polling."""
    turns = 0

    def main(env: Environment) -> list[int]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        steps: list[int] = []

        async def worker() -> None:
            nonlocal turns
            for _ in range(50):
                turns += 1
                await asyncio.sleep(0)
            future.set_result(turns)

        def entrypoint() -> None:
            working = loop.create_task(worker())  # kept: the loop does not
            steps.append(await_(future))
            await_(working)
            env.switch_context(MAIN)

        start(env, entrypoint)
        return steps

    assert in_task(main) == [50]


def test_a_coroutine_function_is_no_main() -> None:
    """A coroutine function as main raises TypeError, with the remedy, and does not begin to run."""

    async def main() -> NoReturn:
        raise AssertionError

    run: Awaitable[object]
    for run in (Environment().run_main_context_async(main), Environment().run_main_context_async(lambda: main())):
        with pytest.raises(TypeError, match=r"must be a plain function.*it calls greenctx\.await_"):
            asyncio.run(wait_for(run))


async def wait_for(run: Awaitable[object]) -> object:
    return await run


def test_an_environment_runs_once_here_too() -> None:
    """A second run is refused, also while the first waits in another task."""

    async def main() -> None:
        waiting = Waiting(lambda _: await_(never()))
        task = await waiting.until_it_waits()
        with pytest.raises(EnvironmentAlreadyUsed, match="is running"):
            await waiting.env.run_main_context_async(print)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(EnvironmentAlreadyUsed, match="has run"):
            await waiting.env.run_main_context_async(print)

    asyncio.run(main())


# Places where `await_` may be called.


def test_outside_of_any_run() -> None:
    """Elsewhere `await_` raises an error that says what is missing, and closes the coroutine without a warning."""
    missing = r"run it by `await env.run_main_context_async\(main\)`, or a program by `await program.run_async\(\)`"
    with pytest.raises(NotInAsyncRun, match=missing):
        await_(later(1))

    with pytest.raises(NotInAsyncRun):
        await_(step())

    async def in_a_coroutine() -> None:
        with pytest.raises(NotInAsyncRun, match="in a coroutine, write `await`"):
            await_(later(1))

    asyncio.run(in_a_coroutine())

    def main(env: Environment) -> None:
        with pytest.raises(NotInAsyncRun):
            await_(later(1))
        with pytest.raises(NotInAsyncRun):
            env.switch_context(env.create_context(lambda: await_(later(1))))

    async def in_a_plain_run() -> None:
        in_environment(main)

    asyncio.run(in_a_plain_run())


def test_a_task_that_a_context_starts_is_not_in_the_run() -> None:
    """The task inherits the context's variables, but runs beside the context, not in it."""

    def main(env: Environment) -> str:
        async def beside() -> str:
            assert current_environment() is env
            with pytest.raises(NotInAsyncRun):
                await_(later(1))
            with pytest.raises(NotTheActiveContext):
                env.switch_context(MAIN)
            return await inside.run_main_context_async(lambda: await_(later("an environment of its own")))

        inside = ContextSwitchingEnvironment()
        return await_(asyncio.get_running_loop().create_task(beside()))

    assert in_task(main) == "an environment of its own"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="this Python has no eager tasks")
def test_an_eager_task_that_a_context_starts_is_not_in_the_run() -> None:
    """An eager task makes its first step on the context's greenlet, where nothing may await for the run."""
    log: list[object] = []

    def main(env: Environment) -> str:
        async def beside(context: int | None) -> None:
            with pytest.raises(NotInAsyncRun):
                await_(later(1))
            if context is not None:
                env.switch_context(context)
            log.append(await later("went on beside"))

        def refused() -> None:
            with pytest.raises(NotInAsyncRun):
                await_(later(1))
            env.switch_context(MAIN)

        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        try:
            await_(asyncio.get_running_loop().create_task(beside(None)))
            await_(asyncio.get_running_loop().create_task(beside(env.create_context(refused))))
        finally:
            asyncio.get_running_loop().set_task_factory(None)
        return await_(later("went on"))

    assert in_task(main) == "went on"
    assert log == ["went on beside"] * 2


def test_a_plain_greenlet_of_a_context() -> None:
    """Code that switches greenlets of its own within a context awaits in them, too, and goes on in them."""

    def main(_: Environment) -> list[object]:
        log: list[object] = []

        def other() -> str:
            log.append(await_(later("in a greenlet")))
            outer.switch()
            return await_(later("in the same one"))

        outer = getcurrent()
        inner = greenlet(other)
        inner.switch()
        log.append(await_(later("in main")))
        log.append(inner.switch())
        return log

    assert in_task(main) == ["in a greenlet", "in main", "in the same one"]


def test_a_coroutine_in_a_context_may_call_plain_code_that_awaits() -> None:
    """Await in await: the coroutine that a context awaits runs on the context's greenlet, as all of its code."""

    def main(env: Environment) -> str:
        def plain() -> str:
            return await_(later(f"context {env.active_context_id}"))

        async def coroutine() -> str:
            await asyncio.sleep(0)
            return plain()

        found: list[str] = []

        def entrypoint() -> None:
            found.append(await_(coroutine()))
            env.switch_context(MAIN)

        start(env, entrypoint)
        return found[0]

    assert in_task(main) == "context 1"


def test_a_coroutine_in_a_context_may_switch_contexts() -> None:
    """The coroutine waits there like any code of the context, and may be destroyed there."""
    log: list[object] = []

    def main(env: Environment) -> None:
        async def coroutine() -> None:
            try:
                await asyncio.sleep(0)
                env.switch_context(MAIN)
                log.append(await later("back in 1"))
                env.switch_context(MAIN)
            finally:
                log.append(await later("canceled"))

        context = start(env, lambda: await_(coroutine()))
        log.append(await_(later("in main")))
        env.switch_context(context)
        assert env.destroy_context(context)

    in_task(main)
    assert log == ["in main", "back in 1", "canceled"]


def test_while_guest_code_runs() -> None:
    """`await_` is refused like any call from a fiber, in whichever environment. (tests/wasix has real guests.)"""

    def check(of: Any) -> None:
        with guest_code(of), pytest.raises(NotTheActiveContext, match="guest code on its fiber"):
            await_(later(1))
        assert await_(later(1)) == 1

    def nested(inner: Environment, outer: Environment) -> None:
        assert inner._outer is not None
        check(inner)
        check(outer)

    def main(env: Environment) -> None:
        check(env)
        inner = Environment()
        inner.run_main_context(nested, inner, env)
        without = NoContexts()
        without.run(check, without)
        inner = Environment()
        without.run(inner.run_main_context, nested, inner, env)

    in_task(main)


# Nested environments.


def test_an_environment_nested_in_a_run() -> None:
    """A plain environment within a context: its contexts await, and the environments around them wait with them."""

    def main(env: Environment) -> list[object]:
        log: list[object] = []

        def inner_main(inner: Environment) -> str:
            def entrypoint() -> None:
                assert current_environment() is inner
                log.append(await_(later("inner context")))
                inner.switch_context(MAIN)
                log.append(await_(later("again")))
                inner.switch_context(MAIN)

            context = start(inner, entrypoint)
            log.append(await_(later("inner main")))
            inner.switch_context(context)
            return await_(later("inner result"))

        def entrypoint() -> None:
            inner = ContextSwitchingEnvironment()
            log.append(inner.run_main_context(inner_main, inner))
            assert current_environment() is env
            log.append(await_(later(env.active_context_id)))
            env.switch_context(MAIN)

        start(env, entrypoint)
        return log

    assert in_task(main) == ["inner context", "inner main", "again", "inner result", 1]


def test_a_run_nested_in_a_run() -> None:
    """A context may await a run of another environment, in its own task or in a new one."""

    def main(env: Environment) -> list[object]:
        log: list[object] = []

        def inner_main(inner: Environment, name: str) -> str:
            def entrypoint() -> None:
                log.append(await_(later(name)))
                inner.switch_context(MAIN)

            start(inner, entrypoint)
            with pytest.raises(NotTheActiveContext):
                env.switch_context(MAIN)
            return await_(later(f"end of {name}"))

        def entrypoint() -> None:
            for name in ("a coroutine", "a task"):
                inner = ContextSwitchingEnvironment()
                run: Awaitable[str] = inner.run_main_context_async(inner_main, inner, name)
                log.append(await_(run if name == "a coroutine" else asyncio.ensure_future(run)))
                assert current_environment() is env
            env.switch_context(MAIN)

        start(env, entrypoint)
        return log

    assert in_task(main) == ["a coroutine", "end of a coroutine", "a task", "end of a task"]


def test_a_nested_run_is_cancelled_with_the_outer_one() -> None:
    """Cancellation comes to the innermost context that awaits, and passes through each main on its way out."""
    log: list[str] = []

    async def everything() -> None:
        def inner_main(inner: Environment) -> None:
            try:
                inner.switch_context(inner.create_context(lambda: await_(never(log))))
            finally:
                log.append(await_(later("inner main")))

        def main(_: Environment) -> None:
            inner = ContextSwitchingEnvironment()
            try:
                await_(inner.run_main_context_async(inner_main, inner))
            finally:
                log.append(await_(later("main")))

        task = await Waiting(main).until_it_waits()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(everything())
    assert log == ["CancelledError", "inner main", "main"]
