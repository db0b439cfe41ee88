"""A KeyboardInterrupt may arrive anywhere while an environment runs in a task: every context is unwound, none twice."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from test_interruption import STRIDE, CleanupError, Tripwire, handling, noop
from test_interruption import Book as PlainBook

from greenctx import ContextSwitchingEnvironment, await_

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator


class Step:
    """Awaits a turn of the loop below."""

    def __await__(self) -> Generator[None]:
        yield


class Book(PlainBook):
    """The same for contexts that await before and after they sleep, and while they are unwound."""

    def sleep(self, context_id: int) -> NoReturn:
        try:
            while True:
                if not self.calm:
                    await_(Step())
                self.switch(0, context_id)
        finally:
            await_(Step())


def script(book: Book) -> None:
    """Main of a scenario that touches all that the bridge does."""
    attempt = book.attempt

    def wait(_: int) -> None:
        await_(Step())

    attempt(lambda: book.switch(book.create(book.sleep)))
    attempt(lambda: await_(Step()))
    attempt(lambda: book.switch(book.create(book.sleep)))
    attempt(book.switch, 1)
    attempt(book.destroy, 1)
    attempt(lambda: book.switch(book.create(wait)))
    attempt(lambda: book.switch(book.create(book.sleep, CleanupError)))


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """An event loop: an interruption that arrives in it is for the task that it steps, as in asyncio."""
    error: BaseException | None = None
    while inspect.getcoroutinestate(coroutine) != inspect.CORO_CLOSED:
        try:
            if error is None:
                coroutine.send(None)
            else:
                coroutine.throw(error)
            error = None
        except StopIteration:
            return
        except BaseException as raised:
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED:
                raise
            error = raised


def run_script(gaps: list[int], failing: bool) -> tuple[Book, list[int]]:
    """One run of the script; returns the gaps that it was too short for."""
    book = Book(ContextSwitchingEnvironment())
    tripwire = Tripwire(book, gaps)

    def main() -> None:
        script(book)
        if not gaps and book.interruptions:
            book.verify()
        if failing:
            raise CleanupError("from main")

    with handling(tripwire.interrupt):
        try:
            try:
                coroutine = book.env.run_main_context_async(main)
                tripwire.arm()
                drive(coroutine)
            except BaseException as error:
                book.caught += [error]
            noop()
        except KeyboardInterrupt as late:
            book.caught += [late]
        finally:
            sys.settrace(None)
    coroutine.close()
    book.verify_the_end()
    return book, gaps


@pytest.mark.parametrize("failing", [False, True], ids=["main returns", "main raises"])
def test_an_interruption_at_every_point(failing: bool) -> None:
    """Wherever in the core it arrives, nothing is lost."""
    verified = 0
    for n in range(1, 100_000):
        try:
            book, rest = run_script([n], failing)
        except BaseException as error:
            error.add_note(f"with a signal before point {n} of the core")
            raise
        if rest:
            break
        assert len(book.interruptions) == 1
        verified += book.verified
    assert n > 500, "the core came by hardly any points: was it traced?"
    assert verified > 100


@pytest.mark.parametrize("gap", [1, 3, 8, 21])
def test_two_interruptions_at_every_point(gap: int) -> None:
    """An interruption soon after another, while the first is dealt with, loses nothing either."""
    two = 0
    for n in range(1 + gap % STRIDE, 100_000, STRIDE):
        try:
            book, rest = run_script([n, gap], failing=False)
        except BaseException as error:
            error.add_note(f"with a signal before point {n} of the core, and another {gap} later")
            raise
        if len(rest) == 2:
            break
        two += len(book.interruptions) == 2
    assert two > 400 / STRIDE
