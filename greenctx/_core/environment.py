"""Environment: run main, create contexts, switch between them, destroy them."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from greenlet import getcurrent

from greenctx._core.admission import Admission
from greenctx._core.context import MAIN, Context, main_context, new_context
from greenctx._core.error_chains import append_context, chain_errors, raise_errors
from greenctx._core.scope import current
from greenctx._core.switching import COMPILED, Switching
from greenctx.errors import (
    Cancellation,
    ContextCanceled,
    DestroyNotAllowed,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    ExitCarrier,
    SwitchTargetMissing,
    TooManyContexts,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Environment(Admission):
    """The operations of `greenctx.ContextSwitchingEnvironment`."""

    __slots__ = ()

    main_context_id = MAIN

    def __init__(self, max_contexts: int | None) -> None:
        if max_contexts is not None and max_contexts < 0:
            raise ValueError(f"max_contexts must be None or at least 0, not {max_contexts!r}")
        super().__init__()
        self._max_contexts = max_contexts

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
            if outer is not None and outer.encloses(me):
                self._outer = outer
            context = main_context(self._registry, me)
            current.set(self)
            self._state = "is running"
            self._main = self._active = self._started[MAIN] = context
            self._admitted = me
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
            self._main = self._admitted = self._active = None  # the caller is never without an active context
            self._started = self._registry.started = {}
            self._outer = None
            self._state = "has ended"
            current.set(outer)
            errors.clear()  # their tracebacks refer to this frame

    def create_context(self, entrypoint: Callable[[], object]) -> int:
        """Create a suspended context and return its id: 1, 2, 3 ..., never used again.

        ``entrypoint`` is called without arguments when the context is first switched to, in a copy of the creator's
        `contextvars` context. It must not return (main would get `ContextEntrypointReturned`); what it raises is raised
        in main.

        Raises `TooManyContexts` at ``max_contexts``, `EnvironmentNotRunning` also while the environment is torn down.
        """
        me = getcurrent()
        if me is not self._admitted:
            self.admit(me)
        if self._state == "is being torn down":
            raise EnvironmentNotRunning(self._state)
        if not callable(entrypoint):
            raise TypeError(f"the entrypoint of a context must be callable, not {entrypoint!r}")
        assert self._main is not None
        registry = self._registry
        if self._max_contexts is not None and registry.count_live(self._main) >= self._max_contexts:
            raise TooManyContexts(self._max_contexts)
        context = new_context(registry, entrypoint, self._main)
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
        if caller is not self._admitted:
            self.admit(caller)
            self._check_is_not_canceled()
        me: Any = self._active
        if (target := self._started.get(context_id)) is not None:
            its = resumed = target.greenlet
        else:
            target, its, resumed = self._find_target(context_id, me)
        self._active = target
        self._admitted = its
        try:
            resumed.switch()
            if self._admitted is not caller:
                self._resumed_unasked(me)
            return
        except ExitCarrier as error:
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
        if caller is not self._admitted:
            self.admit(caller)
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
        except ExitCarrier as error:
            append_context(error.exit, handled)
            error.unwrap()
        except BaseException as error:
            append_context(error, handled)
            raise
        finally:
            del handled  # into whose chain the error may come, whose traceback refers to this frame
        return True

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
            self._active, self._admitted = victim, None
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
