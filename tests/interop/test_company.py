"""An environment in company: of threads, other environments, generators, debuggers, contextvars, asyncio."""

from __future__ import annotations

import asyncio
import bdb
import subprocess
import sys
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from greenlet import greenlet

import greenctx
from greenctx import ContextSwitchingEnvironment, NotTheActiveContext, WrongThread, current_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import FrameType

Environment = ContextSwitchingEnvironment

HERE = Path(__file__).name


def in_environment(main: Callable[[Environment], object]) -> None:
    env = ContextSwitchingEnvironment()
    env.run_main_context(main, env)


def sleeper(env: Environment) -> Callable[[], None]:
    """An entrypoint that switches to main for ever."""

    def entrypoint() -> None:
        while True:
            env.switch_context(0)

    return entrypoint


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


class Unhashable(greenlet):
    """As it has an order of its own, say."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError

    __hash__ = None  # type: ignore[assignment]


def test_main_and_strangers_on_greenlets_that_have_no_hash() -> None:
    """Main may be on any greenlet, and any other be refused."""
    env = Environment()

    def stranger() -> None:
        with pytest.raises(NotTheActiveContext):
            env.create_context(print)

    def main() -> int:
        context = env.create_context(lambda: env.switch_context(0))
        env.switch_context(context)
        Unhashable(stranger).switch()
        nested = Environment()
        assert nested.run_main_context(lambda: nested.create_context(print)) == 1
        assert env.destroy_context(context)
        return env.active_context_id

    assert Unhashable(lambda: env.run_main_context(main)).switch() == 0


CALLS: dict[str, Callable[[Environment], object]] = {
    "active_context_id": lambda env: env.active_context_id,
    "create_context": lambda env: env.create_context(print),
    "switch_context to main": lambda env: env.switch_context(0),
    "switch_context to a suspended one": lambda env: env.switch_context(1),
    "switch_context to an unstarted one": lambda env: env.switch_context(2),
    "switch_context to none": lambda env: env.switch_context(99),
    "destroy_context of a suspended one": lambda env: env.destroy_context(1),
    "destroy_context of an unstarted one": lambda env: env.destroy_context(2),
    "destroy_context of none": lambda env: env.destroy_context(99),
    "destroy_context of main": lambda env: env.destroy_context(0),
}


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Callable[[Environment], object]:
    return CALLS[request.param]


# Threads.


class TestThreads:
    def test_every_call_from_another_thread_is_refused(self, call: Callable[[Environment], object]) -> None:
        """It raises WrongThread, which names both threads and the remedy, and changes nothing."""

        def main(env: Environment) -> None:
            env.switch_context(env.create_context(sleeper(env)))
            env.create_context(sleeper(env))
            before = repr(env)

            def intrude() -> None:
                with pytest.raises(
                    WrongThread, match="'home' but was called from thread 'intruder'; give each"
                ) as caught:
                    call(env)
                assert (caught.value.expected, caught.value.found) == ("home", "intruder")

            run_in_thread(intrude, "intruder")
            assert repr(env) == before == "<ContextSwitchingEnvironment active=0 suspended=[1, 2]>"
            assert env.create_context(print) == 3
            env.switch_context(1)
            assert env.active_context_id == 0

        run_in_thread(lambda: in_environment(main), "home")

    def test_a_call_while_a_context_is_active_is_refused(self, call: Callable[[Environment], object]) -> None:
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

    def test_a_greenlet_of_another_thread_is_refused(self, call: Callable[[Environment], object]) -> None:
        """So is a greenlet that runs in another thread."""

        def main(env: Environment) -> None:
            with pytest.raises(WrongThread):
                run_in_thread(lambda: greenlet(call).switch(env), "intruder")

        in_environment(main)

    def test_a_thread_that_runs_an_environment_of_its_own_is_refused(self) -> None:
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

    def test_run_main_context_from_another_thread_is_refused(self) -> None:
        """An environment that is running in one thread cannot be run in another."""

        def main(env: Environment) -> None:
            with pytest.raises(greenctx.EnvironmentAlreadyUsed, match="is running"):
                run_in_thread(lambda: env.run_main_context(print), "intruder")
            assert env.active_context_id == 0

        in_environment(main)

    def test_another_thread_has_no_current_environment(self) -> None:
        """current_environment() is refused in a thread that was started by a context."""

        def main(_: Environment) -> None:
            with pytest.raises(greenctx.NoEnvironment):
                run_in_thread(current_environment, "other")

        in_environment(main)

    def test_environments_in_parallel_do_not_disturb_each_other(self) -> None:
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


# Nested environments.


class TestNested:
    def test_in_main(self) -> None:
        """An environment within the main context of another: the inner one is current until it has ended."""

        def main(outer: Environment) -> None:
            def inner_main(inner: Environment) -> None:
                assert current_environment() is inner
                inner.switch_context(inner.create_context(sleeper(inner)))
                assert inner.active_context_id == 0

            in_environment(inner_main)
            assert current_environment() is outer
            assert outer.active_context_id == 0

        in_environment(main)

    def test_in_a_context(self) -> None:
        """An environment within a context of another: its main context is that context's greenlet, and may wait."""
        log: list[str] = []

        def main(outer: Environment) -> None:
            def inner_main(inner: Environment) -> None:
                context = inner.create_context(sleeper(inner))
                inner.switch_context(context)
                assert (inner.active_context_id, outer.active_context_id) == (0, 1)
                outer.switch_context(0)
                log.append("inner again")
                assert current_environment() is inner
                inner.switch_context(context)
                assert (inner.active_context_id, outer.active_context_id) == (0, 1)

            def entrypoint() -> None:
                in_environment(inner_main)
                assert current_environment() is outer
                log.append("inner ended")
                outer.switch_context(0)

            context = outer.create_context(entrypoint)
            outer.switch_context(context)
            assert current_environment() is outer
            outer.switch_context(context)
            assert log == ["inner again", "inner ended"]

        in_environment(main)

    def test_the_outer_one_refuses_the_contexts_of_the_inner_one(self, call: Callable[[Environment], object]) -> None:
        """A context of the inner environment is no context of the outer one: NotTheActiveContext, nothing changed."""

        def main(outer: Environment) -> None:
            outer.switch_context(outer.create_context(sleeper(outer)))
            outer.create_context(sleeper(outer))
            before = repr(outer)

            def inner_main(inner: Environment) -> None:
                def entrypoint() -> None:
                    with pytest.raises(NotTheActiveContext, match="context 0 is the active one"):
                        call(outer)
                    inner.switch_context(0)

                inner.switch_context(inner.create_context(entrypoint))

            in_environment(inner_main)
            assert repr(outer) == before

        in_environment(main)

    def test_the_inner_one_refuses_the_contexts_of_the_outer_one(self, call: Callable[[Environment], object]) -> None:
        """While the context with the inner environment is suspended, the others of the outer one may not call it."""

        def main(outer: Environment) -> None:
            inner = ContextSwitchingEnvironment()

            def inner_main() -> None:
                inner.switch_context(inner.create_context(sleeper(inner)))
                inner.create_context(sleeper(inner))
                outer.switch_context(0)

            outer.switch_context(outer.create_context(lambda: inner.run_main_context(inner_main)))
            before = repr(inner)
            with pytest.raises(NotTheActiveContext, match="context 0 is the active one"):
                call(inner)
            assert repr(inner) == before

        in_environment(main)

    def test_destroying_the_context_of_an_inner_environment_tears_it_down(self) -> None:
        """The cancellation of a context in which another environment runs destroys that one's contexts, too."""
        log: list[str] = []

        def main(outer: Environment) -> None:
            def inner_main(inner: Environment) -> None:
                def entrypoint() -> None:
                    try:
                        inner.switch_context(0)
                    finally:
                        log.append("inner context")

                inner.switch_context(inner.create_context(entrypoint))
                try:
                    outer.switch_context(0)
                finally:
                    log.append("inner main")

            context = outer.create_context(lambda: in_environment(inner_main))
            outer.switch_context(context)
            assert outer.destroy_context(context)
            assert log == ["inner main", "inner context"]
            assert current_environment() is outer

        in_environment(main)

    def test_an_error_of_an_inner_context_goes_up_through_both(self) -> None:
        """It arrives in the inner main, and from there in the outer one."""

        def main(outer: Environment) -> None:
            def inner_main(inner: Environment) -> None:
                def fail() -> None:
                    raise LookupError("from the inner context")

                inner.switch_context(inner.create_context(fail))

            with pytest.raises(LookupError, match="from the inner context"):
                outer.switch_context(outer.create_context(lambda: in_environment(inner_main)))
            assert outer.active_context_id == 0

        in_environment(main)

    def test_an_inner_cancellation_does_not_pass_for_the_outer_one(self) -> None:
        """A context's own ContextCanceled only ends that context silently; leaking out of another, it is an error."""

        def main(outer: Environment) -> None:
            caught: list[BaseException] = []

            def inner_main(inner: Environment) -> None:
                def entrypoint() -> None:
                    try:
                        inner.switch_context(0)
                    except greenctx.ContextCanceled as canceled:
                        caught.append(canceled)
                        raise

                context = inner.create_context(entrypoint)
                inner.switch_context(context)
                inner.destroy_context(context)
                raise caught[0]

            with pytest.raises(greenctx.ContextCanceled) as info:
                outer.switch_context(outer.create_context(lambda: in_environment(inner_main)))
            assert info.value is caught[0]

        in_environment(main)


