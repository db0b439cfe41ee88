"""The bridge to an event loop: plain functions run inside of a task, and may await anywhere in their call stack.

An `AsyncRun` is a greenlet in which a plain function runs for a task (the main context of an environment, for example).
A context steps its awaitable on its own greenlet. So the awaitable sees the context's variables, and costs no greenlet
switch until it has to wait. Only a value that it yields to the event loop goes to the greenlet that steps the task. The
event loop's answer comes straight back. The task waits as a whole, for one thing at a time. Meanwhile no environment in
the run changes its state, nested ones included.

This module imports no event loop. An awaitable must be made for the event loop that steps the task.
"""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar, cast

from greenlet import GreenletExit, getcurrent, greenlet

from greenctx._core.bottom_frames import need_frames
from greenctx._core.context import MAIN
from greenctx._core.error_chains import append_context
from greenctx._core.scope import check_is_not_in_guest
from greenctx.errors import AlreadyAwaiting, ExitCarrier, NotInAsyncRun, ResumedWhileAwaiting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

T = TypeVar("T")

_GUARDS = 3
"""How many interruptions of its own code an `AsyncRun` survives. Each needs one more generator around its steps."""


def await_(awaitable: Awaitable[T]) -> T:
    """Await something in plain code, as ``await`` does in a coroutine. The event loop runs its other tasks meanwhile.

    Call this in any context of an environment that runs by ``run_main_context_async``, or in any host function of a
    program that runs by ``Program.run_async``. The environment is suspended as a whole, with the environments nested in
    it, until there is a result or an exception. An exception is raised here; so is `asyncio.CancelledError`, when the
    task is cancelled.

    Raises `NotInAsyncRun` anywhere else, `NotTheActiveContext` on a guest's fiber, and `AlreadyAwaiting` while another
    greenlet of the run awaits; nothing is awaited then. Raises `ResumedWhileAwaiting` if other code than the event loop
    resumes the calling greenlet.
    """
    try:
        run = _check(current_run())
        coroutine = _wait_for(awaitable)
    except BaseException:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # Python would warn that it was never awaited
        raise
    try:
        return _step_to_the_end(coroutine, run)
    finally:
        coroutine.close()  # it has ended, unless a signal interrupted this function itself


def current_run() -> AsyncRun | None:
    """Return the innermost run that the calling greenlet is in, if any."""
    # Found by the greenlet, not by a context variable, because tasks created in a run inherit its variables.
    me: greenlet | None = getcurrent()
    while me is not None and not isinstance(me, AsyncRun):
        me = me.parent
    return None if me is None or me.is_within_another_task() else me


def _current_task() -> object:
    """Return the asyncio task whose step is running, if any."""
    asyncio = cast("Any", sys.modules.get("asyncio"))
    get_running_loop = getattr(asyncio, "_get_running_loop", None)  # None also while another thread imports it
    loop = get_running_loop and get_running_loop()
    return loop and asyncio.current_task(loop)


async def run_in_task(function: Callable[[], T]) -> T:
    """Run a plain function on a greenlet of its own inside of the calling task, whose variables it shares."""
    need_frames(AsyncRun.run)
    return cast("T", await AsyncRun(function))


