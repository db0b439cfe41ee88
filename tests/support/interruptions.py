"""Interruptions at every point of the core: a book of the contexts' actions, and a wire that trips at a chosen point.

In every run the contexts keep a book of their entries and exits. Main catches each interruption, checks that
environment and book agree, and goes on to use the same environment.
"""

from __future__ import annotations

import _thread
import dis
import gc
import os
import signal
import sys
import traceback
from collections import defaultdict
from contextlib import contextmanager, nullcontext, suppress
from functools import cache, partial
from inspect import getclosurevars
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from greenlet import GreenletExit

import greenctx
from greenctx import ContextCanceled, ContextSwitchingEnvironment, SwitchTargetMissing
from greenctx._core.context import Context
from greenctx._reports.reporting_environment import _Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import CodeType, FrameType

    Run = Callable[[], object]

CORE = str(Path(greenctx.__file__).parent)
SIGNAL = signal.SIGALRM
STRIDE = int(os.environ.get("GREENCTX_INTERRUPTION_STRIDE", "5"))
"""At every how many points two interruptions begin; 1 in the long form."""


class CleanupError(Exception):
    """An error in a context's cleanup, which must be raised somewhere."""


class Book:
    """The actions of the contexts of one environment, by id.

    While interruptions may arrive, entries are written without a call (by assigning to an item of a long enough list).
    The interpreter looks for signals after calls, so the book itself is exact.
    """

    def __init__(self, env: ContextSwitchingEnvironment | None = None) -> None:
        self.env = env or ContextSwitchingEnvironment()
        self.entered = [0] * 512
        self.left = [0] * 512
        self.pings = [0] * 512
        """How often they went on after a switch."""
        self.destroyed = [False] * 512
        """Whether a context, or the end of main, began to destroy them."""
        self.errors: list[BaseException | None] = [None] * 512
        """The errors of their cleanup."""
        self.interruptions: list[BaseException] = []
        """Every KeyboardInterrupt that was raised."""
        self.caught: list[BaseException] = []
        """The errors that the test's code caught, those of run_main_context included."""
        self.calm = False
        """If set, resumed contexts only sleep again."""
        self.verified = False

    def create(self, body: Callable[[int], object], error: type[BaseException] | None = None) -> int:
        """Create a context that runs ``body`` between two entries in the book. ``error`` is raised as it leaves."""
        env, context_id = self.env, self.env._registry.next_id
        raised = None if error is None else error(f"from the cleanup of context {context_id}")

        def entrypoint() -> None:
            # A loop would not do in this `try`: on 3.13 the jump at its end is not covered by the `finally`.
            try:
                self.entered[context_id] += 1
                body(context_id)
            finally:
                self.left[context_id] += 1
                if raised is not None:
                    self.errors[context_id] = raised
                    raise raised

        created = env.create_context(entrypoint)
        assert created == context_id
        return created

    def switch(self, context_id: int, me: int = 0) -> None:
        self.env.switch_context(context_id)
        self.pings[me] += 1

    def destroy(self, context_id: int) -> None:
        self.destroyed[context_id] = True
        self.env.destroy_context(context_id)

    def sleep(self, context_id: int) -> NoReturn:
        """Body of a context: hand control back to main whenever it is switched to."""
        while True:
            self.switch(0, context_id)

    def attempt(self, operation: Callable[..., object], *args: object) -> None:
        """Main's way to do something that may be interrupted, or in which a context may end."""
        try:
            operation(*args)
        except (KeyboardInterrupt, CleanupError, GreenletExit, greenctx.GreenctxError) as error:
            self.caught += [error]

    def verify(self) -> None:
        """Verify, undisturbed and in main, that the environment agrees with the book and still works."""
        env = self.env
        self.calm = True
        ended = contexts_passed_by(self.interruptions)
        assert env.active_context_id == 0
        for context_id in range(1, env._registry.next_id):
            entered, left = self.entered[context_id], self.left[context_id]
            assert entered in (0, 1), f"context {context_id} was entered {entered} times"
            assert left in (0, entered), f"context {context_id} was left {left} times"
            pings = self.pings[context_id]
            if left:
                with pytest.raises(SwitchTargetMissing, match="has ended or was destroyed"):
                    env.switch_context(context_id)
                assert not env.destroy_context(context_id)
            elif entered:
                env.switch_context(context_id)
                assert self.pings[context_id] == pings + 1, f"context {context_id} did not go on where it waited"
            else:
                gone = self.destroyed[context_id] or context_id in ended
                assert gone or context_id in env._registry.unstarted, f"context {context_id} is lost"
            assert env.active_context_id == 0
        fresh = self.create(self.sleep)
        env.switch_context(fresh)
        env.switch_context(fresh)
        assert (self.entered[fresh], self.pings[fresh]) == (1, 1)
        assert env.destroy_context(fresh)
        assert self.left[fresh] == 1
        self.verified = True

    def verify_the_end(self) -> None:
        """After run_main_context: everything is torn down, and no error is lost.

        More than two interruptions within the end of main may lose an error, because a repair after an interruption can
        be interrupted itself. They lose no context.
        """
        for error in self.caught:
            if isinstance(error, AssertionError):
                raise error
        env = self.env
        assert self.entered == self.left, f"not left: {[i for i in range(512) if self.entered[i] != self.left[i]]}"
        assert max(self.left) <= 1
        assert not env._registry.ids()
        with pytest.raises(greenctx.EnvironmentNotRunning):
            env.switch_context(0)
        with pytest.raises(greenctx.NoEnvironment):
            greenctx.current_environment()
        if len(self.interruptions) > 2:
            return
        known = {id(error) for error in everything_in(self.caught)}
        lost = [error for error in (*self.interruptions, *self.errors) if error is not None and id(error) not in known]
        assert not lost, f"lost errors: {lost}, raised at {[where(e) for e in lost]}"


