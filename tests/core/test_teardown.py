"""Errors are never lost: what run_main_context raises when main and the contexts' cleanup raise."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, raises, start
from frames import frames
from greenlet import GreenletExit

from greenctx import CancellationSwallowed, ContextCanceled
from greenctx._core.error_chains import append_context, chain_errors, raise_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx import ContextSwitchingEnvironment

MESSAGE = "errors of contexts that were destroyed at the end of main"


def waits_then(env: ContextSwitchingEnvironment, cleanup: Callable[[], object]) -> Callable[[], None]:
    """An entrypoint that waits in main until it is destroyed, and then, with that caught, does the cleanup."""

    def entrypoint() -> None:
        with suppress(ContextCanceled):
            env.switch_context(MAIN)
        cleanup()

    return entrypoint


def run(
    env: ContextSwitchingEnvironment, cleanups: list[Callable[[], object]], end: Callable[[], object] = list
) -> None:
    """Run a main that starts a context for each cleanup, then ends."""

    def main() -> None:
        for cleanup in cleanups:
            start(env, waits_then(env, cleanup))
        end()

    env.run_main_context(main)


def chain(error: BaseException) -> list[BaseException]:
    """The error, its context, and so on."""
    links = [error]
    while (context := links[-1].__context__) is not None:
        assert all(context is not link for link in links)
        links.append(context)
    return links


class TestMainReturned:
    def test_one_error_comes_out_as_itself(self, env: ContextSwitchingEnvironment, error: BaseException) -> None:
        """If main returned and one cleanup raised, run_main_context raises that very exception, of any type."""
        with pytest.raises(type(error)) as caught:
            run(env, [raises(error)])

        assert caught.value is error
        assert chain(error) == [error]

    def test_a_swallowed_cancellation_is_an_error(self, env: ContextSwitchingEnvironment) -> None:
        """A context that swallows its cancellation at the end of main is told of."""
        with pytest.raises(CancellationSwallowed, match="context 1 caught"):
            run(env, [list])

    def test_several_errors_are_a_group_in_order(self, env: ContextSwitchingEnvironment) -> None:
        """Several errors, of whatever type, are raised as one group, in ascending order of their contexts' ids."""
        errors = [ValueError(1), GreenletExit(2), ContextCanceled(3), GeneratorExit(4)]

        with pytest.raises(BaseExceptionGroup) as caught:
            run(env, [raises(error) for error in errors])

        assert caught.value.message == MESSAGE
        assert list(caught.value.exceptions) == errors
        assert chain(caught.value) == [caught.value]

    def test_a_group_of_plain_exceptions_is_one(self, env: ContextSwitchingEnvironment) -> None:
        """If all of them are Exceptions, so is the group."""
        with pytest.raises(ExceptionGroup):
            run(env, [raises(ValueError(1)), raises(KeyError(2))])

    @pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
    @pytest.mark.parametrize("position", [0, 1, 2])
    def test_an_interruption_stays_one(
        self, env: ContextSwitchingEnvironment, interruption: BaseException, position: int
    ) -> None:
        """A KeyboardInterrupt or SystemExit among several errors is raised itself, with the others in its context."""
        interruption = type(interruption)(*interruption.args)
        others = [ValueError(1), GreenletExit(2)]
        errors = [*others[:position], interruption, *others[position:]]

        with pytest.raises(type(interruption)) as caught:
            run(env, [raises(error) for error in errors])

        assert caught.value is interruption
        [_, group] = chain(interruption)
        assert isinstance(group, BaseExceptionGroup)
        assert list(group.exceptions) == others

    def test_of_two_interruptions_the_first_comes_out(self, env: ContextSwitchingEnvironment) -> None:
        """Of several interruptions the first is raised; the other is in its context."""
        first, second = SystemExit(1), KeyboardInterrupt(2)

        with pytest.raises(SystemExit) as caught:
            run(env, [raises(first), raises(second)])

        assert caught.value is first
        [_, group] = chain(first)
        assert isinstance(group, BaseExceptionGroup)
        assert list(group.exceptions) == [second]

    def test_tracebacks_are_whole(self, env: ContextSwitchingEnvironment) -> None:
        """Each error in a group keeps its traceback: few frames of ours, then the context's own."""

        def tidy() -> None:
            raise ValueError

        with pytest.raises(ExceptionGroup) as caught:
            run(env, [tidy, tidy])

        assert frames(caught.value) == ["test_tracebacks_are_whole", "run", "run_main_context", "raise_errors"]
        for error in caught.value.exceptions:
            assert frames(error) == ["_destroy_each", "destroy_context", "_cancel", "run", "entrypoint", "tidy"]


