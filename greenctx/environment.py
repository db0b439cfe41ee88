"""ContextSwitchingEnvironment: the core, with instruments, dumps of what the contexts do, and event loops."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from greenctx._core.aio import run_in_task
from greenctx._core.environment import Environment
from greenctx._core.plain_functions import check_is_no_coroutine
from greenctx._core.scope import current
from greenctx.errors import NoEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenctx._reports.snapshot import ContextInfo

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ContextSwitchingEnvironment(Environment):
    """A set of contexts (call stacks), one of which runs at a time, and which switch to one another by id.

    `run_main_context` makes the calling greenlet the main context, id 0. Only the code of the active context may call
    the other methods. A call from another thread raises `WrongThread`; from another greenlet, or from guest code on its
    fiber, `NotTheActiveContext`; outside of `run_main_context`, `EnvironmentNotRunning`. Such a call changes nothing.
    """

    __slots__ = ()

    def __init__(self, *, max_contexts: int | None = None, instruments: Iterable[object] = ()) -> None:
        """``max_contexts`` limits how many contexts are alive at any one time, besides main; None is no limit.

        ``instruments`` are told what the contexts do (see `greenctx.Instrument`). An environment without instruments
        pays nothing for them. If the logger ``greenctx`` is enabled for DEBUG by now, it is one of them.
        """
        super().__init__(max_contexts)
        instruments = [*instruments]
        if "logging" in sys.modules:  # importing it takes long, and enables no logger
            import logging

            if logging.getLogger("greenctx").isEnabledFor(logging.DEBUG):
                from greenctx._reports.log import Log

                instruments.append(Log())
        if instruments:
            from greenctx._reports.reporting_environment import report_to

            report_to(self, instruments)

    async def run_main_context_async(self, main: Callable[[*Ts], T], *args: *Ts) -> T:
        """Do what `run_main_context` does inside of the calling task: contexts may call `greenctx.await_`.

        Main runs on a greenlet of its own, and shares the task's context variables. When the task is cancelled,
        `asyncio.CancelledError` is raised in the context that awaits, and goes from there to main as any other
        exception does. While contexts unwind they may await again.
        """
        result = await run_in_task(lambda: self.run_main_context(main, *args))
        check_is_no_coroutine("main", result)
        return result

    def contexts(self) -> list[ContextInfo]:
        """Return main and every context that has not ended, in ascending order of id; none before and after the run.

        This may be called from anywhere: another thread, a signal handler, an instrument. Called from another thread,
        the result may mix two moments, if contexts switch, are created or are destroyed meanwhile.
        """
        from greenctx._reports.snapshot import describe_contexts

        return describe_contexts(self)

    def format_stacks(self, *, own_frames: bool = False) -> str:
        """Return the contexts and the Python stack of each as text, the most recent call last, as in a traceback.

        This may be called from anywhere, as `contexts` may. If a guest is suspended in a host function, the function's
        name stands for the guest's frames: wasmtime shows only the frames of a trap.

        Frames of this package are left out unless ``own_frames`` asks for them.
        """
        from greenctx._reports.snapshot import format_stacks

        return format_stacks(self, sys._getframe(1), own_frames)


def current_environment() -> ContextSwitchingEnvironment:
    """Return the environment in whose contexts the calling code runs: the innermost one where they nest.

    Raises `NoEnvironment` outside of any ``run_main_context``.
    """
    scope = current.get()
    if not isinstance(scope, ContextSwitchingEnvironment):
        raise NoEnvironment
    return scope
