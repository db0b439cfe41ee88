"""Environments inside of tasks: what their contexts await, the event loop waits for."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import traceback
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import pytest
from contexts import MAIN, start, state
from greenlet import GreenletExit, getcurrent, greenlet
from leakcheck import assert_no_leak
from processes import check_script

from greenctx import (
    AlreadyAwaiting,
    ContextCanceled,
    ContextEntrypointReturned,
    ContextSwitchingEnvironment,
    EnvironmentAlreadyUsed,
    NotInAsyncRun,
    NotTheActiveContext,
    ResumedWhileAwaiting,
    await_,
    current_environment,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

Environment = ContextSwitchingEnvironment
T = TypeVar("T")

variable: ContextVar[str] = ContextVar("variable", default="none")


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


# What comes back.


def test_results_come_back_into_the_context_that_awaits() -> None:
    """Main and contexts get results, in their own contexts, and switch in between as ever."""
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
    """As any exception of a context."""

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
    """Whatever main raises comes out of the coroutine as itself, a GreenletExit included."""

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


class Step:
    """Awaits a single turn of whoever steps the coroutine; returns what that sends."""

    def __await__(self) -> Generator[str, Any, Any]:
        return (yield "a step")


def step() -> Step:
    return Step()


def test_any_event_loop() -> None:
    """What is awaited says to whoever steps the coroutine what it likes, and gets its answers."""
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


def test_every_kind_of_awaitable() -> None:
    """Coroutines, futures, tasks, objects; what is none is a TypeError, as with ``await``."""

    def main(_: Environment) -> list[object]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "future")
        found = [await_(future), await_(loop.create_task(later("task"))), await_(later("coroutine"))]
        found += await_(asyncio.gather(later("one", 2), later("two")))
        found.append(await_(asyncio.wait_for(later("in time"), 100)))
        with pytest.raises(TypeError, match="can't be used in 'await' expression"):
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
    """The loop goes on, and comes back only when the result is there: it is not asked again and again."""
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
    """It would not even begin to run: refused, with the remedy."""

    async def main() -> None: ...

    with pytest.raises(TypeError, match=r"must be a plain function.*it calls greenctx\.await_"):
        asyncio.run(ContextSwitchingEnvironment().run_main_context_async(main))


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


# Where it can be called.


def test_outside_of_any_run() -> None:
    """Elsewhere it is an error that says what is missing, and the coroutine is closed, not warned about."""
    missing = r"run it by `await env.run_main_context_async\(main\)`, or a program by `await program.run_async\(\)`"
    with pytest.raises(NotInAsyncRun, match=missing):
        await_(later(1))

    async def in_a_coroutine() -> None:
        with pytest.raises(NotInAsyncRun, match="a coroutine awaits by itself"):
            await_(later(1))

    asyncio.run(in_a_coroutine())

    def main(env: Environment) -> None:
        with pytest.raises(NotInAsyncRun):
            await_(later(1))
        with pytest.raises(NotInAsyncRun):
            env.switch_context(env.create_context(lambda: await_(later(1))))

    async def in_a_plain_run() -> None:
        env = ContextSwitchingEnvironment()
        env.run_main_context(main, env)

    asyncio.run(in_a_plain_run())


def test_a_task_that_a_context_starts_is_not_in_the_run() -> None:
    """It inherits the context's variables, but runs beside it, not in it."""

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
    """It waits there as any code of the context, and may be destroyed there."""
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


# Nested environments.


def test_an_environment_nested_in_a_run() -> None:
    """A plain environment within a context: its contexts await, and all that is around them waits with them."""

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


# Cancellation and time.


@pytest.mark.parametrize("where", ["main", "a context"])
def test_cancelling_the_task(where: str) -> None:
    """CancelledError in the context that awaits; main gets it, every cleanup runs, and may await; the task is
    cancelled."""
    log: list[str] = []

    async def everything() -> None:
        def main(env: Environment) -> None:
            def sleeps() -> None:
                try:
                    env.switch_context(MAIN)
                finally:
                    log.append(await_(later(f"cleanup of {env.active_context_id}", 3)))

            def awaits() -> None:
                try:
                    await_(never(log))
                finally:
                    log.append(await_(later("cleanup where it awaits", 3)))

            start(env, sleeps)
            start(env, sleeps)
            try:
                if where == "main":
                    awaits()
                else:
                    env.switch_context(env.create_context(awaits))
            except asyncio.CancelledError:
                log.append(await_(later("main", 3)))
                raise

        task = await Waiting(main).until_it_waits()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(everything())
    assert log == ["CancelledError", "cleanup where it awaits", "main", "cleanup of 1", "cleanup of 2"]


