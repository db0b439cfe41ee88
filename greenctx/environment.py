"""ContextSwitchingEnvironment: create contexts, switch between them, destroy them. Its state is in state.py."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from greenlet import getcurrent

from greenctx._core.aio import check_is_plain, run_in_task
from greenctx._core.context import Context, main_context, new_context
from greenctx._core.error_chains import append_context, chain_errors, raise_errors
from greenctx._core.exited import ContextExited
from greenctx._core.registry import MAIN
from greenctx._core.scope import current
from greenctx._core.state import EnvironmentState
from greenctx._core.switching import COMPILED, Switching
from greenctx.errors import (
    Cancellation,
    ContextCanceled,
    DestroyNotAllowed,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    SwitchTargetMissing,
    TooManyContexts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenlet import greenlet

    from greenctx._reports.snapshot import ContextInfo

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ContextSwitchingEnvironment(EnvironmentState):
    """A set of contexts (call stacks), one of which runs at a time, and which switch to one another by id.

    `run_main_context` makes the calling greenlet the main context, id 0. Only the code of the active context may call
    the other methods. From another thread that is `WrongThread`; from another greenlet, or from guest code on its
    fiber, `NotTheActiveContext`; outside of `run_main_context`, `EnvironmentNotRunning`. Such a call changes nothing.
    """

    __slots__ = ()

    main_context_id = MAIN

    def __init__(self, *, max_contexts: int | None = None, instruments: Iterable[object] = ()) -> None:
        """``max_contexts`` limits the contexts alive at any one time, besides main; None is no limit.

        ``instruments`` are told what the contexts do (see `greenctx.Instrument`). Without any, nothing looks whether
        there are some. If the logger ``greenctx`` is enabled for DEBUG by now, it is one of them.
        """
        if max_contexts is not None and max_contexts < 0:
            raise ValueError(f"max_contexts must be None or at least 0, not {max_contexts!r}")
        super().__init__()
        self._max_contexts = max_contexts
        instruments = [*instruments]
        if "logging" in sys.modules:  # which takes long to import; until somebody does, nothing is enabled
            import logging

            if logging.getLogger("greenctx").isEnabledFor(logging.DEBUG):
                from greenctx._reports.log import Log

                instruments.append(Log())
        if instruments:
            from greenctx._reports.reporting_environment import instrument

            instrument(self, instruments)

    def run_main_context(self, main: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run ``main(*args)`` as context 0 on the calling greenlet; return what it returns.

        When main ends, by returning or by raising, every remaining context is destroyed, in ascending order of id.
        Main's own exception comes out as itself; errors of the contexts' cleanup are a `BaseExceptionGroup` at the end
        of its ``__context__`` chain. If main returned, one such error comes out as itself and several as a group; but
        `KeyboardInterrupt`, `SystemExit` and `asyncio.CancelledError` as themselves, with the others in their context.

        Raises `EnvironmentAlreadyUsed` when the environment is running, or has run.
        """
        if self._state != "has not run yet":
            raise EnvironmentAlreadyUsed("is running" if self._main else "has run")
        outer = current.get()
        errors: list[BaseException] = []
        try:
            self._thread_id = threading.get_ident()
            self._is_plain = COMPILED and type(self).switch_context is Switching.switch_context
            me = getcurrent()
            if outer is not None and outer._encloses(me):
                self._outer = outer
            context = main_context(self, me)
            current.set(self)
            self._state = "is running"
            self._main = self._active = self._started[MAIN] = context
            self._caller = me
            try:
                result = main(*args)
            finally:
                self._destroy_remaining(errors)
            raise_errors(errors)
        except BaseException as error:
            # An interruption may have left some contexts or errors, and another one may do so right here.
            try:
                self._destroy_remaining(errors)
                chain_errors(error, errors)
            except BaseException as interruption:
                self._destroy_remaining(errors)
                chain_errors(interruption, errors)
                raise
            raise
        else:
            return result
        finally:
            self._main = self._caller = self._active = None  # the caller is never without an active context
            self._started = self._registry.started = {}
            self._outer = None
            self._state = "has ended"
            current.set(outer)
            errors.clear()  # their tracebacks refer to this frame

    async def run_main_context_async(self, main: Callable[[*Ts], T], *args: *Ts) -> T:
        """The same inside of the calling task, on a greenlet of its own: its contexts may call `greenctx.await_`.

        Main shares the task's context variables. When the task is cancelled, `asyncio.CancelledError` is raised in the
        context that awaits, and goes from there to main as any other exception; what the contexts do while they unwind
        may await again.
        """
        result = await run_in_task(lambda: self.run_main_context(main, *args))
        check_is_plain(result)
        return result

    def create_context(self, entrypoint: Callable[[], object]) -> int:
        """Create a suspended context and return its id: 1, 2, 3 ..., never used again.

        ``entrypoint`` is called without arguments when the context is first switched to, in a copy of the creator's
        `contextvars` context. It must not return (main would get `ContextEntrypointReturned`); what it raises is raised
        in main.

        Raises `TooManyContexts` at ``max_contexts``, `EnvironmentNotRunning` also while the environment is torn down.
        """
        me = getcurrent()
        if me is not self._caller:
            self._admit(me)
        if self._state == "is being torn down":
            raise EnvironmentNotRunning(self._state)
        if not callable(entrypoint):
            raise TypeError(f"the entrypoint of a context must be callable, not {entrypoint!r}")
        assert self._main is not None
        registry = self._registry
        if self._max_contexts is not None and registry.count_live(self._main) >= self._max_contexts:
            raise TooManyContexts(self._max_contexts)
        context = new_context(self, entrypoint, self._main)
        # Now, not before: a signal's handler, or a finalizer, may have created another context in those calls.
        context.context_id = context_id = registry.next_id
        registry.next_id = context_id + 1
        registry.unstarted[context_id] = registry.by_greenlet[context.greenlet] = context
        return context_id

    def switch_context(self, context_id: int) -> None:
        """Suspend the active context and resume that one; return when somebody switches back.

        Switching to oneself does nothing. Raises `SwitchTargetMissing` if no context is suspended under that id, and
        `ContextCanceled` if the calling context is being destroyed. In main, raises what the entrypoint of another
        context raised, and `ContextEntrypointReturned` if one returned.
        """
        caller = getcurrent()
        if caller is not self._caller:
            self._admit(caller)
            self._check_is_not_canceled()
        me: Any = self._active
        if (target := self._started.get(context_id)) is not None:
            its = resumed = target.greenlet
        else:
            target, its, resumed = self._find_target(context_id, me)
        self._active = target
        self._caller = its
        try:
            resumed.switch()
            if self._caller is not caller:
                self._resumed_unasked(me)
            return
        except ContextExited as error:
            self._adopt(me)
            error.unwrap()
        except BaseException:
            self._adopt(me)
            raise

    if COMPILED:  # pragma: no cover
        _switch_slowly = switch_context
        switch_context = Switching.switch_context

    def destroy_context(self, context_id: int) -> bool:
        """Destroy a suspended context; return True when it is gone, False if no context is suspended under that id.

        `ContextCanceled` is raised where it waits; it unwinds and ends before this returns. A context that never ran is
        dropped without a call of its entrypoint.

        Raises `DestroyNotAllowed` for main and for the active context; `CancellationSwallowed` if the entrypoint caught
        the cancellation and returned; and whatever else the entrypoint raised while it unwound (it is gone then, too).
        """
        caller = getcurrent()
        if caller is not self._caller:
            self._admit(caller)
        me, registry = self._active, self._registry
        assert me is not None
        if context_id in registry.unstarted:
            unstarted = registry.unstarted[context_id]
            del registry.unstarted[context_id], registry.by_greenlet[unstarted.greenlet]
            unstarted.greenlet = None
            return True
        victim = self._started.get(context_id)
        if victim is None:
            victim = registry.unwinding.get(context_id)
        if victim is me or context_id == MAIN:
            raise DestroyNotAllowed(context_id)
        if victim is None or registry.is_destroying(victim):
            return False
        handled = sys.exception()
        try:
            # Once, unless somebody else resumes this greenlet while the victim waits in its cleanup.
            while not victim.has_ended:
                self._cancel(victim, me)
        except ContextExited as error:
            append_context(error.exit, handled)
            error.unwrap()
        except BaseException as error:
            append_context(error, handled)
            raise
        finally:
            del handled  # into whose chain the error may come, whose traceback refers to this frame
        return True

    def contexts(self) -> list[ContextInfo]:
        """Main and every context that has not ended, in ascending order of id; none unless the environment is running.

        This may be called from anywhere: another thread, a signal handler, an instrument. From another thread it is of
        one moment only if no context is being switched to, created or destroyed in that.
        """
        from greenctx._reports.snapshot import describe_contexts

        return describe_contexts(self)

    def format_stacks(self) -> str:
        """The contexts and the Python stack of each, as text: the most recent call last, as in a traceback.

        This may be called from anywhere, as `contexts`. Where a guest is suspended in a call of a host function, the
        name of that function stands for the guest's frames: wasmtime tells those of a trap only.
        """
        from greenctx._reports.snapshot import format_stacks

        return format_stacks(self, sys._getframe(1))

    def _find_target(self, context_id: int, me: Context) -> tuple[Context, greenlet, greenlet]:
        """Start of a context: itself, its greenlet, and the greenlet to resume so that it begins to run."""
        assert self._main is not None
        registry = self._registry
        if context_id not in registry.unstarted:
            raise SwitchTargetMissing(context_id, registry.describe(context_id))
        target = registry.unstarted[context_id]
        its = target.greenlet
        self._started[context_id] = target
        del registry.unstarted[context_id]
        if me is self._main:
            self._main_can_start_others = True  # wherever it was when somebody switched to it
        if me is self._main or not self._main_can_start_others:
            return target, its, its
        # A greenlet begins at its starter's depth, of recursion and of the native stack: a chain of starts would
        # overflow. So main, which waits in its own switch_context, is resumed to start it (_resumed_unasked).
        return target, its, self._main.greenlet

    def _resumed_unasked(self, me: Context) -> None:
        """Go on in ``me``, which was resumed without having been made the active context."""
        while me is self._main and (active := self._active) is not None and not active.has_started:
            if self._active is active:  # no signal's handler has destroyed it in that call
                active.greenlet.switch()
        self._adopt(me)

    def _cancel(self, victim: Context, me: Context) -> None:
        """Throw the cancellation into a suspended context; return or raise when ``me`` is resumed."""
        victim_id, my_id = victim.context_id, me.context_id
        started, unwinding = self._started, self._registry.unwinding
        cancellation = victim.cancellation or Cancellation()
        canceled = ContextCanceled(victim_id, cancellation)
        former, former_id, its = me, my_id, victim.greenlet
        assert its is not None
        if victim.destroyer is not None:
            former = victim.destroyer
            former_id = former.context_id
        try:
            unwinding[victim_id] = victim
            if victim_id in started:
                del started[victim_id]
            if former_id not in unwinding:  # it waited for the same end, until somebody else resumed me: suspended now
                started[former_id] = former
            if my_id in started:  # to resume a destroyer before its victim has ended would be wrong
                del started[my_id]
            if me is self._main:
                self._main_can_start_others = False
            its.parent, victim.destroyer = me.greenlet, me  # to the parent greenlet returns when the victim ends
            victim.cancellation = cancellation
            self._active, self._caller = victim, None
            if COMPILED:  # pragma: no cover
                victim.cancel(self, canceled)
            else:
                its.throw(canceled)
        finally:
            if victim.destroyer is me and not its.dead:
                assert self._main is not None
                its.parent, victim.destroyer = self._main.greenlet, None
            self._adopt(me)

    def _destroy_remaining(self, errors: list[BaseException]) -> None:
        """Destroy every context that is left, collecting the errors, interruptions among them.

        Nothing is called outside of the `try`, so that it takes an interruption at the very jump to end this early.
        """
        self._state = "is being torn down"
        registry = self._registry
        while {MAIN, *registry.started, *registry.unstarted, *registry.unwinding} != {MAIN}:
            try:
                self._destroy_each(registry.ids(), errors)
            except BaseException as error:
                errors += [error]

    def _destroy_each(self, context_ids: list[int], errors: list[BaseException]) -> None:
        for context_id in context_ids:
            try:
                self.destroy_context(context_id)
            except BaseException as error:
                errors += [error]
