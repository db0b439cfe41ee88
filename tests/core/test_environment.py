"""The rules of an environment as a whole, a test each: running, creating, limits, who may call, what is current."""

from __future__ import annotations

import gc
import threading
from contextlib import suppress
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
from contexts import MAIN, end_four, go_to_main, guest_code, raises, start, state, suspended, then_main
from frames import frames
from greenlet import getcurrent, greenlet
from recorder import Recorder

from greenctx import (
    ContextSwitchingEnvironment,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    NoEnvironment,
    NotTheActiveContext,
    TooManyContexts,
    WrongThread,
    current_environment,
)
from greenctx._core.scope import NoContexts, admit_caller, current, current_context_id, of_this_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

CALLS: dict[str, Callable[[ContextSwitchingEnvironment], object]] = {
    "active_context_id": lambda env: env.active_context_id,
    "create_context": lambda env: env.create_context(list),
    "switch_context": lambda env: env.switch_context(1),
    "destroy_context": lambda env: env.destroy_context(1),
}
"""Everything that only the active context may call."""

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


class TestRunMainContext:
    def test_runs_main_with_its_arguments_and_returns_its_result(self, env: ContextSwitchingEnvironment) -> None:
        """run_main_context(main, *args) calls main(*args) and returns what it returns."""
        assert env.run_main_context(lambda *args: [*args], 1, "two", None) == [1, "two", None]

    def test_main_is_context_0_on_the_calling_greenlet(self, env: ContextSwitchingEnvironment) -> None:
        """Main is the greenlet that called run_main_context; it is the active context, id 0, from the beginning."""
        caller = getcurrent()

        def main() -> None:
            assert getcurrent() is caller
            assert env.active_context_id == 0
            assert env.main_context_id == 0

        env.run_main_context(main)

    def test_raises_what_main_raises(self, env: ContextSwitchingEnvironment, error: BaseException) -> None:
        """Main's own exception, of any type, propagates unchanged."""
        with pytest.raises(type(error)) as caught:
            env.run_main_context(raises(error))

        assert caught.value is error
        assert error.__context__ is None

    def test_traceback_of_main_has_one_frame_of_ours(self, env: ContextSwitchingEnvironment) -> None:
        """The traceback of main's exception goes from the caller through run_main_context to main's code."""
        with pytest.raises(ValueError, match="a") as caught:
            env.run_main_context(raises(ValueError("a")))

        assert frames(caught.value) == [
            "test_traceback_of_main_has_one_frame_of_ours",
            "run_main_context",
            "entrypoint",
        ]

    def test_refused_while_it_is_running(self, env: ContextSwitchingEnvironment) -> None:
        """run_main_context of a running environment raises EnvironmentAlreadyUsed, in main and in a context."""

        def run_again() -> None:
            with pytest.raises(EnvironmentAlreadyUsed, match=r"is running and runs only once; make a new") as caught:
                env.run_main_context(list)
            assert caught.value.state == "is running"

        def main() -> None:
            run_again()
            start(env, then_main(env, run_again))
            assert state(env) == (0, [1])

        env.run_main_context(main)

    @pytest.mark.parametrize("main", [list, raises(KeyError("a"))], ids=["main returned", "main raised"])
    def test_refused_a_second_time(self, env: ContextSwitchingEnvironment, main: Callable[[], object]) -> None:
        """An environment runs once, however main ended; another run raises EnvironmentAlreadyUsed."""
        with suppress(KeyError):
            env.run_main_context(main)

        with pytest.raises(EnvironmentAlreadyUsed, match=r"has run and runs only once; make a new") as caught:
            env.run_main_context(main)
        assert caught.value.state == "has run"

    def test_repr_tells_the_state(self, env: ContextSwitchingEnvironment) -> None:
        """The repr of an environment names the active and the suspended contexts, or why there are none."""

        def main() -> str:
            env.create_context(list)
            return repr(env)

        assert repr(env) == "<ContextSwitchingEnvironment that has not run yet>"
        assert env.run_main_context(main) == "<ContextSwitchingEnvironment active=0 suspended=[1]>"
        assert repr(env) == "<ContextSwitchingEnvironment that has ended>"


