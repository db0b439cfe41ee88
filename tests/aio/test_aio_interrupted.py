"""A KeyboardInterrupt may arrive anywhere while an environment runs in a task: every context is unwound, none twice."""

from __future__ import annotations

import inspect
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import interruptions
import pytest
from interruptions import CleanupError, interrupt_at_every_point, interrupt_twice_at_every_point, run_script

from greenctx import ContextSwitchingEnvironment, await_

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator


class Step:
    """Awaits a turn of the loop below."""

    def __await__(self) -> Generator[None]:
        yield


class Book(interruptions.Book):
    """A book for contexts that await before and after they sleep, and while they unwind."""

    def sleep(self, context_id: int) -> NoReturn:
        try:
            while True:
                if not self.calm:
                    await_(Step())
                self.switch(0, context_id)
        finally:
            await_(Step())


def script(book: interruptions.Book) -> None:
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


def drive(coroutine: Coroutine[Any, Any, object]) -> None:
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


@contextmanager
def in_task(env: ContextSwitchingEnvironment, main: Callable[[], object]) -> Iterator[Callable[[], None]]:
    coroutine = env.run_main_context_async(main)
    with closing(coroutine):
        yield partial(drive, coroutine)


run_in_task = partial(run_script, script, make_book=Book, start=in_task)


@pytest.mark.parametrize(
    "failing",
    [pytest.param(False, id="main returns"), pytest.param(True, id="main raises", marks=pytest.mark.long)],
)
def test_an_interruption_at_every_point(failing: bool) -> None:
    """Wherever in the core it arrives, nothing is lost."""
    interrupt_at_every_point(partial(run_in_task, failing=failing))


@pytest.mark.parametrize(
    "gap", [1, 8, 12, *(pytest.param(gap, marks=pytest.mark.long) for gap in (3, 5, 7, 9, 10, 11, 13, 21))]
)
def test_two_interruptions_at_every_point(gap: int) -> None:
    """An interruption soon after another, while the first is dealt with, loses nothing either."""
    interrupt_twice_at_every_point(run_in_task, gap)
