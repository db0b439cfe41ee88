"""The rules of switch_context, and of entrypoints that end, a test each."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, end_four, raises, start, state, suspended, then_main
from frames import frames
from greenlet import GreenletExit, getcurrent

from greenctx import (
    ContextCanceled,
    ContextEntrypointReturned,
    ContextSwitchingEnvironment,
    SwitchTargetMissing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class TestSwitch:
    def test_a_context_goes_on_where_it_waits(self, env: ContextSwitchingEnvironment) -> None:
        """switch_context returns None when another context switches back, and the stack is as it was."""
        log: list[object] = []

        def entrypoint() -> None:
            for letter in "abc":
                log.append(letter)
                log.append(env.switch_context(MAIN))  # type: ignore[func-returns-value]

        def main() -> None:
            context_id = env.create_context(entrypoint)
            for number in range(3):
                log.append(number)
                assert env.switch_context(context_id) is None  # type: ignore[func-returns-value]

        env.run_main_context(main)
        assert log == [0, "a", 1, None, "b", 2, None, "c"]

    def test_contexts_switch_to_one_another(self, env: ContextSwitchingEnvironment) -> None:
        """Any context may switch to any other; the one that runs is the active one, the others are suspended."""
        log: list[tuple[int, list[int]]] = []

        def note() -> None:
            log.append(state(env))

        def first() -> None:
            note()
            env.switch_context(2)
            note()
            env.switch_context(MAIN)

        def second() -> None:
            note()
            env.switch_context(1)

        def main() -> None:
            env.create_context(first)
            env.create_context(second)
            note()
            env.switch_context(1)
            note()

        env.run_main_context(main)
        assert log == [(0, [1, 2]), (1, [0, 2]), (2, [0, 1]), (1, [0, 2]), (0, [1, 2])]

    def test_to_oneself_is_a_no_op(self, env: ContextSwitchingEnvironment) -> None:
        """A switch to oneself returns at once, in main and in a context."""
        log: list[int] = []

        def to_oneself() -> None:
            before = repr(env)
            env.switch_context(env.active_context_id)
            assert repr(env) == before
            log.append(env.active_context_id)

        def main() -> None:
            to_oneself()
            start(env, then_main(env, to_oneself))

        env.run_main_context(main)
        assert log == [0, 1]

    @pytest.mark.parametrize("target", [-1, 6, 10**30])
    def test_to_an_id_that_was_never_created(self, env: ContextSwitchingEnvironment, target: int) -> None:
        """A switch to an id that no context ever had raises SwitchTargetMissing; nothing has changed."""
        self.check_missing(env, target, "was never created")

    @pytest.mark.parametrize("target", [1, 2, 3, 4], ids=["unstarted, destroyed", "destroyed", "returned", "raised"])
    def test_to_a_context_that_has_ended(self, env: ContextSwitchingEnvironment, target: int) -> None:
        """A switch to a context that was destroyed or has ended raises SwitchTargetMissing; nothing has changed."""
        self.check_missing(env, target, "has ended or was destroyed")

    def check_missing(self, env: ContextSwitchingEnvironment, target: int, state: str) -> None:
        def switch() -> None:
            before = repr(env)
            with pytest.raises(SwitchTargetMissing) as caught:
                env.switch_context(target)
            assert caught.value.context_id == target
            assert str(caught.value) == (
                f"cannot switch to context {target}: it {state}; "
                "switch to an id that create_context returned and whose context has not ended"
            )
            assert caught.value.__context__ is None  # where other errors may have to go
            assert repr(env) == before

        def main() -> None:
            end_four(env)
            switch()
            start(env, then_main(env, switch))

        env.run_main_context(main)

    def test_a_missing_target_keeps_the_context_of_the_caller(self, env: ContextSwitchingEnvironment) -> None:
        """An error of a misuse inside an except block has that block's exception as its context, as usual."""

        @contextmanager
        def switching_at_the_end() -> Iterator[None]:
            try:
                yield
            finally:
                env.switch_context(1)

        def main() -> None:
            with pytest.raises(SwitchTargetMissing) as caught, switching_at_the_end():
                raise ZeroDivisionError
            assert isinstance(caught.value.__context__, ZeroDivisionError)

        env.run_main_context(main)

    def test_from_a_context_that_somebody_else_resumed(self, env: ContextSwitchingEnvironment) -> None:
        """A context that a bare greenlet switch resumed is the active one from then on, and may switch; the one that
        was active is suspended."""

        def main() -> None:
            seen: list[list[int]] = []
            third = env.create_context(then_main(env, lambda: seen.append(suspended(env))))
            other = env.create_context(getcurrent().switch)
            env.switch_context(other)
            env.switch_context(third)
            assert seen == [[0, other]]

        env.run_main_context(main)

    def test_from_a_context_that_was_resumed_while_it_waited_elsewhere(self, env: ContextSwitchingEnvironment) -> None:
        """A context resumed while it waits elsewhere becomes the active one at its next call."""
        seen: list[list[int]] = []

        def main() -> None:
            main_greenlet = getcurrent()

            def other() -> None:
                main_greenlet.switch()
                env.switch_context(third)

            third = env.create_context(then_main(env, lambda: seen.append(suspended(env))))
            start(env, other)
            assert suspended(env) == [1, 2]
            env._registry.started[2].greenlet.switch()
            assert seen == [[0, 2]]

        env.run_main_context(main)

    def test_can_be_foretold(self, env: ContextSwitchingEnvironment) -> None:
        """can_switch_to, which greenctx.wasix asks, tells whether a switch would be SwitchTargetMissing."""

        def foretell() -> list[bool]:
            return [env.can_switch_to(target) for target in (MAIN, 1, 2, 3, 4)]

        told: list[list[bool]] = []

        def cleanup() -> None:
            try:
                env.switch_context(MAIN)
            finally:
                told.append(foretell())

        def main() -> None:
            env.destroy_context(env.create_context(list))
            env.create_context(list)
            start(env, cleanup)
            told.append(foretell())

        env.run_main_context(main)
        assert told == [[True, False, True, True, False], [True] * 5]  # the last would be canceled, whatever the target

    @pytest.mark.skipif(sys.gettrace() is not None, reason="Python ends the tracing for a RecursionError in it")
    def test_starting_is_flat(self, env: ContextSwitchingEnvironment) -> None:
        """A context has what main has left of the recursion limit, however deep the one was that started it."""

        def depth(so_far: int = 1) -> int:
            try:
                return depth(so_far + 1)
            except RecursionError:
                return so_far

        def deeply(frames: int, call: Callable[[], object]) -> None:
            deeply(frames - 1, call) if frames else call()

        depths: dict[int, int] = {}

        def measure() -> None:
            depths[env.active_context_id] = depth()
            env.switch_context(MAIN)

        def starts_the_fourth() -> None:
            env.switch_context(MAIN)
            deeply(400, lambda: env.switch_context(4))

        def main() -> None:
            start(env, measure)
            env.create_context(measure)
            start(env, lambda: deeply(400, lambda: env.switch_context(2)))
            # Main was in destroy_context meanwhile, and does not start a context before it is to start the next.
            env.create_context(measure)
            starter = start(env, starts_the_fourth)
            env.destroy_context(2)
            env.switch_context(starter)

        env.run_main_context(main)
        # The frame at which RecursionError is raised varies a little, by the calls of the environment.
        assert abs(depths[1] - depths[2]) < 20
        assert abs(depths[1] - depths[4]) < 20

    def test_an_exception_that_is_being_handled_stays_with_its_context(self, env: ContextSwitchingEnvironment) -> None:
        """A context's exception is not chained to an exception that another context is handling."""

        def main() -> None:
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                with pytest.raises(ValueError, match="a") as caught:
                    start(env, raises(ValueError("a")))
                assert caught.value.__context__ is None

        env.run_main_context(main)