class TestCreate:
    def test_ids_count_up_from_1(self, env: ContextSwitchingEnvironment) -> None:
        """create_context returns 1, 2, 3 ..., whichever context creates."""

        def main() -> None:
            ids = [env.create_context(list), env.create_context(list)]
            start(env, then_main(env, lambda: ids.append(env.create_context(list))))
            assert ids == [1, 2, 4]

        env.run_main_context(main)

    def test_ids_are_never_reused(self, env: ContextSwitchingEnvironment) -> None:
        """The id of a context that was destroyed, returned or raised is not given to another."""

        def main() -> None:
            end_four(env)
            assert env.create_context(list) == 5

        env.run_main_context(main)

    def test_does_not_run_the_entrypoint(self, env: ContextSwitchingEnvironment) -> None:
        """A new context is suspended. The first switch to it calls its entrypoint, without arguments."""
        calls: list[tuple[object, ...]] = []

        def main() -> None:
            def entrypoint(*args: object) -> None:
                calls.append(args)
                env.switch_context(MAIN)

            context_id = env.create_context(entrypoint)
            assert calls == []
            assert state(env) == (0, [1])
            env.switch_context(context_id)
            assert calls == [()]

        env.run_main_context(main)

    @pytest.mark.parametrize("entrypoint", [None, 3, "list"])
    def test_entrypoint_must_be_callable(self, env: ContextSwitchingEnvironment, entrypoint: Any) -> None:
        """An entrypoint that cannot be called is a TypeError at once, and nothing was created."""

        def main() -> None:
            with pytest.raises(TypeError, match=f"must be callable, not {entrypoint!r}"):
                env.create_context(entrypoint)
            assert suspended(env) == []
            assert env.create_context(list) == 1

        env.run_main_context(main)

    def test_unstarted_and_suspended_contexts_outlive_the_collector(self, env: ContextSwitchingEnvironment) -> None:
        """The environment alone keeps its contexts; the garbage collector never unwinds one."""
        log: list[str] = []

        def entrypoint() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                log.append("unwound")

        def main() -> None:
            env.create_context(entrypoint)
            start(env, entrypoint)
            gc.collect()
            assert log == []
            assert suspended(env) == [1, 2]

        env.run_main_context(main)
        assert log == ["unwound"]


class TestMaxContexts:
    @pytest.mark.parametrize("limit", [0, 1, 3])
    def test_limits_the_contexts_besides_main(self, limit: int) -> None:
        """With max_contexts=N, N contexts may live besides main; one more is TooManyContexts and creates nothing."""
        env = ContextSwitchingEnvironment(max_contexts=limit)

        def main() -> None:
            for _ in range(limit):
                env.create_context(list)
            with pytest.raises(TooManyContexts, match=f"^{limit} contexts are alive.*destroy one first") as caught:
                env.create_context(list)
            assert caught.value.limit == limit
            assert suspended(env) == [*range(1, limit + 1)]

        env.run_main_context(main)

    def test_counts_those_that_live(self) -> None:
        """Each context counts until it has ended, whether by being destroyed, by returning or by raising."""
        env = ContextSwitchingEnvironment(max_contexts=1)

        def main() -> None:
            end_four(env)
            assert env.create_context(list) == 5

        env.run_main_context(main)

    def test_counts_every_state(self) -> None:
        """Unstarted, suspended and active contexts count, and so do one being destroyed and its destroyer."""
        env = ContextSwitchingEnvironment(max_contexts=4)
        refused: list[int] = []

        def try_to_create() -> None:
            try:
                env.create_context(list)
            except TooManyContexts:
                refused.append(env.active_context_id)

        def victim() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                try_to_create()

        def destroyer() -> None:
            try_to_create()
            env.destroy_context(3)
            env.switch_context(MAIN)

        def main() -> None:
            env.create_context(list)
            start(env, go_to_main(env))
            start(env, victim)
            start(env, destroyer)
            assert refused == [4, 3]
            assert env.create_context(list) == 5

        env.run_main_context(main)

    def test_counts_each_once_in_a_cleanup_inside_a_cleanup(self) -> None:
        """Main never counts. A context under destruction that destroys another counts once."""
        env = ContextSwitchingEnvironment(max_contexts=3)
        created: list[int] = []

        def fill() -> None:
            with suppress(TooManyContexts):
                while True:
                    created.append(env.create_context(list))

        def outer() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                env.destroy_context(2)

        def inner() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                fill()

        def main() -> None:
            start(env, outer)
            start(env, inner)
            env.destroy_context(1)
            assert created == [3]
            fill()
            assert created == [3, 4, 5]

        env.run_main_context(main)

    def test_no_limit_by_default(self, env: ContextSwitchingEnvironment) -> None:
        """Without max_contexts there is no limit."""

        def main() -> int:
            return [env.create_context(list) for _ in range(2000)][-1]

        assert env.run_main_context(main) == 2000

    def test_negative_limit(self) -> None:
        """A negative limit is a ValueError at once."""
        with pytest.raises(ValueError, match="must be None or at least 0, not -1"):
            ContextSwitchingEnvironment(max_contexts=-1)