def test_main_may_survive_a_cancellation() -> None:
    """As any code that catches CancelledError; the context that let it out has ended."""

    async def everything() -> str:
        def main(env: Environment) -> str:
            try:
                env.switch_context(env.create_context(lambda: await_(never())))
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None
                task.uncancel()
            assert state(env) == (0, [])
            return await_(later("alive"))

        task = await Waiting(main).until_it_waits()
        task.cancel()
        return str(await task)

    assert asyncio.run(everything()) == "alive"


def test_cancellation_is_not_a_context_canceled() -> None:
    """Nobody destroys the context then: it may switch, and catch the error, as ever."""

    async def everything() -> list[object]:
        log: list[object] = []

        def main(env: Environment) -> None:
            def awaits() -> None:
                try:
                    await_(never())
                except asyncio.CancelledError as error:
                    assert not isinstance(error, GreenletExit)
                    env.switch_context(MAIN)
                    log.append("went on")
                    raise

            context = start(env, awaits)
            log.append(state(env))
            env.switch_context(context)

        task = await Waiting(main).until_it_waits()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return log

    assert asyncio.run(everything()) == [(0, [1]), "went on"]


@pytest.mark.parametrize("where", ["around the run", "in main", "in what is awaited"])
def test_timeout(where: str) -> None:
    """asyncio.timeout ends the wait, wherever it is entered, and is a TimeoutError there."""

    async def awaited() -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await never()
        return await later("timed out")

    async def everything() -> str:
        def main(env: Environment) -> str:
            if where == "in what is awaited":
                return await_(awaited())
            if where == "in main":
                timeout = asyncio.timeout(0.001)
                await_(timeout.__aenter__())
                try:
                    env.switch_context(env.create_context(lambda: await_(never())))
                except asyncio.CancelledError as error:
                    with pytest.raises(TimeoutError):
                        await_(timeout.__aexit__(type(error), error, error.__traceback__))
                return await_(later("timed out"))
            env.switch_context(env.create_context(lambda: await_(never())))
            raise AssertionError

        env = ContextSwitchingEnvironment()
        if where != "around the run":
            return await env.run_main_context_async(main, env)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await env.run_main_context_async(main, env)
        return "timed out"

    assert asyncio.run(everything()) == "timed out"


def test_errors_of_cleanup_are_not_lost_by_cancellation() -> None:
    """CancelledError comes out of the task with the errors of the contexts' cleanup in its context."""
    found: list[BaseException] = []

    async def everything() -> None:
        def main(env: Environment) -> None:
            def fails() -> None:
                try:
                    env.switch_context(MAIN)
                finally:
                    await_(later(None))
                    raise ValueError("cleanup")

            start(env, fails)
            await_(never())

        task = await Waiting(main).until_it_waits()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            last: BaseException = error
            while last.__context__ is not None:
                last = last.__context__
            found.append(last)

    asyncio.run(everything())
    [group] = found
    assert isinstance(group, BaseExceptionGroup)
    assert [repr(error) for error in group.exceptions] == ["ValueError('cleanup')"]


def test_a_context_is_destroyed_while_others_await() -> None:
    """destroy_context in between is what it always is; the victim's cleanup awaits, and its destroyer waits for it."""
    log: list[object] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            await_(later(None))
            try:
                env.switch_context(MAIN)
            except ContextCanceled:
                log.append(await_(later("cleanup", 5)))
                raise

        context = start(env, entrypoint)
        assert env.destroy_context(context)
        log.append("destroyed")

    in_task(main)
    assert log == ["cleanup", "destroyed"]


@pytest.mark.parametrize("way", ["close", "collected"])
def test_closing_the_coroutine(way: str) -> None:
    """A coroutine that is given up unwinds every context by GeneratorExit; to await anything more is refused so, too."""
    log: list[str] = []

    def main(env: Environment) -> None:
        def awaits() -> None:
            try:
                await_(step())
            finally:
                with pytest.raises(GeneratorExit):
                    await_(step())
                log.append("where it awaits")

        def sleeps() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                log.append("where it sleeps")

        start(env, sleeps)
        env.switch_context(env.create_context(awaits))

    env = ContextSwitchingEnvironment()
    coroutine = env.run_main_context_async(main, env)
    coroutine.send(None)
    if way == "close":
        coroutine.close()
    del coroutine
    gc.collect()
    assert log == ["where it awaits", "where it sleeps"]
    assert repr(env) == "<ContextSwitchingEnvironment that has ended>"


def test_a_coroutine_that_was_never_started_runs_nothing() -> None:
    """Closing it is enough."""
    env = ContextSwitchingEnvironment()
    env.run_main_context_async(print, "never printed").close()
    assert env.run_main_context(lambda: 1) == 1


def test_loops_that_end_with_runs_in_them() -> None:
    """asyncio.run cancels what is left, and that unwinds it."""
    log: list[str] = []

    async def everything() -> None:
        waiting = Waiting(lambda env: env.switch_context(env.create_context(lambda: await_(never(log)))))
        await waiting.until_it_waits()
        kept.append(waiting)

    kept: list[Waiting] = []
    asyncio.run(everything())
    assert log == ["CancelledError"]
    assert kept[0].task.cancelled()


