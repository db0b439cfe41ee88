"""Nested environments, and calls by greenlets that are not contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contexts import each_call, in_environment, sleeper
from greenlet import greenlet

import greenctx
from greenctx import ContextSwitchingEnvironment, NotTheActiveContext, current_environment

if TYPE_CHECKING:
    from collections.abc import Callable

Environment = ContextSwitchingEnvironment


class Unhashable(greenlet):
    """A greenlet with its own ``__eq__``, and so without a hash."""

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


def test_in_main() -> None:
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


def test_in_a_context() -> None:
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


@each_call
def test_the_outer_one_refuses_the_contexts_of_the_inner_one(call: Callable[[Environment], object]) -> None:
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


@each_call
def test_the_inner_one_refuses_the_contexts_of_the_outer_one(call: Callable[[Environment], object]) -> None:
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


def test_destroying_the_context_of_an_inner_environment_tears_it_down() -> None:
    """Cancelling a context in which another environment runs destroys the other environment's contexts, too."""
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


def test_an_error_of_an_inner_context_goes_up_through_both() -> None:
    """The error is raised in the inner main, and from there in the outer one."""

    def main(outer: Environment) -> None:
        def inner_main(inner: Environment) -> None:
            def fail() -> None:
                raise LookupError("from the inner context")

            inner.switch_context(inner.create_context(fail))

        with pytest.raises(LookupError, match="from the inner context"):
            outer.switch_context(outer.create_context(lambda: in_environment(inner_main)))
        assert outer.active_context_id == 0

    in_environment(main)


def test_an_inner_cancellation_does_not_pass_for_the_outer_one() -> None:
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
