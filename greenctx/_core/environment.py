"""Environment: run main, create contexts, destroy them. (The switch is in switching.py.)

Errors are collected by ``errors += [error]``, not by ``append``. CPython looks for signals when a function begins,
after a call of a function in C, and at backward jumps: a KeyboardInterrupt right after `append` would be raised in the
handler, outside of its `try`.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from greenlet import getcurrent

from greenctx._core.admission import Admission, Phase
from greenctx._core.bottom_frames import need_frames
from greenctx._core.context import MAIN, bind, check_is_id, main_context, new_context
from greenctx._core.error_chains import append_context, chain_errors, raise_errors
from greenctx._core.plain_functions import check_is_plain
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

        When main ends, by returning or by raising, every remaining context is destroyed, in ascending order of id. An
        exception of main propagates unchanged. Errors of the contexts' cleanup are then a `BaseExceptionGroup` at the
        end of its ``__context__`` chain. If main returned, a single error of the cleanup propagates unchanged, and
        several are raised as a group. But if a `KeyboardInterrupt`, `SystemExit` or `asyncio.CancelledError` is among
        them, that one is raised, with the others in its context.

        Raises `EnvironmentAlreadyUsed` when the environment is running, or has run; TypeError if main is a coroutine
        function.
        """
        if self._phase is not Phase.UNUSED:
            raise EnvironmentAlreadyUsed("is running" if self._main else "has run")
        check_is_plain("main", main)
        self._registry.needs_frames = need_frames()
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
            # One interruption may have left contexts or errors behind, and a second one may come right here. A third
            # may lose an error, because it can interrupt the repair itself. No context is lost.
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
            # In one statement, without a call: no signal's handler sees an admitted caller without an active context.
            self._main = self._admitted = self._active = None
            self._registry.started = {}
            self._outer = None
            self._phase = Phase.ENDED
            current.set(outer)
            errors.clear()  # their tracebacks refer to this frame, and this frame to them: a reference cycle

    def create_context(self, entrypoint: Callable[[*Ts], object], *args: *Ts, name: str | None = None) -> int:
        """Create a suspended context and return its id: 1, 2, 3 ..., never used again.

        ``entrypoint(*args)`` is called when the context is first switched to, in a copy of the creator's `contextvars`
        context. It must not return: if it does, main gets `ContextEntrypointReturned`. An exception that it raises is
        raised in main. Dumps, traces and statistics show ``name``, which is the entrypoint's own by default.

        Raises `TooManyContexts` at ``max_contexts``, and `EnvironmentNotRunning` also while the environment is torn
        down.
        """
        me = getcurrent()
        if me is not self._admitted:
            self.admit(me)
        if self._phase is Phase.ENDING:
            raise EnvironmentNotRunning(self._phase.value)
        if not callable(entrypoint):
            raise TypeError(f"the entrypoint of a context must be callable, not {entrypoint!r}")
        check_is_plain("the entrypoint of a context", entrypoint)
        main, registry = self._main, self._registry
        assert main is not None
        if self._max_contexts is not None and registry.count_live(main) >= self._max_contexts:
            raise TooManyContexts(self._max_contexts)
        context = new_context(registry, bind(entrypoint, args, name), main)
        # The id is taken only now, because a signal handler or a finalizer may have created another context during the
        # calls above. From here on nothing is called.
        context.context_id = context_id = registry.next_id
        registry.next_id = context_id + 1
        registry.unstarted[context_id] = registry.by_greenlet[context.greenlet] = context
        return context_id

    def destroy_context(self, context_id: int) -> bool:
        """Destroy a suspended context; return True when it is gone, False if no context is suspended under that id.

        `ContextCanceled` is raised where the context waits. The context unwinds and ends before this returns. A context
        that never ran is dropped, and its entrypoint is never called.

        Raises `DestroyNotAllowed` for main and for the active context, and `CancellationSwallowed` if the entrypoint
        caught the cancellation and returned. Any other exception that the entrypoint raises while it unwinds is raised
        here; the context is gone then, too.
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
            context.greenlet = None  # the greenlet refers to `context.run`: a reference cycle
            return True
        victim = registry.started.get(context_id)
        if victim is None:
            victim = registry.unwinding.get(context_id)
        if victim is me or context_id == MAIN:
            raise DestroyNotAllowed(context_id)
        if victim is None:
            check_is_id(context_id)
            return False
        if registry.is_destroying(victim):
            return False
        handled = sys.exception()
        try:
            # The loop runs once, unless other code resumes this greenlet while the victim waits in its cleanup.
            while not victim.has_ended:
                self._cancel(victim, me)
        except ExitCarrier as error:
            append_context(error.exit, handled)
            error.unwrap()
        except BaseException as error:
            append_context(error, handled)
            raise
        finally:
            # The chain of this exception may hold the error, whose traceback refers to this frame.
            del handled
        return True

    def _destroy_remaining(self, errors: list[BaseException]) -> None:
        """Destroy every remaining context, and collect the errors, interruptions included."""
        # Outside of the `try` nothing is called: the set is a display, not `set(...)`. So only an interruption at the
        # loop's backward jump, which no `try` in this function covers, ends this early. `run_main_context` goes on
        # then.
        self._phase = Phase.ENDING
        registry = self._registry
        while {MAIN, *registry.started, *registry.unstarted, *registry.unwinding} != {MAIN}:
            try:
                self._destroy_each(registry.ids(), errors)
            except BaseException as error:
                errors += [error]

    def _destroy_each(self, context_ids: list[int], errors: list[BaseException]) -> None:
        # A separate function, so that the caller's `try` covers this loop's backward jump. CPython leaves that jump out
        # of the exception table of its own function (CPython issues 108214 and 130279).
        for context_id in context_ids:
            try:
                self.destroy_context(context_id)
            except BaseException as error:
                errors += [error]
