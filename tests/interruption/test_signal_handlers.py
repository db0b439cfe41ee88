"""A signal's handler that calls the environment, wherever in the core it is served."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from greenlet import GreenletExit
from interruptions import Book, CleanupError, Tripwire, handling

import greenctx

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class Visit(Tripwire):
    """The signal's handler raises nothing: it calls the environment."""

    def __init__(self, book: Book, at: int, visit: Callable[[Book], None]) -> None:
        super().__init__(book, [at])
        self.visit = visit

    def interrupt(self, _signal: int, _frame: FrameType | None) -> None:  # type: ignore[override]
        with suppress(greenctx.GreenctxError):  # it may be called before main begins, and in a canceled context
            self.visit(self.book)


def create_another(book: Book) -> None:
    made = book.env.create_context(lambda: book.sleep(0))
    assert made in book.env._registry.unstarted


def destroy_all(book: Book) -> None:
    for context_id in range(1, book.env._registry.next_id):
        book.destroyed[context_id] = True
        with suppress(greenctx.GreenctxError, CleanupError, GreenletExit):
            book.env.destroy_context(context_id)


def start_all(book: Book) -> None:
    for context_id in [*book.env._registry.unstarted]:
        with suppress(greenctx.GreenctxError, CleanupError, GreenletExit):
            if book.env.active_context_id == 0:
                book.env.switch_context(context_id)


@pytest.mark.parametrize("visit", [create_another, destroy_all, start_all])
def test_a_signal_handler_may_call_the_environment_at_every_point(visit: Callable[[Book], None]) -> None:
    """Whatever it creates, destroys or starts while an operation is under way: no id is given twice, no end is late."""
    for n in range(1, 100_000):
        book = Book()
        tripwire = Visit(book, n, visit)
        with handling(tripwire.interrupt):
            try:
                tripwire.arm()
                book.env.run_main_context(script_of_starts_and_ends, book)
            except BaseException as error:
                error.add_note(f"with a signal before point {n} of the core")
                raise
            finally:
                sys.settrace(None)
        assert not book.env._registry.ids()
        assert max(book.entered) <= 1
        assert book.entered == book.left
        if tripwire.gaps:
            break
    assert n > 60, "the core came by hardly any points: was it traced?"


def script_of_starts_and_ends(book: Book) -> None:
    """Main of a scenario of what a handler may meddle with."""
    env = book.env

    def attempt(call: Callable[[], object]) -> None:
        with suppress(greenctx.GreenctxError):
            call()

    def create(body: Callable[[int], object]) -> int:
        context_id = 0

        def entrypoint() -> None:
            try:
                book.entered[context_id] += 1
                body(context_id)
            finally:
                book.left[context_id] += 1

        context_id = env.create_context(entrypoint)
        return context_id

    def start_another(context_id: int) -> None:
        attempt(lambda: env.switch_context(create(book.sleep)))
        book.sleep(context_id)

    for body in (book.sleep, start_another, book.sleep):
        attempt(lambda body=body: env.switch_context(create(body)))  # type: ignore[misc]
    for context_id in range(1, env._registry.next_id):
        attempt(lambda context_id=context_id: env.destroy_context(context_id))  # type: ignore[misc]
    ids = [create(book.sleep) for _ in range(3)]
    attempt(lambda: env.destroy_context(ids[0]))
    attempt(lambda: env.switch_context(ids[1]))
    assert len({*ids}) == 3


def test_a_context_that_is_created_while_another_is_has_an_id_of_its_own(
    env: greenctx.ContextSwitchingEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler within create_context creates a context: both contexts exist, with different ids."""
    created: list[int] = []

    def time_and_handler() -> float:
        if not created:
            created.append(0)
            created[0] = env.create_context(list)
        return 0.0

    def main() -> None:
        monkeypatch.setattr("greenctx._core.context.monotonic", time_and_handler)
        created.append(env.create_context(list))
        assert sorted(env._registry.unstarted) == [1, 2]

    env.run_main_context(main)
    assert created == [1, 2]