# Generators, context managers, exceptions.


class TestLanguage:
    def test_a_generator_may_switch(self) -> None:
        """A generator that switches in its body waits there, in the context that runs it."""

        def main(env: Environment) -> None:
            def numbers() -> Generator[int]:
                for number in range(3):
                    env.switch_context(0)
                    yield number

            got: list[int] = []

            def entrypoint() -> None:
                got.extend(numbers())
                env.switch_context(0)

            context = env.create_context(entrypoint)
            for _ in range(4):
                env.switch_context(context)
            assert got == [0, 1, 2]

        in_environment(main)

    def test_a_generator_may_be_driven_by_several_contexts(self) -> None:
        """Contexts take turns in advancing one generator; while it waits in a switch, it is running already."""

        def main(env: Environment) -> None:
            def numbers() -> Generator[int]:
                yield 1
                yield 2
                env.switch_context(0)
                yield 3

            shared, got = numbers(), []

            def entrypoint() -> None:
                got.append(next(shared))
                env.switch_context(0)
                got.append(next(shared))
                env.switch_context(0)

            context = env.create_context(entrypoint)
            env.switch_context(context)
            got.append(next(shared))
            env.switch_context(context)
            with pytest.raises(ValueError, match="already executing"):
                next(shared)
            env.switch_context(context)
            assert got == [1, 2, 3]

        in_environment(main)

    def test_context_managers_span_switches(self) -> None:
        """`with` blocks of two contexts overlap without nesting, and each is left exactly once."""
        log: list[str] = []

        @contextmanager
        def noting(name: str) -> Iterator[None]:
            log.append(f"enter {name}")
            try:
                yield
            finally:
                log.append(f"leave {name}")

        def main(env: Environment) -> None:
            def entrypoint() -> None:
                with noting(str(env.active_context_id)):
                    env.switch_context(0)
                env.switch_context(0)

            one, two = env.create_context(entrypoint), env.create_context(entrypoint)
            for context in (one, two, one):
                env.switch_context(context)
            env.destroy_context(two)

        in_environment(main)
        assert log == ["enter 1", "enter 2", "leave 1", "leave 2"]

    def test_each_context_handles_its_own_exception(self) -> None:
        """sys.exc_info() is a context's own, and a bare `raise` after switches raises it."""
        log: list[object] = []

        def main(env: Environment) -> None:
            def entrypoint() -> None:
                log.append(sys.exception())
                try:
                    raise KeyError(env.active_context_id)
                except KeyError as error:
                    env.switch_context(0)
                    log.append(sys.exception() is error)
                    env.switch_context(0)
                    log.append(sys.exc_info()[1] is error)
                log.append(sys.exception())
                env.switch_context(0)

            one, two = env.create_context(entrypoint), env.create_context(entrypoint)
            try:
                raise LookupError
            except LookupError as error:
                mine = error
                for context in (one, two, two, one, one, two):
                    env.switch_context(context)
                    assert sys.exception() is mine
            assert sys.exception() is None

        in_environment(main)
        assert log == [None, None, True, True, True, None, True, None]

    def test_a_cancellation_does_not_show_in_the_destroyers_exc_info(self) -> None:
        """What a victim handles while it unwinds stays its own."""

        def main(env: Environment) -> None:
            context = env.create_context(sleeper(env))
            env.switch_context(context)
            try:
                raise LookupError
            except LookupError as error:
                mine = error
                env.destroy_context(context)
                assert sys.exception() is mine
            assert mine.__context__ is None

        in_environment(main)

    def test_each_context_starts_in_a_copy_of_its_creators_contextvars(self) -> None:
        """A context sees the values at its creation; what it sets is seen by nobody else, across all switches."""
        variable: ContextVar[str] = ContextVar("variable", default="default")
        log: list[str] = []

        def main(env: Environment) -> None:
            def entrypoint() -> None:
                log.append(variable.get())
                variable.set(f"set by {env.active_context_id}")
                env.switch_context(0)
                log.append(variable.get())
                env.switch_context(0)

            variable.set("at the creation of 1")
            one = env.create_context(entrypoint)
            variable.set("at the creation of 2")
            two = env.create_context(entrypoint)
            variable.set("main's")
            for context in (one, two, two, one):
                env.switch_context(context)
                assert variable.get() == "main's"

        in_environment(main)
        assert log == ["at the creation of 1", "at the creation of 2", "set by 2", "set by 1"]

    def test_cleanup_runs_in_the_victims_contextvars(self) -> None:
        """A destroyed context unwinds with its own values, not with its destroyer's."""
        variable: ContextVar[str] = ContextVar("variable", default="default")
        log: list[str] = []

        def main(env: Environment) -> None:
            def entrypoint() -> None:
                variable.set("the victim's")
                try:
                    env.switch_context(0)
                finally:
                    log.append(variable.get())

            context = env.create_context(entrypoint)
            env.switch_context(context)
            variable.set("main's")
            env.destroy_context(context)
            assert variable.get() == "main's"

        in_environment(main)
        assert log == ["the victim's"]