class TestMainRaised:
    def test_mains_error_comes_out_with_the_others_in_its_context(
        self, env: ContextSwitchingEnvironment, error: BaseException
    ) -> None:
        """Main's exception, of any type, is raised unchanged, with all cleanup errors as a group in its context."""
        others = [ValueError(1), KeyboardInterrupt(2)]

        with pytest.raises(type(error)) as caught:
            run(env, [raises(other) for other in others], end=raises(error))

        assert caught.value is error
        [_, group] = chain(error)
        assert isinstance(group, BaseExceptionGroup)
        assert group.message == MESSAGE
        assert list(group.exceptions) == others

    def test_a_single_cleanup_error_is_a_group_too(self, env: ContextSwitchingEnvironment) -> None:
        """Beside main's exception even one cleanup error is in a group."""
        other = ValueError(1)

        with pytest.raises(KeyError) as caught:
            run(env, [raises(other)], end=raises(KeyError()))

        [_, group] = chain(caught.value)
        assert isinstance(group, ExceptionGroup)
        assert list(group.exceptions) == [other]

    def test_without_cleanup_errors_nothing_is_added(self, env: ContextSwitchingEnvironment) -> None:
        """Without cleanup errors main's exception propagates unchanged."""
        with pytest.raises(KeyError) as caught:
            run(env, [lambda: env.switch_context(MAIN)], end=raises(KeyError()))

        assert chain(caught.value) == [caught.value]

    def test_the_group_is_at_the_end_of_the_chain(self, env: ContextSwitchingEnvironment) -> None:
        """The group comes after the contexts that main's exception has already."""

        def end() -> None:
            try:
                raise ZeroDivisionError
            finally:
                raise KeyError

        with pytest.raises(KeyError) as caught:
            run(env, [raises(ValueError(1))], end=end)

        assert [type(link) for link in chain(caught.value)] == [KeyError, ZeroDivisionError, ExceptionGroup]

    def test_an_error_that_main_let_out_is_told_once(self, env: ContextSwitchingEnvironment) -> None:
        """An exception of a context that main did not catch is main's exception; the rest is destroyed after it."""
        error = ValueError(1)

        with pytest.raises(ValueError, match="1") as caught:
            run(env, [raises(KeyError(2))], end=lambda: start(env, raises(error)))

        assert caught.value is error
        assert [type(link) for link in chain(error)] == [ValueError, ExceptionGroup]

    def test_traceback_is_whole(self, env: ContextSwitchingEnvironment) -> None:
        """The traceback of main's exception is what it was."""

        def end() -> None:
            raise KeyError

        with pytest.raises(KeyError) as caught:
            run(env, [raises(ValueError(1))], end=end)

        assert frames(caught.value) == ["test_traceback_is_whole", "run", "run_main_context", "main", "end"]


class TestNestedCleanup:
    """Contexts destroyed inside the cleanup of others."""

    def test_an_error_goes_to_the_context_that_destroyed(
        self, env: ContextSwitchingEnvironment, error: BaseException
    ) -> None:
        """An error of a cleanup inside another's cleanup is raised there, and then by the outer destroy_context."""

        def outer() -> None:
            env.destroy_context(1)

        def inner() -> None:
            raise error

        def main() -> None:
            start(env, waits_then(env, inner))
            start(env, waits_then(env, outer))
            with pytest.raises(type(error)) as caught:
                env.destroy_context(2)
            assert caught.value is error
            assert chain(error) == [error]
            ours = ["destroy_context", "unwrap"] if isinstance(error, GreenletExit) else ["destroy_context", "_cancel"]
            assert frames(error) == ["main", *ours, "run", "entrypoint", "outer", *ours, "run", "entrypoint", "inner"]

        env.run_main_context(main)

    def test_each_error_is_told_once_at_the_end_of_main(self, env: ContextSwitchingEnvironment) -> None:
        """At the end of main, an error in the cleanup of a context destroyed inside another's cleanup is not lost
        beside the other's own."""
        inner, outer, third = ValueError("inner"), ValueError("outer"), ValueError("third")

        def cleanup() -> None:
            try:
                env.destroy_context(2)
            finally:
                raise outer

        with pytest.raises(ExceptionGroup) as caught:
            run(env, [cleanup, raises(inner), raises(third)])

        assert list(caught.value.exceptions) == [outer, third]
        assert chain(outer) == [outer, inner]

    def test_a_chain_of_cleanups(self, env: ContextSwitchingEnvironment) -> None:
        """Each context destroys the next in its cleanup; the first destroy raises the error of the last."""
        last = ValueError("last")

        def destroy(context_id: int) -> Callable[[], object]:
            return lambda: env.destroy_context(context_id)

        with pytest.raises(ValueError, match="last") as caught:
            run(env, [*(destroy(context_id) for context_id in range(2, 20)), raises(last)])

        assert caught.value is last
        assert frames(last).count("<lambda>") == 18