class TestWhoMayCall:
    @each_call
    def test_not_before(
        self, env: ContextSwitchingEnvironment, call: Callable[[ContextSwitchingEnvironment], object]
    ) -> None:
        """Before run_main_context every call raises EnvironmentNotRunning."""
        with pytest.raises(EnvironmentNotRunning, match=r"^the environment has not run yet; .*within run") as caught:
            call(env)
        assert caught.value.state == "has not run yet"

    @each_call
    def test_not_after(
        self, env: ContextSwitchingEnvironment, call: Callable[[ContextSwitchingEnvironment], object]
    ) -> None:
        """After run_main_context every call raises EnvironmentNotRunning."""
        env.run_main_context(list)

        with pytest.raises(EnvironmentNotRunning, match=r"^the environment has ended; .*within run_main") as caught:
            call(env)
        assert caught.value.state == "has ended"

    @each_call
    def test_not_from_another_thread(
        self, env: ContextSwitchingEnvironment, call: Callable[[ContextSwitchingEnvironment], object]
    ) -> None:
        """Every call from another thread raises WrongThread, which names both; nothing has changed."""
        caught: list[WrongThread] = []

        def call_it() -> None:
            try:
                call(env)
            except WrongThread as error:
                caught.append(error)

        def main() -> None:
            start(env, go_to_main(env))
            before = repr(env)
            thread = threading.Thread(target=call_it, name="the other one")
            thread.start()
            thread.join()
            assert repr(env) == before

        env.run_main_context(main)
        here = threading.current_thread().name
        assert (caught[0].expected, caught[0].found) == (here, "the other one")
        assert f"runs in thread {here!r} but was called from thread 'the other one'" in str(caught[0])
        assert "give each thread an environment of its own" in str(caught[0])

    def test_a_thread_without_a_name_is_told_by_its_number(self, env: ContextSwitchingEnvironment) -> None:
        """WrongThread names a thread that the threading module does not know by its ident."""
        import _thread

        caught: list[WrongThread] = []
        ident: list[int] = []
        done = _thread.allocate_lock()
        done.acquire()

        def call_it() -> None:
            ident.append(_thread.get_ident())
            try:
                env.switch_context(MAIN)
            except WrongThread as error:
                caught.append(error)
            finally:
                done.release()

        def main() -> None:
            _thread.start_new_thread(call_it, ())
            done.acquire()

        env.run_main_context(main)
        assert caught[0].found == f"#{ident[0]}"

    @each_call
    def test_not_from_another_greenlet(
        self, env: ContextSwitchingEnvironment, call: Callable[[ContextSwitchingEnvironment], object]
    ) -> None:
        """A call from a greenlet without a context raises NotTheActiveContext, which names the active one."""

        def call_it() -> None:
            with pytest.raises(NotTheActiveContext, match=r"^context 1 is the active .* another greenlet") as caught:
                call(env)
            assert caught.value.context_id == 1
            assert caught.value.caller == "another greenlet"

        def entrypoint() -> None:
            before = repr(env)
            greenlet(call_it).switch()
            assert repr(env) == before
            env.switch_context(MAIN)

        env.run_main_context(lambda: start(env, entrypoint))

    @each_call
    def test_not_from_guest_code_on_its_fiber(
        self, env: ContextSwitchingEnvironment, call: Callable[[ContextSwitchingEnvironment], object]
    ) -> None:
        """While guest code runs on a fiber every call raises NotTheActiveContext, which says so; nothing has
        changed."""

        def main() -> None:
            start(env, go_to_main(env))
            before = repr(env)
            with guest_code(env):
                with pytest.raises(NotTheActiveContext, match=r"^context 0 is the active .* guest code") as caught:
                    call(env)
                assert caught.value.context_id == 0
                assert caught.value.caller == "guest code on its fiber"
                assert repr(env) == before
            assert env.active_context_id == MAIN

        env.run_main_context(main)

    @each_call
    def test_guest_code_may_not_call_an_outer_environment_either(
        self, env: ContextSwitchingEnvironment, call: Callable[[ContextSwitchingEnvironment], object]
    ) -> None:
        """Guest code in an inner environment may call neither that nor the outer ones, even where it is hidden."""
        inner = ContextSwitchingEnvironment()

        def inner_main() -> None:
            for innermost in (inner, NoContexts()):
                with guest_code(innermost):
                    for one in (env, inner):
                        with pytest.raises(NotTheActiveContext, match="guest code on its fiber"):
                            call(one)
                assert inner.active_context_id == env.active_context_id == MAIN

        env.run_main_context(lambda: inner.run_main_context(inner_main))

    @each_call
    def test_not_from_a_context_of_another_environment(
        self, env: ContextSwitchingEnvironment, call: Callable[[ContextSwitchingEnvironment], object]
    ) -> None:
        """A context of an inner environment may not call the outer one, whose active context is the inner's main."""
        inner = ContextSwitchingEnvironment()

        def inner_context() -> None:
            with pytest.raises(NotTheActiveContext, match=r"^context 0 is the active"):
                call(env)
            inner.switch_context(MAIN)

        env.run_main_context(lambda: inner.run_main_context(lambda: start(inner, inner_context)))