# Tracing, profiling, debugging.


class Events:
    """Names of this module's functions, as a trace or profile function is told of them."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        self.seen: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Events | None:
        if Path(frame.f_code.co_filename).name != HERE:
            return None
        if event in self.kinds:
            self.seen.append((event, frame.f_code.co_name))
        return self


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the trace and profile functions (coverage's, perhaps) back."""
    trace, profile = sys.gettrace(), sys.getprofile()
    try:
        yield
    finally:
        sys.settrace(trace)
        sys.setprofile(profile)


class TestTools:
    def scenario(self, env: Environment) -> None:
        def callee() -> None:
            pass

        def entrypoint() -> None:
            callee()
            env.switch_context(0)
            callee()
            env.switch_context(0)

        context = env.create_context(entrypoint)
        env.switch_context(context)
        env.switch_context(context)
        env.destroy_context(context)

    EXPECTED = (
        ("call", "entrypoint"),
        ("call", "callee"),
        ("return", "callee"),
        ("call", "callee"),
        ("return", "callee"),
        ("return", "entrypoint"),
    )

    def test_a_trace_function_follows_contexts(self) -> None:
        """sys.settrace in main sees the calls and returns in contexts, in the order in which they happen."""
        events = Events("call", "return")
        env = ContextSwitchingEnvironment()
        with undisturbed():
            sys.settrace(events)
            env.run_main_context(self.scenario, env)
            sys.settrace(None)
        assert [seen for seen in events.seen if seen[1] in ("entrypoint", "callee")] == list(self.EXPECTED)

    def test_a_profile_function_follows_contexts(self) -> None:
        """So does sys.setprofile."""
        events = Events("call", "return")
        env = ContextSwitchingEnvironment()
        with undisturbed():
            sys.setprofile(events)
            env.run_main_context(self.scenario, env)
            sys.setprofile(None)
        assert [seen for seen in events.seen if seen[1] in ("entrypoint", "callee")] == list(self.EXPECTED)

    def test_a_trace_function_set_in_a_context_traces_that_context(self) -> None:
        """sys.settrace in a context traces what that context calls from then on, also after a switch away and back."""
        events = Events("call")

        def main(env: Environment) -> None:
            def callee() -> None:
                pass

            def entrypoint() -> None:
                sys.settrace(events)
                callee()
                env.switch_context(0)
                callee()
                sys.settrace(None)
                env.switch_context(0)

            context = env.create_context(entrypoint)
            env.switch_context(context)
            env.switch_context(context)

        with undisturbed():
            in_environment(main)
        assert events.seen.count(("call", "callee")) == 2

    def test_breakpoints_stop_in_contexts(self) -> None:
        """A debugger (bdb) stops at a breakpoint in a context, each time, and sees that context's variables."""
        stops: list[object] = []

        class Debugger(bdb.Bdb):
            def user_line(self, frame: FrameType) -> None:
                if self.break_here(frame):
                    stops.append(frame.f_locals["name"])
                self.set_continue()

        def main(env: Environment) -> None:
            def callee(name: str) -> str:
                return name  # the breakpoint

            def entrypoint() -> None:
                for turn in range(2):
                    callee(f"context {env.active_context_id}, turn {turn}")
                    env.switch_context(0)
                env.switch_context(0)

            one, two = env.create_context(entrypoint), env.create_context(entrypoint)
            for context in (one, two, two, one):
                env.switch_context(context)

        source = Path(__file__).read_text().splitlines()
        line = next(number for number, text in enumerate(source, 1) if text.endswith("return name  # the breakpoint"))
        debugger = Debugger()
        assert debugger.set_break(__file__, line) is None
        with undisturbed():
            debugger.runcall(in_environment, main)
        debugger.clear_all_breaks()
        assert stops == [
            "context 1, turn 0",
            "context 2, turn 0",
            "context 2, turn 1",
            "context 1, turn 1",
        ]

    def test_stepping_over_a_switch_comes_back_after_it(self) -> None:
        """pdb's `next` over a switch_context goes on in the same context when somebody has switched back."""
        program = (
            "import greenctx\n"
            "env = greenctx.ContextSwitchingEnvironment()\n"
            "def entrypoint():\n"
            "    breakpoint()\n"
            "    value = 'before the switch'\n"
            "    env.switch_context(0)\n"
            "    value = 'after the switch'\n"
            "    env.switch_context(0)\n"
            "def main():\n"
            "    context = env.create_context(entrypoint)\n"
            "    env.switch_context(context)\n"
            "    print('main runs')\n"
            "    env.switch_context(context)\n"
            "    print('main ends')\n"
            "env.run_main_context(main)\n"
        )
        commands = "until 6\np value\nwhere\nnext\nnext\np value\np env.active_context_id\ncontinue\n"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            input=commands,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.index("'before the switch'") < done.stdout.index("main runs")
        assert done.stdout.index("main runs") < done.stdout.index("'after the switch'")
        assert done.stdout.index("'after the switch'") < done.stdout.index("main ends")


# asyncio.


class TestAsyncio:
    def test_an_environment_in_each_of_several_tasks(self) -> None:
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

    def test_an_event_loop_in_a_context(self) -> None:
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
            asyncio.events._set_running_loop(None)
            env.switch_context(context)

        in_environment(main)
        assert log == ["in the loop", "main", "in the loop again"]


def test_the_public_names_need_nothing_but_greenlet() -> None:
    """Importing greenctx imports neither wasmtime nor gevent nor asyncio."""
    code = "import sys, greenctx; print([m for m in ('wasmtime', 'gevent', 'asyncio') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