class TestEntrypointEnds:
    def test_returning_is_an_error_in_main(self, env: ContextSwitchingEnvironment) -> None:
        """When an entrypoint returns, main resumes with ContextEntrypointReturned, exit_code 129; the context has
        ended."""

        def main() -> None:
            with pytest.raises(ContextEntrypointReturned, match="the entrypoint of context 1 returned") as caught:
                start(env, list)
            assert caught.value.context_id == 1
            assert caught.value.exit_code == 129
            assert state(env) == (0, [])

        env.run_main_context(main)

    def test_main_resumes_whoever_switched(self, env: ContextSwitchingEnvironment) -> None:
        """The end of an entrypoint resumes main, also when another context switched to it; that one stays
        suspended."""

        def main() -> None:
            env.create_context(list)
            with pytest.raises(ContextEntrypointReturned) as caught:
                start(env, lambda: env.switch_context(1))
            assert caught.value.context_id == 1
            assert state(env) == (0, [2])

        env.run_main_context(main)

    @pytest.mark.parametrize("started", [False, True], ids=["at its start", "after a switch"])
    def test_raising_resumes_main_with_the_exception(
        self, env: ContextSwitchingEnvironment, error: BaseException, started: bool
    ) -> None:
        """When an entrypoint raises, main resumes with that very exception, of whatever type; the context has
        ended."""

        def entrypoint() -> None:
            if started:
                env.switch_context(MAIN)
            raise error

        def main() -> None:
            context_id = env.create_context(entrypoint)
            if started:
                env.switch_context(context_id)
            with pytest.raises(type(error)) as caught:
                env.switch_context(context_id)
            assert caught.value is error
            assert error.__context__ is None
            assert state(env) == (0, [])
            assert env.destroy_context(context_id) is False

        env.run_main_context(main)

    @pytest.mark.parametrize(
        ("error", "ours"),
        [
            (ValueError("a"), ["switch_context", "run"]),
            (GreenletExit("b"), ["switch_context", "unwrap", "run"]),
            (ContextCanceled(1), ["switch_context", "unwrap", "run"]),
        ],
        ids=repr,
    )
    def test_traceback_is_whole(self, env: ContextSwitchingEnvironment, error: BaseException, ours: list[str]) -> None:
        """The traceback in main goes from main's switch_context on into the frames of the context's code."""

        def inner() -> None:
            raise error

        def entrypoint() -> None:
            inner()

        def main() -> None:
            env.create_context(entrypoint)
            env.switch_context(1)

        with pytest.raises(type(error)) as caught:
            env.run_main_context(main)

        assert frames(caught.value) == [
            "test_traceback_is_whole",
            "run_main_context",
            "main",
            *ours,
            "entrypoint",
            "inner",
        ]

    def test_an_end_that_the_environment_does_not_see(self, env: ContextSwitchingEnvironment) -> None:
        """Contexts that end while main waits for them elsewhere have ended for the environment as well."""

        def main() -> None:
            main_greenlet = getcurrent()
            for _ in range(3):
                start(env, main_greenlet.switch)
            for context_id in (1, 2, 3):
                with pytest.raises(ContextEntrypointReturned):
                    env._registry.started[context_id].greenlet.switch()
            assert env.active_context_id == MAIN
            assert suspended(env) == []

        env.run_main_context(main)

    def test_own_context_of_an_exit_is_kept(self, env: ContextSwitchingEnvironment) -> None:
        """A GreenletExit that was raised while another exception was handled keeps that as its context."""

        def entrypoint() -> None:
            try:
                raise ZeroDivisionError
            except ZeroDivisionError:
                raise GreenletExit  # noqa: B904

        def main() -> None:
            with pytest.raises(GreenletExit) as caught:
                start(env, entrypoint)
            assert isinstance(caught.value.__context__, ZeroDivisionError)

        env.run_main_context(main)