class AsyncRun(greenlet):
    """A greenlet that runs a function, to be awaited once.

    Its parent is the greenlet that steps the task. It is set at each step, because another greenlet may step the next.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        driver = getcurrent()
        super().__init__(parent=driver)
        self.gr_context = driver.gr_context  # not a copy: the function sees the task's own variables
        self.computes_since: float | None = None
        """Since when the run has not let the event loop run, as `greenctx.wasix` notes it. None: it just has."""
        self._task: object = None
        self._function = function
        self._result: object = None
        self._waiting: greenlet | None = self  # the greenlet that waits in `suspend`, or this before it starts
        self._yielded: object = None  # the value that the waiting greenlet yields to the event loop
        self._driver: greenlet | None = None  # the greenlet that steps this run, while it does
        self._closing = self._unreachable = False

    def run(self, _: object = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Run the function."""
        try:
            self._result = self._function()
        except GreenletExit as exit:  # greenlet would hand it to the parent as a result
            raise ExitCarrier(MAIN, exit) from exit

    def __await__(self) -> Generator[Any, Any, object]:
        """Step the run to its end. Exceptions that the event loop throws in are raised where the run waits."""
        try:
            return (yield from self._guarded(_GUARDS))
        except ExitCarrier as exited:
            exited.unwrap()

    def _guarded(self, guards: int) -> Generator[Any, Any, object]:
        """Step the run to its end, even if up to that many signals interrupt the code of this class."""
        try:
            return (yield from (self._guarded(guards - 1) if guards > 1 else self._steps(None)))
        except BaseException as error:
            if self.dead or self._unreachable:
                raise
            return (yield from self._steps(error))

    def _steps(self, error: BaseException | None) -> Generator[Any, Any, object]:
        # The run goes on while the error is still handled, so that an interruption has the error in its context.
        try:
            self._resume(None, error)
        finally:
            del error  # its traceback refers to this frame
        while not self.dead:
            try:
                answer = yield self._yielded
            except BaseException as raised:
                # GeneratorExit closes the coroutine: it must end, and must not wait again.
                self._closing = isinstance(raised, GeneratorExit)
                self._resume(None, raised)
            else:
                self._resume(answer, None)
        return self._result

    def _resume(self, answer: object, error: BaseException | None) -> None:
        """Let the run go on, until it awaits something or has ended."""
        driver = getcurrent()
        if self.parent is not driver:
            self._move_to(driver)
        waiting = self._waiting
        if waiting is None:
            error, waiting = ResumedWhileAwaiting(), self
        self.computes_since = None
        self._task = _current_task()
        # From here to the switch nothing is called, because an interruption would leave a run that waits nowhere.
        self._yielded = self._waiting = None
        self._driver = driver
        try:
            if error is None:
                waiting.switch(answer)
            else:
                waiting.throw(error.__class__, error, error.__traceback__)
        finally:
            self._driver = None
            del error

    def _move_to(self, driver: greenlet) -> None:
        try:
            self.parent = driver
        except ValueError as error:
            self._unreachable = True
            raise ResumedWhileAwaiting(f"could not go on where it was stepped: {error}") from error

    def is_within_another_task(self) -> bool:
        """Whether the running code belongs to another task: an eager task of this run, in its first step."""
        return self._driver is not None and self._task is not _current_task()

    def check(self) -> None:
        """Raise AlreadyAwaiting unless the event loop is stepping this run."""
        if self._driver is None:
            raise AlreadyAwaiting

    def suspend(self, yielded: object) -> object:
        """Yield something to the event loop; return or raise the event loop's answer."""
        self.check()
        if self._closing:
            raise GeneratorExit
        assert self._driver is not None
        me, handled = getcurrent(), sys.exception()
        try:
            self._yielded, self._waiting = yielded, me
            answer = self._driver.switch()
        except BaseException as error:
            if self._waiting is me:  # the error does not come from the event loop, which clears this first
                self._waiting = None
            append_context(error, handled)
            raise
        finally:
            # The chain of this exception may hold the error, whose traceback refers to this frame.
            del handled
        if self._waiting is me:
            self._waiting = None
            raise ResumedWhileAwaiting
        return answer


def _check(run: AsyncRun | None) -> AsyncRun:
    if run is None:
        raise NotInAsyncRun
    check_is_not_in_guest()  # a greenlet switch on a fiber would end the process
    run.check()
    return run


async def _wait_for(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _step_to_the_end(coroutine: Coroutine[Any, Any, T], run: AsyncRun) -> T:
    # A separate function, so that the `finally` of `await_` covers this loop's backward jump. CPython leaves that jump
    # out of the exception table of its own function (CPython issues 108214 and 130279).
    try:
        yielded = coroutine.send(None)
        while True:
            try:
                answer = run.suspend(yielded)
            except BaseException as error:
                yielded = coroutine.throw(error)
            else:
                yielded = coroutine.send(answer)
    except StopIteration as stop:
        return cast("T", stop.value)
