"""Language features across switches: generators, context managers, exceptions, context variables."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
from contexts import in_environment, sleeper

from greenctx import ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

Environment = ContextSwitchingEnvironment


def test_a_generator_may_switch() -> None:
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


def test_a_generator_may_be_driven_by_several_contexts() -> None:
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


def test_context_managers_span_switches() -> None:
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


def test_each_context_handles_its_own_exception() -> None:
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


def test_a_cancellation_does_not_show_in_the_destroyers_exc_info() -> None:
    """The exception that a victim handles while it unwinds stays its own."""

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


def test_each_context_starts_in_a_copy_of_its_creators_contextvars() -> None:
    """A context sees the values at its creation; no other context sees the values that it sets, across all switches."""
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


def test_cleanup_runs_in_the_victims_contextvars() -> None:
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
