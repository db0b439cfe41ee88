"""Environment: run main, create contexts, switch between them, destroy them."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from greenlet import getcurrent

from greenctx._core.admission import Admission, Phase
from greenctx._core.context import MAIN, main_context, new_context
from greenctx._core.error_chains import append_context, chain_errors, raise_errors
from greenctx._core.scope import current
from greenctx._core.switching import Switching
from greenctx.errors import (
    DestroyNotAllowed,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    ExitCarrier,
    TooManyContexts,
)

if TYPE_CHECKING:
    from collections.abc import Callable


T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Environment(Admission):
    """The operations of `greenctx.ContextSwitchingEnvironment`."""

    __slots__ = ()

    main_context_id = MAIN

    def run_main_context(self, main: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run ``main(*args)`` as context 0 on the calling greenlet; return what it returns.

        When main ends, by returning or by raising, every remaining context is destroyed, in ascending order of id.
        Main's own exception comes out as itself; errors of the contexts' cleanup are a `BaseExceptionGroup` at the end
        of its ``__context__`` chain. If main returned, one such error comes out as itself and several as a group; but
        `KeyboardInterrupt`, `SystemExit` and `asyncio.CancelledError` as themselves, with the others in their context.

        Raises `EnvironmentAlreadyUsed` when the environment is running, or has run.
        """
        if self._phase is not Phase.UNUSED:
            raise EnvironmentAlreadyUsed("is running" if self._main else "has run")
        outer = current.get()
        errors: list[BaseException] = []
        try:
            self._thread_id = threading.get_ident()
            self._is_plain = type(self).switch_context is Switching.switch_context
            me = getcurrent()
            if outer is not None and outer.encloses(me):
                self._outer = outer
            context = main_context(self._registry, me)
            current.set(self)
            self._phase = Phase.RUNNING
            self._main = self._active = self._registry.started[MAIN] = context
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
            self._registry.started = {}
            self._outer = None
            self._phase = Phase.ENDED
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
        if self._phase is Phase.ENDING:
            raise EnvironmentNotRunning(self._phase.value)
        if not callable(entrypoint):
            raise TypeError(f"the entrypoint of a context must be callable, not {entrypoint!r}")
        main, registry = self._main, self._registry
        assert main is not None
        if self._max_contexts is not None and registry.count_live(main) >= self._max_contexts:
            raise TooManyContexts(self._max_contexts)
        context = new_context(registry, entrypoint, main)
        # Now, not before: a signal's handler, or a finalizer, may have created another context in those calls.
        context.context_id = context_id = registry.next_id
        registry.next_id = context_id + 1
        registry.unstarted[context_id] = registry.by_greenlet[context.greenlet] = context
        return context_id

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
        unstarted = registry.unstarted
        if context_id in unstarted:
            context = unstarted[context_id]
            del unstarted[context_id], registry.by_greenlet[context.greenlet]
            context.greenlet = None
            return True
        victim = registry.started.get(context_id)
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

    def _destroy_remaining(self, errors: list[BaseException]) -> None:
        """Destroy every context that is left, collecting the errors, interruptions among them.

        Nothing is called outside of the `try`, so that it takes an interruption at the very jump to end this early.
        """
        self._phase = Phase.ENDING
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
