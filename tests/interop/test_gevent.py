"""gevent switches greenlets as well: an environment within its greenlets, and contexts that wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contexts import in_environment, sleeper

from greenctx import (
    ContextCanceled,
    ContextSwitchingEnvironment,
    NotTheActiveContext,
    SwitchTargetMissing,
    current_environment,
)

gevent = pytest.importorskip("gevent")
queue = pytest.importorskip("gevent.queue")
event = pytest.importorskip("gevent.event")
InvalidSwitchError = pytest.importorskip("gevent.exceptions").InvalidSwitchError

if TYPE_CHECKING:
    from collections.abc import Callable

Environment = ContextSwitchingEnvironment


class TooLate(Exception):
    """The exception that a gevent.Timeout raises."""


def in_gevent(main: Callable[[Environment], object]) -> None:
    """Run main in an environment in a gevent greenlet; raise its exception here."""
    gevent.spawn(in_environment, main).get()


def test_an_environment_inside_a_gevent_greenlet() -> None:
    """In a gevent greenlet an environment's contexts switch and are torn down as anywhere."""

    def main(env: Environment) -> None:
        context = env.create_context(sleeper(env))
        env.switch_context(context)
        env.switch_context(context)
        assert env.active_context_id == 0

    in_gevent(main)


def test_a_context_may_sleep() -> None:
    """A context that calls gevent.sleep goes on as the active one; other greenlets run meanwhile."""
    log: list[object] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            gevent.spawn(log.append, "another greenlet")
            gevent.sleep(0)
            log.append(env.active_context_id)
            env.switch_context(0)

        env.switch_context(env.create_context(entrypoint))
        assert env.active_context_id == 0

    in_gevent(main)
    assert log == ["another greenlet", 1]


def test_main_may_sleep() -> None:
    """Main, too, goes on as the active context."""

    def main(env: Environment) -> None:
        context = env.create_context(sleeper(env))
        env.switch_context(context)
        gevent.sleep(0)
        assert env.active_context_id == 0
        env.switch_context(context)

    in_gevent(main)


def test_contexts_talk_through_queues() -> None:
    """Contexts wait for queues that greenlets outside of the environment fill."""
    requests, replies = queue.Queue(), queue.Queue()

    def server() -> None:
        for request in iter(requests.get, None):
            replies.put(request * 2)

    def main(env: Environment) -> None:
        got = []

        def entrypoint() -> None:
            for number in range(3):
                requests.put(number)
                got.append(replies.get())
                env.switch_context(0)

        context = env.create_context(entrypoint)
        for _ in range(3):
            env.switch_context(context)
        assert got == [0, 2, 4]
        requests.put(None)

    serving = gevent.spawn(server)
    in_gevent(main)
    serving.get()


def test_two_environments_interleaved_on_one_thread() -> None:
    """Each sees its own ids and its own current_environment(), however gevent interleaves them."""
    log: list[str] = []

    def work(name: str) -> None:
        def main(env: Environment) -> None:
            def entrypoint() -> None:
                while True:
                    gevent.sleep(0)
                    assert current_environment() is env
                    log.append(f"{name}{env.active_context_id}")
                    env.switch_context(0)

            one, two = env.create_context(entrypoint), env.create_context(entrypoint)
            for context in (one, two, one):
                env.switch_context(context)
                gevent.sleep(0)
                assert current_environment() is env
                assert env.active_context_id == 0

        in_environment(main)

    gevent.joinall([gevent.spawn(work, "a"), gevent.spawn(work, "b")], raise_error=True)
    assert log == ["a1", "b1", "a2", "b2", "a1", "b1"]


def test_another_greenlet_is_refused_while_a_context_sleeps() -> None:
    """While the active context waits for gevent, other greenlets may not call its environment."""
    log: list[str] = []

    def main(env: Environment) -> None:
        def intrude() -> None:
            with pytest.raises(
                NotTheActiveContext, match="context 1 is the active one, but the call came from another"
            ):
                env.switch_context(0)
            log.append("refused")

        def entrypoint() -> None:
            gevent.spawn(intrude)
            gevent.sleep(0)
            env.switch_context(0)

        env.switch_context(env.create_context(entrypoint))

    in_gevent(main)
    assert log == ["refused"]


def test_a_timeout_in_main_while_a_context_sleeps() -> None:
    """gevent.Timeout resumes main, which becomes active; the sleeping context is suspended, and can be destroyed."""
    log: list[str] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            try:
                gevent.sleep(1000)
            except ContextCanceled:
                log.append("canceled in its sleep")
                raise

        context = env.create_context(entrypoint)
        with pytest.raises(TooLate), gevent.Timeout(0.001, TooLate):
            env.switch_context(context)
        assert env.active_context_id == 0
        assert repr(env) == "<ContextSwitchingEnvironment active=0 suspended=[1]>"
        assert env.destroy_context(context)
        assert not env.destroy_context(context)

    in_gevent(main)
    assert log == ["canceled in its sleep"]


