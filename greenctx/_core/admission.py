"""The active context of an environment, and the check of the environment's callers.

A call from the greenlet in ``_admitted`` passes at once: a switch pays for one comparison. `Admission.admit` checks
every other call. It refuses the call, or makes its context the active one, because something other than a switch has
resumed that context.
"""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from greenctx._core.context import MAIN, MAIN_NAME, Registry
from greenctx._core.scope import IN_GUEST, root_of
from greenctx._core.switching import Switching
from greenctx.errors import ON_FIBER, ContextCanceled, EnvironmentNotRunning, NotTheActiveContext, WrongThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx._core.context import Context
    from greenctx._core.scope import Scope


class Phase(Enum):
    """The phases of an environment's life. Each value completes a message that begins "the environment"."""

    UNUSED = "has not run yet"
    RUNNING = "is running"
    ENDING = "is being torn down"
    ENDED = "has ended"


class Admission(Switching):
    """The state of an environment, and the checks of its callers. `Environment` adds the operations."""

    # The attributes are slots because CPython finds methods faster while an instance's dict is empty. Subclasses of
    # users have the dict for attributes of their own.
    __slots__ = ("__dict__", "__weakref__", "_max_contexts", "_phase", "_thread_id")

    def __init__(self, max_contexts: int | None) -> None:
        if max_contexts is not None and max_contexts < 0:
            raise ValueError(f"max_contexts must be None or at least 0, not {max_contexts!r}")
        self._max_contexts = max_contexts
        self._phase = Phase.UNUSED
        self._main: Context | None = None
        self._thread_id = 0
        self._outer: Scope | None = None
        self._active: Context | None = None
        # The greenlet whose calls need no further check: the active context's. None while the active context is being
        # destroyed, because each of its switches must raise then. IN_GUEST while guest code runs (greenctx.wasix sets
        # it).
        self._admitted: greenlet | None = None
        self._registry: Registry = Registry()
        # Whether the class does not override `switch_context`, so that guests may switch without calling Python.
        self._is_plain = False
        # Whether main can start another context when it is resumed. Not while it waits in destroy_context, or in other
        # code that switches greenlets (gevent's hub, for example), which would take the resumption for its own.
        self._main_can_start_others = True

    def __repr__(self) -> str:
        if self._active is None:
            return f"<{type(self).__name__} that {self._phase.value}>"
        active = self._active.context_id
        return f"<{type(self).__name__} active={active} suspended={self._registry.suspended_ids(active)}>"

    @property
    def active_context_id(self) -> int:
        """The id of the active context, which is the caller."""
        me = getcurrent()
        if me is not self._admitted:
            self.admit(me)
        return self.active_id()

    def encloses(self, me: greenlet, /) -> bool:
        """Whether that greenlet belongs to a context of this environment."""
        return self._context_of(me) is not None

    def _entrypoint_of(self, context: Context) -> Callable[[], Any] | None:
        """Return the entrypoint that `create_context` was given; None for main. (Reports wrap entrypoints.)"""
        return context.entrypoint

    def can_switch_to(self, context_id: int) -> bool:
        """Whether `switch_context` finds that target, or raises the caller's cancellation before it looks."""
        registry = self._registry
        return context_id in registry.started or context_id in registry.unstarted or self._admitted is None

    def admit(self, me: greenlet, /) -> None:
        """Check a call by a greenlet other than the admitted one: make its context active, or refuse the call."""
        active = self._active
        if self._main is None or active is None:
            raise EnvironmentNotRunning(self._phase.value)
        if not self.is_of_thread(root_of(me)):
            raise WrongThread(_thread_name(self._thread_id), _thread_name(threading.get_ident()))
        if self._admitted is IN_GUEST:
            raise NotTheActiveContext(active.context_id, ON_FIBER)
        context = self._context_of(me)
        if context is None:
            raise NotTheActiveContext(active.context_id)
        self._adopt(context)

    def is_of_thread(self, root: greenlet, /) -> bool:
        """Whether this environment runs in the thread that began with that greenlet."""
        return self._main is not None and root_of(self._main.greenlet) is root

    def _context_of(self, me: greenlet) -> Context | None:
        """Return the context that the greenlet belongs to, if any."""
        if self._main is not None and me is self._main.greenlet:
            return self._main
        if type(me) is not greenlet:  # never a context; a subclass may not be hashable
            return None
        return self._registry.by_greenlet.get(me)

    def _adopt(self, me: Context) -> None:
        """Make ``me``, which is running, the active context. The former active one is suspended, unless it has ended.

        This completes what an interruption left undone. A second call changes nothing.
        """
        registry = self._registry
        former = self._active
        if former is not me and former is not None:
            if former is self._main:
                self._main_can_start_others = False
            else:
                if former.has_ended:
                    # `run` has removed it from the registry, unless a KeyboardInterrupt came before the first line of
                    # `run`.
                    registry.started.pop(former.context_id, None)
                    registry.by_greenlet.pop(former.greenlet, None)
                    # An interrupted destroyer may have added it after its end.
                    registry.unwinding.pop(former.context_id, None)
                elif not former.has_started:  # main was resumed to start it, and was interrupted
                    registry.unstarted[former.context_id] = former
                    del registry.started[former.context_id]
            if me is self._main:
                self._main_can_start_others = True
            self._active = me
        if me.cancellation is not None:
            self._admitted = None
        else:
            registry.started[me.context_id] = me  # a context that waits in destroy_context is in no table
            self._admitted = me.greenlet

    def _check_is_not_canceled(self) -> None:
        """Raise `ContextCanceled` if the active context is being destroyed."""
        me = self._active
        if me is not None and me.cancellation is not None:
            raise ContextCanceled(me.context_id, me.cancellation)

    def active_id(self) -> int:
        return MAIN if self._active is None else self._active.context_id

    def active_name(self) -> str:
        return MAIN_NAME if self._active is None else self._active.name


def _thread_name(ident: int) -> str:
    return next((thread.name for thread in threading.enumerate() if thread.ident == ident), f"#{ident}")
