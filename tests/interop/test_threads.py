"""An environment belongs to the thread that runs it; environments of several threads do not disturb one another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from contexts import each_call, in_environment, sleeper
from greenlet import greenlet

import greenctx
from greenctx import ContextSwitchingEnvironment, WrongThread, current_environment

if TYPE_CHECKING:
    from collections.abc import Callable

Environment = ContextSwitchingEnvironment


def run_in_thread(target: Callable[[], object], name: str) -> None:
    """Run it to its end in a thread; what it raises is raised here."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join()
    for error in errors:
        raise error


@each_call
def test_every_call_from_another_thread_is_refused(call: Callable[[Environment], object]) -> None:
    """Every call from another thread raises WrongThread, which names both threads and the remedy, and changes
    nothing."""

    def main(env: Environment) -> None:
        env.switch_context(env.create_context(sleeper(env)))
        env.create_context(sleeper(env))
        before = repr(env)

        def intrude() -> None:
            with pytest.raises(WrongThread, match="'home' but was called from thread 'intruder'; give each") as caught:
                call(env)
            assert (caught.value.expected, caught.value.found) == ("home", "intruder")

        run_in_thread(intrude, "intruder")
        assert repr(env) == before == "<ContextSwitchingEnvironment active=0 suspended=[1, 2]>"
        assert env.create_context(print) == 3
        env.switch_context(1)
        assert env.active_context_id == 0

    run_in_thread(lambda: in_environment(main), "home")


@each_call
def test_a_call_while_a_context_is_active_is_refused(call: Callable[[Environment], object]) -> None:
    """Another thread is refused as well while a context other than main is active."""

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            before = repr(env)
            with pytest.raises(WrongThread):
                run_in_thread(lambda: call(env), "intruder")
            assert repr(env) == before
            env.switch_context(0)

        env.switch_context(env.create_context(entrypoint))
        assert env.active_context_id == 0

    in_environment(main)


@each_call
def test_a_greenlet_of_another_thread_is_refused(call: Callable[[Environment], object]) -> None:
    """A greenlet that runs in another thread is refused."""

    def main(env: Environment) -> None:
        with pytest.raises(WrongThread):
            run_in_thread(lambda: greenlet(call).switch(env), "intruder")

    in_environment(main)


def test_a_thread_that_runs_an_environment_of_its_own_is_refused() -> None:
    """An environment of its own does not let a thread into that of another."""

    def main(env: Environment) -> None:
        def intrude(own: Environment) -> None:
            def entrypoint() -> None:
                with pytest.raises(WrongThread):
                    env.switch_context(0)
                own.switch_context(0)

            own.switch_context(own.create_context(entrypoint))

        run_in_thread(lambda: in_environment(intrude), "intruder")
        assert env.active_context_id == 0

    in_environment(main)


def test_run_main_context_from_another_thread_is_refused() -> None:
    """An environment that runs in one thread cannot be run in another."""

    def main(env: Environment) -> None:
        with pytest.raises(greenctx.EnvironmentAlreadyUsed, match="is running"):
            run_in_thread(lambda: env.run_main_context(print), "intruder")
        assert env.active_context_id == 0

    in_environment(main)


def test_another_thread_has_no_current_environment() -> None:
    """current_environment() is refused in a thread that was started by a context."""

    def main(_: Environment) -> None:
        with pytest.raises(greenctx.NoEnvironment):
            run_in_thread(current_environment, "other")

    in_environment(main)


def test_environments_in_parallel_do_not_disturb_each_other() -> None:
    """Each of 8 threads runs an environment with 50 contexts, all at the same time."""
    meeting = threading.Barrier(8)

    def work() -> None:
        log: list[int] = []

        def main(env: Environment) -> None:
            def entrypoint() -> None:
                while True:
                    assert current_environment() is env
                    log.append(env.active_context_id)
                    env.switch_context((env.active_context_id + 1) % 51)

            for _ in range(50):
                env.create_context(entrypoint)
            for _ in range(20):
                meeting.wait()
                env.switch_context(1)
                assert env.active_context_id == 0

        in_environment(main)
        assert log == list(range(1, 51)) * 20

    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)
            meeting.abort()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