def contexts_passed_by(errors: list[BaseException]) -> set[int]:
    """The ids of the contexts that the errors ended: those whose code is in their tracebacks."""
    found = set()
    for error in errors:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code is getattr(Context.run, "__code__", None):  # which the compiled one has not
                found.add(frame.f_locals["self"].context_id)
            elif frame.f_code.co_name == "entrypoint" and frame.f_code.co_filename == __file__:
                found.add(frame.f_locals["context_id"])
            elif frame.f_code is _Observed.__call__.__code__:
                found.add(getclosurevars(frame.f_locals["self"].__wrapped__).nonlocals["context_id"])
    return found


def where(error: BaseException) -> list[str]:
    """The functions that the error passed, to show in a failure."""
    return [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]


def everything_in(errors: list[BaseException]) -> list[BaseException]:
    """The errors, those in their contexts and causes, and the members of groups."""
    found: dict[int, BaseException] = {}
    todo: list[BaseException | None] = [*errors]
    while todo:
        error = todo.pop()
        if error is not None and id(error) not in found:
            found[id(error)] = error
            todo += [error.__context__, error.__cause__]
            if isinstance(error, BaseExceptionGroup):
                todo += error.exceptions
    return list(found.values())


@contextmanager
def handling(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    before = signal.signal(SIGNAL, handler)
    try:
        yield
    finally:
        signal.signal(SIGNAL, before)


@cache
def points(code: CodeType) -> frozenset[int]:
    """The instructions before which a signal makes a difference.

    The interpreter looks for signals at the beginning of a function, at backward jumps and after calls of C code; and
    such a call may last (a greenlet switch) until other code returns or raises.
    """
    names = ("RESUME", "JUMP_BACKWARD", "CALL", "RETURN", "RAISE", "RERAISE")
    return frozenset(each.offset for each in dis.get_instructions(code) if each.opname.startswith(names))


class Tripwire:
    """Sends a signal just before the n-th of those points that the core comes by, another so many later, and so on.

    The interpreter then raises the KeyboardInterrupt where it really looks for signals, which differs between versions.
    Had the trace function raised it, it would come where none can.

    So the trace function must send the signal and end without a call, because its own calls would receive it; the item
    of a defaultdict is made without one.
    """

    def __init__(self, book: Book, gaps: list[int]) -> None:
        self.book = book
        self.gaps = gaps
        self.count = 0
        self.trip: defaultdict[int, None] = defaultdict(partial(_thread.interrupt_main, SIGNAL))

    def arm(self) -> None:
        # 3.12 looks only when tracing begins whether any frame is to be traced by instruction.
        frame = sys._getframe()
        frame.f_trace_opcodes = True
        sys.settrace(self.trace_call)
        while frame.f_back is not None:
            frame = frame.f_back
            if frame.f_code.co_filename.startswith(CORE):
                frame.f_trace, frame.f_trace_opcodes = self.trace_instruction, True

    def trace_call(self, frame: FrameType, _event: str, _arg: object) -> Any:
        if frame.f_code.co_filename.startswith(CORE):
            frame.f_trace_opcodes = True
            return self.trace_instruction
        return None

    def trace_instruction(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode" and self.gaps and frame.f_lasti in points(frame.f_code):
            self.count += 1
            if self.count == self.gaps[0]:
                sys.settrace(None)
                self.count = 0
                del self.gaps[0]
                return self.trip[len(self.gaps)]
        return self.trace_instruction

    def interrupt(self, _signal: int, _frame: FrameType | None) -> NoReturn:
        interruption = KeyboardInterrupt()
        self.book.interruptions.append(interruption)
        if self.gaps:
            self.arm()
        raise interruption


def plainly(env: ContextSwitchingEnvironment, main: Run) -> AbstractContextManager[Run]:
    return nullcontext(partial(env.run_main_context, main))


def run_script(
    script: Callable[[Book], None],
    gaps: list[int],
    *,
    failing: bool = False,
    make_book: Callable[[], Book] = Book,
    start: Callable[[ContextSwitchingEnvironment, Run], AbstractContextManager[Run]] = plainly,
) -> tuple[Book, list[int]]:
    """Run main of a scenario once, which may raise at the end; return the gaps for which the run was too short."""
    book = make_book()
    tripwire = Tripwire(book, gaps)

    def main() -> None:
        script(book)
        if not gaps and book.interruptions:
            book.verify()
        if failing:
            raise CleanupError("from main")

    # No collection: hypothesis watches those by a callback, in which Python would drop the KeyboardInterrupt.
    with start(book.env, main) as run, handling(tripwire.interrupt), no_collection():
        try:
            try:
                tripwire.arm()
                run()
            except BaseException as error:
                book.caught += [error]
            noop()
        except KeyboardInterrupt as late:
            book.caught += [late]
        finally:
            sys.settrace(None)
    book.verify_the_end()
    return book, gaps


@contextmanager
def no_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def noop() -> None:
    """Make a call, after which a pending signal arrives."""


def interrupt_at_every_point(run: Callable[[list[int]], tuple[Book, list[int]]]) -> None:
    """Run a script again and again, with an interruption before each of its points in turn."""
    verified = 0
    for n in range(1, 100_000):
        try:
            book, rest = run([n])
        except BaseException as error:
            error.add_note(f"with a signal before point {n} of the core")
            raise
        if rest:
            break
        assert len(book.interruptions) == 1
        verified += book.verified
    assert n > 500, "the core came by hardly any points: was it traced?"
    assert verified > 100
    print(f"{n - 1} points, in {verified} of which main went on")


def interrupt_twice_at_every_point(run: Callable[[list[int]], tuple[Book, list[int]]], gap: int) -> None:
    """Interrupt at every point in turn, with another interruption so many points later."""
    two = 0
    for n in range(1 + gap % STRIDE, 100_000, STRIDE):
        try:
            book, rest = run([n, gap])
        except BaseException as error:
            error.add_note(f"with a signal before point {n} of the core, and another {gap} later")
            raise
        if len(rest) == 2:
            break
        two += len(book.interruptions) == 2
    assert two > 400 / STRIDE


def interrupt_first_call(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    """Let a KeyboardInterrupt arrive in the next call of that function, and none later."""
    function: Callable[..., Any] = getattr(owner, name)

    def interrupted(*_: object) -> None:
        monkeypatch.setattr(owner, name, function)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, name, property(interrupted) if isinstance(function, property) else interrupted)


def script(book: Book) -> None:
    """Main of a scenario that touches all that the core does."""
    env, attempt = book.env, book.attempt

    def start_another(context_id: int) -> None:
        book.switch(book.create(book.sleep), context_id)
        book.sleep(context_id)

    def switch_on(context_id: int) -> None:
        book.switch(1, context_id)
        book.sleep(context_id)

    def clean_up(context_id: int) -> None:
        try:
            book.sleep(context_id)
        finally:
            try:
                book.destroy(1)
            finally:
                with suppress(ContextCanceled):  # once more; it would end the context silently, whatever was on its way
                    env.switch_context(1)

    def clean_up_at_the_end(context_id: int) -> None:
        try:
            book.sleep(context_id)
        finally:
            book.destroy(context_id + 1)

    attempt(lambda: book.switch(book.create(book.sleep)))
    attempt(lambda: book.switch(book.create(start_another)))
    attempt(lambda: book.switch(book.create(switch_on)))
    attempt(book.switch, 2)
    attempt(lambda: book.destroy(book.create(book.sleep)))
    attempt(lambda: book.switch(book.create(clean_up)))
    attempt(lambda: book.destroy(env._registry.next_id - 1))
    attempt(book.destroy, 2)
    for error in (CleanupError, GreenletExit):
        attempt(lambda error=error: book.switch(book.create(book.sleep, error)))
        attempt(lambda: book.destroy(env._registry.next_id - 1))
    attempt(lambda: book.switch(book.create(lambda _: None)))
    for _ in range(2):
        attempt(lambda: book.switch(book.create(clean_up_at_the_end)))
    attempt(lambda: book.switch(book.create(book.sleep, GreenletExit)))
    attempt(lambda: book.switch(book.create(book.sleep, CleanupError)))
    attempt(lambda: book.create(book.sleep))