def test_switching_to_a_context_for_which_gevent_waits() -> None:
    """gevent raises InvalidSwitchError where the context waits; like any error, main gets it from there."""
    log: list[str] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            try:
                gevent.sleep(1000)
            except InvalidSwitchError:
                log.append("where it waits")
                raise

        context = env.create_context(entrypoint)
        with pytest.raises(TooLate), gevent.Timeout(0.001, TooLate):
            env.switch_context(context)
        with pytest.raises(InvalidSwitchError):
            env.switch_context(context)
        assert env.active_context_id == 0
        with pytest.raises(SwitchTargetMissing, match="has ended"):
            env.switch_context(context)

    in_gevent(main)
    assert log == ["where it waits"]


def test_a_context_that_gevent_resumes_while_main_sleeps() -> None:
    """A suspended context's sleep ends while main sleeps: it becomes active and may start others; main goes on."""
    log: list[object] = []

    def main(env: Environment) -> None:
        woken, asleep = event.Event(), event.Event()

        def entrypoint() -> None:
            woken.wait()
            log.append(env.active_context_id)
            other = env.create_context(started)
            env.switch_context(other)
            log.append("back")
            asleep.set()
            gevent.sleep(1000)

        def started() -> None:
            log.append(env.active_context_id)
            env.switch_context(1)

        context = env.create_context(entrypoint)
        with pytest.raises(TooLate), gevent.Timeout(0.001, TooLate):
            env.switch_context(context)
        woken.set()
        asleep.wait()
        assert env.active_context_id == 0
        assert repr(env) == "<ContextSwitchingEnvironment active=0 suspended=[1, 2]>"

    in_gevent(main)
    assert log == [1, 2, "back"]


def test_starts_are_flat_again_after_main_slept() -> None:
    """A chain of starts is flat also after main has waited elsewhere."""
    count = 5000

    def main(env: Environment) -> None:
        woken, asleep = event.Event(), event.Event()

        def waiter() -> None:
            woken.wait()
            assert env.active_context_id == 1
            asleep.set()
            env.switch_context(0)

        context = env.create_context(waiter)
        with pytest.raises(TooLate), gevent.Timeout(0.001, TooLate):
            env.switch_context(context)
        woken.set()
        with pytest.raises(InvalidSwitchError):
            gevent.sleep(1000)
        assert asleep.ready()
        started = []

        def entrypoint() -> None:
            started.append(env.active_context_id)
            env.switch_context(env.create_context(entrypoint) if len(started) < count else 0)

        env.switch_context(env.create_context(entrypoint))
        assert len(started) == count

    in_gevent(main)


def test_killing_the_greenlet_that_is_main() -> None:
    """gevent.kill arrives in main while a context is active: main ends, and every context is unwound."""
    log: list[str] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            try:
                if env.active_context_id == 2:
                    ready.set()
                    gevent.sleep(1000)
                env.switch_context(0)
            finally:
                log.append(f"left {env.active_context_id}")

        env.switch_context(env.create_context(entrypoint))
        try:
            env.switch_context(env.create_context(entrypoint))
        finally:
            log.append("main")

    ready = event.Event()
    running = gevent.spawn(in_environment, main)
    ready.wait()
    running.kill()
    assert isinstance(running.value, gevent.GreenletExit)
    assert log == ["main", "left 1", "left 2"]


def test_a_destroyer_timed_out_while_the_cleanup_of_its_victim_sleeps() -> None:
    """destroy_context raises the timeout. The victim can only be destroyed again, not resumed by a switch."""
    log: list[str] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            try:
                env.switch_context(0)
            finally:
                try:
                    gevent.sleep(1000)
                except ContextCanceled:
                    log.append("canceled once more")
                    raise

        context = env.create_context(entrypoint)
        env.switch_context(context)
        with pytest.raises(TooLate), gevent.Timeout(0.001, TooLate):
            env.destroy_context(context)
        assert env.active_context_id == 0
        with pytest.raises(SwitchTargetMissing, match="is being destroyed"):
            env.switch_context(context)
        assert env.destroy_context(context)
        assert log == ["canceled once more"]

    in_gevent(main)


def test_the_end_of_main_waits_for_cleanup_that_sleeps() -> None:
    """Cleanup at the end of main may sleep; run_main_context returns when it has ended."""
    log: list[int] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            try:
                env.switch_context(0)
            finally:
                gevent.sleep(0)
                log.append(env.active_context_id)

        for _ in range(3):
            env.switch_context(env.create_context(entrypoint))

    in_gevent(main)
    assert log == [1, 2, 3]


def test_an_environment_in_gevents_main_greenlet() -> None:
    """The thread's first greenlet, in which gevent is called here, may be main as well."""
    log: list[int] = []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            gevent.sleep(0)
            log.append(env.active_context_id)
            env.switch_context(0)

        env.switch_context(env.create_context(entrypoint))

    in_environment(main)
    assert log == [1]


def test_each_greenlet_in_a_pool_of_threads_has_its_own_environment() -> None:
    """Environments in gevent's own threads run beside each other."""

    def work(number: int) -> int:
        env = ContextSwitchingEnvironment()

        def main() -> int:
            for _ in range(number):
                env.switch_context(env.create_context(sleeper(env)))
            return env.create_context(print) - 1

        return env.run_main_context(main)

    pool = pytest.importorskip("gevent.threadpool").ThreadPool(3)
    try:
        assert pool.map(work, range(6)) == list(range(6))
    finally:
        pool.kill()