class TestCurrentEnvironment:
    def test_the_name_of_the_active_context(self) -> None:
        """An environment tells it without a check; where there are no contexts, it is that of the one around."""
        env = ContextSwitchingEnvironment()
        names = [env.active_name(), NoContexts().active_name()]

        def other() -> None:
            names.append(env.active_name())
            names.append(NoContexts().run(lambda: cast("NoContexts", current.get()).active_name()))
            env.switch_context(MAIN)

        def main() -> None:
            names.append(env.active_name())
            start(env, other)

        env.run_main_context(main)
        assert names == ["main", "main", "main", "other", "other"]

    def test_current_context_id(self, env: ContextSwitchingEnvironment) -> None:
        """current_context_id() is the id of the calling context; main's outside of any environment, or without
        contexts."""
        asked = [current_context_id()]

        def entrypoint() -> None:
            asked.append(current_context_id())
            asked.append(NoContexts().run(current_context_id))
            env.switch_context(0)

        def main() -> None:
            env.switch_context(env.create_context(entrypoint))
            asked.append(current_context_id())

        env.run_main_context(main)
        assert asked == [0, 1, 0, 0]

    @pytest.mark.parametrize("hidden", [False, True], ids=["an environment", "without contexts"])
    def test_of_this_thread(self, env: ContextSwitchingEnvironment, hidden: bool) -> None:
        """A thread that has inherited it with the context variables runs none of its contexts."""
        asked: list[object] = []

        def ask() -> None:
            asked.extend((current.get(), of_this_thread()))

        def ask_here_and_there() -> None:
            ask()
            thread = threading.Thread(target=copy_context().run, args=(ask,))
            thread.start()
            thread.join()

        def main() -> None:
            env.switch_context(env.create_context(then_main(env, ask_here_and_there)))

        ask()
        if hidden:
            without = NoContexts()
            env.run_main_context(without.run, ask_here_and_there)
            assert asked == [None, None, without, without, without, None]
        else:
            env.run_main_context(main)
            assert asked == [None, None, env, env, env, None]

    def test_admit_caller(self, env: ContextSwitchingEnvironment) -> None:
        """greenctx.wasix asks this before it calls a guest: it gets the scope, or the error that refuses the caller."""
        asked: list[object] = []

        def ask() -> None:
            asked.append(admit_caller())

        def ask_in_a_thread() -> None:
            thread = threading.Thread(target=copy_context().run, args=(ask,))
            thread.start()
            thread.join()

        def main() -> None:
            without = NoContexts()
            start(env, then_main(env, ask))
            with pytest.raises(NotTheActiveContext):
                greenlet(copy_context().run).switch(admit_caller)
            without.run(ask)
            without.run(ask_in_a_thread)
            assert asked == [None, env, without, None]

        ask()
        env.run_main_context(main)

    def test_none_outside(self) -> None:
        """current_environment() outside of any environment raises NoEnvironment, a LookupError, with the remedy."""
        with pytest.raises(NoEnvironment, match=r"no context-switching environment is running here; .*run_main"):
            current_environment()

    def test_in_main_and_in_contexts(self, env: ContextSwitchingEnvironment) -> None:
        """current_environment() is the environment of the calling code, in main and in every context."""
        asked: list[ContextSwitchingEnvironment] = []

        def ask() -> None:
            asked.append(current_environment())

        def creator() -> None:
            ask()
            env.create_context(then_main(env, ask))
            env.switch_context(MAIN)

        def main() -> None:
            ask()
            start(env, creator)
            env.switch_context(2)
            ask()

        env.run_main_context(main)
        assert asked == [env] * 4

    @pytest.mark.parametrize("main", [list, raises(KeyError("a"))], ids=["main returned", "main raised"])
    def test_none_after(self, env: ContextSwitchingEnvironment, main: Callable[[], object]) -> None:
        """After run_main_context, however it ended, there is no current environment again."""
        with suppress(KeyError):
            env.run_main_context(main)

        with pytest.raises(NoEnvironment):
            current_environment()

    def test_hidden(self, env: ContextSwitchingEnvironment) -> None:
        """NoContexts().run calls a function without a current environment, even within an environment."""

        def main() -> int:
            without = NoContexts()
            with pytest.raises(NoEnvironment):
                without.run(current_environment)
            without.admit(getcurrent())
            assert current_environment() is env
            return without.run(max, 1, 2)

        assert env.run_main_context(main) == 2
        assert NoContexts()._outer is None

    def test_nested(self, env: ContextSwitchingEnvironment) -> None:
        """Environments nest: inside it is the inner one, afterwards the outer one again."""
        inner = ContextSwitchingEnvironment()

        def main() -> None:
            inner.run_main_context(lambda: start(inner, in_inner))
            assert current_environment() is env

        def in_inner() -> None:
            assert current_environment() is inner
            assert inner.active_context_id == 1
            inner.switch_context(MAIN)

        env.run_main_context(main)


