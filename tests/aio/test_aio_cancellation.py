"""A task in which an environment runs is cancelled, closed, or resumed by other code than the event loop."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import pytest
from contexts import MAIN, start, state
from greenlet import GreenletExit, getcurrent, greenlet
from processes import check_script
from tasks import Waiting, in_task, later, never, step

from greenctx import (
    AlreadyAwaiting,
    ContextCanceled,
    ContextSwitchingEnvironment,
    ResumedWhileAwaiting,
    await_,
)

Environment = ContextSwitchingEnvironment


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
    """Main may catch CancelledError like any code; the context that let it out has ended."""

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
    """The context is not being destroyed then: it may switch, and catch the error, as usual."""

    async def everything() -> list[object]:
        log: list[object] = []

        def main(env: Environment) -> None:
            def awaits() -> None:
                try:
                    await_(never())
                except GreenletExit:
                    log.append("canceled")
                except asyncio.CancelledError:
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
    """The task raises CancelledError with the errors of the contexts' cleanup in its context."""
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


def test_cancellation_while_the_end_of_main_awaits() -> None:
    """CancelledError propagates unchanged, and the task ends cancelled; other cleanup errors are in its context."""
    log: list[object] = []

    async def everything() -> None:
        def main(env: Environment) -> None:
            def awaits() -> None:
                try:
                    env.switch_context(MAIN)
                finally:
                    log.append("waits")
                    await_(never())

            def fails() -> None:
                try:
                    env.switch_context(MAIN)
                finally:
                    await_(later(None))
                    raise ValueError("cleanup")

            for entrypoint in (fails, awaits, fails):
                start(env, entrypoint)

        task = Waiting(main).task
        while not log:
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            group: BaseException = error
            while not isinstance(group, BaseExceptionGroup):
                assert group.__context__ is not None
                group = group.__context__
            log.extend(map(repr, group.exceptions))
        assert task.cancelled()

    asyncio.run(everything())
    assert log == ["waits", "ValueError('cleanup')", "ValueError('cleanup')"]


def test_a_context_is_destroyed_while_others_await() -> None:
    """destroy_context works as usual in between; the victim's cleanup awaits, and its destroyer waits for it."""
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
    """An abandoned coroutine unwinds every context by GeneratorExit, which any further wait raises, too."""
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


# Resumed by other code.


def test_another_greenlet_of_the_run_may_not_await_meanwhile() -> None:
    """While a context awaits, `await_` in another one, resumed by hand, raises an error and changes nothing."""
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
    """The greenlet gets an error, and so does the task, once the result is there; every context unwinds."""
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
    """The exception is raised there; if it ends the run, the task ends with it."""

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
    """The step is refused: greenlets cannot change threads. That ends the coroutine and loses its run only."""
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
    """Several contexts of a plain environment step one loop in turns: each step returns to the context that made it."""

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


def test_a_coroutine_stepped_by_what_it_runs() -> None:
    """A greenlet of the run cannot step it: that raises an error and ends the coroutine, without resuming its code."""
    greenlets: list[greenlet] = []

    def main(_: Environment) -> None:
        def steps() -> None:
            mains.switch()
            with pytest.raises(ResumedWhileAwaiting, match="could not go on where it was stepped: cyclic"):
                coroutine.send(None)
            outside.switch()

        mains = getcurrent()
        greenlets.extend([mains, greenlet(steps)])
        greenlets[1].switch()
        await_(step())

    outside = getcurrent()
    env = Environment()
    coroutine = env.run_main_context_async(main, env)
    coroutine.send(None)
    greenlets[1].switch()
    with pytest.raises(KeyError):
        greenlets[0].throw(KeyError())
    greenlets.clear()


def test_an_interruption_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interruption is raised where the run waits."""
    log: list[object] = []

    def main() -> str:
        with pytest.raises(KeyboardInterrupt):
            await_(step())
        log.append("interrupted")
        return str(await_(step()))

    def interrupt() -> object:
        monkeypatch.undo()
        raise KeyboardInterrupt

    coroutine = Environment().run_main_context_async(main)
    coroutine.send(None)
    monkeypatch.setattr("greenctx._core.aio._current_task", interrupt)
    coroutine.send(None)
    with pytest.raises(StopIteration, match="done"):
        coroutine.send("done")
    assert log == ["interrupted"]