class TestChains:
    """The functions behind it, with chains that code can make but rarely does."""

    def test_a_ring_of_contexts_does_not_hang(self) -> None:
        """If the chain of contexts is a ring, its last link before it closes gets the group."""
        first, second, other = ValueError(1), ValueError(2), ValueError(3)
        first.__context__, second.__context__ = second, first

        chain_errors(first, [other])

        assert [type(link) for link in chain(first)] == [ValueError, ValueError, ExceptionGroup]

    def test_a_ring_elsewhere_in_the_chain_does_not_hang(self) -> None:
        """If the chain of contexts runs into a ring, nothing in it is lost either."""
        first, second, third, other = ValueError(1), ValueError(2), ValueError(3), ValueError(4)
        first.__context__, second.__context__, third.__context__ = second, third, second

        chain_errors(first, [other])

        assert [repr(link) for link in chain(first)[:3]] == [repr(first), repr(second), repr(third)]
        assert isinstance(third.__context__, ExceptionGroup)

    def test_main_lets_out_a_ring(self, env: ContextSwitchingEnvironment) -> None:
        """A ring of contexts in main's exception, beside cleanup errors, neither hangs nor loses any."""
        first, second = ValueError(1), KeyError(2)
        first.__context__, second.__context__ = second, first

        with pytest.raises(ValueError, match="1") as caught:
            run(env, [raises(ValueError(3))], end=raises(first))

        assert [type(link) for link in chain(caught.value)] == [ValueError, KeyError, ExceptionGroup]

    def test_what_is_in_the_chain_is_not_told_again(self) -> None:
        """An error in the chain, or in a group in it, is not put there a second time."""
        first, second, third = ValueError(1), ValueError(2), ValueError(3)
        group = ExceptionGroup("group", [second])
        first.__context__ = group

        chain_errors(first, [first, second])
        assert chain(first) == [first, group]

        chain_errors(first, [first, second, third])
        assert chain(first)[:2] == [first, group]
        last = chain(first)[2]
        assert isinstance(last, ExceptionGroup)
        assert list(last.exceptions) == [third]

    def test_an_error_whose_context_is_in_the_chain_makes_no_ring(self) -> None:
        """An error that was raised while the first was handled does not lead back to it from the group."""
        first, other = ValueError(1), ValueError(2)
        other.__context__ = first

        chain_errors(first, [other])

        [_, group] = chain(first)
        assert isinstance(group, ExceptionGroup)
        assert list(group.exceptions) == [other]
        assert chain(other) == [other]

    def test_a_context_is_appended_once(self) -> None:
        """append_context puts an exception at the end of the chain, and leaves a chain as it is that has it."""
        first, second, third = ValueError(1), ValueError(2), ValueError(3)
        first.__context__ = second

        append_context(first, third)
        append_context(first, second)
        append_context(first, first)
        append_context(first, None)

        assert chain(first) == [first, second, third]

    def test_no_errors_raise_nothing(self) -> None:
        """Without errors nothing is raised."""
        raise_errors([])

    def test_an_interruption_is_raised_with_the_others_in_its_context(self) -> None:
        """raise_errors puts the others into the context of an interruption, once."""
        interruption, other = KeyboardInterrupt(), ValueError()

        with pytest.raises(KeyboardInterrupt):
            raise_errors([other, interruption])

        [_, group] = chain(interruption)
        assert isinstance(group, ExceptionGroup)
        assert list(group.exceptions) == [other]

    @pytest.mark.timeout(300)  # looking at each pair would take hours
    def test_many_errors_take_linear_time(self) -> None:
        """Very many cleanup errors are raised together, without comparing each with each."""
        errors: list[BaseException] = [ValueError(number) for number in range(200_000)]
        first = KeyError()

        chain_errors(first, errors)
        chain_errors(first, errors)

        [_, group] = chain(first)
        assert isinstance(group, ExceptionGroup)
        assert list(group.exceptions) == errors