class TestContextVariables:
    def test_a_copy_of_the_creators(self, env: ContextSwitchingEnvironment) -> None:
        """A context starts with its creator's context variables as they were at create_context; what it sets stays
        its own."""
        variable = ContextVar("variable", default="unset")
        seen: list[str] = []

        def entrypoint() -> None:
            seen.append(variable.get())
            variable.set("by context")
            env.switch_context(MAIN)
            seen.append(variable.get())
            env.switch_context(MAIN)

        def main() -> None:
            variable.set("at creation")
            context_id = env.create_context(entrypoint)
            variable.set("later")
            env.switch_context(context_id)
            seen.append(variable.get())
            env.switch_context(context_id)

        env.run_main_context(main)
        assert seen == ["at creation", "later", "by context"]

    def test_creator_is_the_context_that_created_it(self, env: ContextSwitchingEnvironment) -> None:
        """A context created by a context has that one's variables, whoever starts it."""
        variable = ContextVar("variable", default="unset")
        seen: list[str] = []

        def entrypoint() -> None:
            seen.append(variable.get())
            env.switch_context(MAIN)

        def creator() -> None:
            variable.set("by creator")
            env.create_context(entrypoint)
            env.switch_context(MAIN)

        def main() -> None:
            start(env, creator)
            env.switch_context(2)

        env.run_main_context(main)
        assert seen == ["by creator"]


def test_coroutine_functions_are_refused(env: ContextSwitchingEnvironment) -> None:
    """Coroutine functions are refused at once as main or entrypoint, because a call runs none of their code."""

    async def coroutine() -> None: ...

    async def generator() -> AsyncIterator[int]:
        yield 1

    class Callable:
        async def __call__(self) -> None: ...

    said = r"must be a plain function, not a coroutine function .*calls greenctx\.await_, .* run_main_context_async"
    functions: list[Any] = [coroutine, partial(partial(coroutine)), generator, Callable(), Callable().__call__]
    for environment in (env, ContextSwitchingEnvironment(instruments=[Recorder()])):
        for function in functions:
            with pytest.raises(TypeError, match=f"main {said}"):
                environment.run_main_context(function)

        def main() -> None:
            for function in functions:
                with pytest.raises(TypeError, match=f"the entrypoint of a context {said}"):
                    environment.create_context(function)  # noqa: B023

        environment.run_main_context(main)  # nothing has changed