# Resumed by somebody else.


def test_another_greenlet_of_the_run_may_not_await_meanwhile() -> None:
    """While one waits, code that is resumed by hand in another one gets an error, and nothing else happens."""
    log: list[object] = []
    greenlets: list[greenlet] = []

    def main(_: Environment) -> str:
        def other() -> None:
            outside.switch()
            with pytest.raises(AlreadyAwaiting, match=r"asyncio\.gather or a TaskGroup"):
                await_(later(1))
            log.append("refused")
            greenlets[1].switch()

        outside = getcurrent()
        greenlets.append(greenlet(other))
        greenlets[0].switch()
        return await_(later("undisturbed", 5))

    async def everything() -> object:
        task = await Waiting(main).until_it_waits()
        greenlets.append(getcurrent())
        greenlets[0].switch()
        return await task

    assert asyncio.run(everything()) == "undisturbed"
    assert log == ["refused"]


def test_one_that_awaits_is_resumed_by_hand() -> None:
    """It gets an error; so does the task, when what was awaited is there; and all is unwound."""
    log: list[object] = []
    waits: list[greenlet] = []

    def main(env: Environment) -> None:
        def awaits() -> None:
            waits.append(getcurrent())
            try:
                await_(later("lost", 3))
            except ResumedWhileAwaiting as error:
                log.append(str(error))
                back[0].switch()
            finally:
                log.append("unwound")

        try:
            env.switch_context(env.create_context(awaits))
        finally:
            log.append("main")

    back: list[greenlet] = []

    async def everything() -> None:
        task = await Waiting(main).until_it_waits()
        back.append(getcurrent())
        waits[0].switch()
        with pytest.raises(ResumedWhileAwaiting):
            await task

    asyncio.run(everything())
    assert log == [
        "a greenlet that awaits was resumed by other code than the event loop; "
        "leave it to the event loop, in the same thread, to resume it, and cancel its task to end the wait",
        "main",
        "unwound",
    ]


def test_an_exception_thrown_by_hand_into_one_that_awaits() -> None:
    """It arrives there; if that ends the run, the task ends with it."""

    def main(_: Environment) -> None:
        waits.append(getcurrent())
        await_(never())

    waits: list[greenlet] = []

    async def everything() -> None:
        task = await Waiting(main).until_it_waits()
        with pytest.raises(KeyError):
            waits[0].throw(KeyError("by hand"))
        task.cancel()
        with pytest.raises(ResumedWhileAwaiting):
            await task

    asyncio.run(everything())


def test_a_coroutine_stepped_in_another_thread() -> None:
    """Refused, for greenlets cannot go there. That ends the coroutine, and what it ran is lost, but nothing else."""
    check_script(
        """
        import asyncio, threading
        from greenctx import *

        class Step:
            def __await__(self):
                yield

        env = ContextSwitchingEnvironment()
        coroutine = env.run_main_context_async(lambda: env.switch_context(env.create_context(lambda: await_(Step()))))
        coroutine.send(None)

        def elsewhere():
            try:
                coroutine.send(None)
            except ResumedWhileAwaiting as error:
                assert "could not go on where it was stepped: " in str(error)
                assert "different thread" in str(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        asyncio.run(ContextSwitchingEnvironment().run_main_context_async(lambda: await_(asyncio.sleep(0))))
        """
    )


def test_a_coroutine_stepped_by_different_greenlets() -> None:
    """As a loop does that several contexts of a plain environment run in turns: whoever steps it gets it back."""

    def outer_main(outer: Environment) -> str:
        loop = asyncio.new_event_loop()
        env = ContextSwitchingEnvironment()
        task = loop.create_task(env.run_main_context_async(lambda: await_(later(await_(later("done", 3))))))

        def runs_it_for_a_turn() -> None:
            loop.run_until_complete(asyncio.sleep(0))
            outer.switch_context(MAIN)

        start(outer, runs_it_for_a_turn)
        result = loop.run_until_complete(task)
        loop.close()
        return result

    outer = ContextSwitchingEnvironment()
    assert outer.run_main_context(outer_main, outer) == "done"


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
    """What a context awaits may be a group of tasks, in each of which an environment runs."""

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
    """asyncio.to_thread gives the thread the context's variables; its environments are none of this one's."""

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
            tasks = [asyncio.Task(run(number), loop=loop, eager_start=True) for number in range(3)]
            return await asyncio.gather(*tasks)

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
        started = []

        def entrypoint() -> None:
            started.append(await_(later(1, len(started) % 2)))
            env.switch_context(env.create_context(entrypoint) if len(started) < count else MAIN)

        await_(later(None))
        env.switch_context(env.create_context(entrypoint))
        return len(started)

    assert in_task(main) == count


# Nothing is left behind.


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
