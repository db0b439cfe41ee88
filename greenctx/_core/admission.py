"""The state of an environment: which greenlet is which context, which one is active, and who may call."""

from __future__ import annotations

import threading
from enum import Enum
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from greenctx._core.context import MAIN, MAIN_NAME, Registry
from greenctx._core.scope import IN_GUEST, root_of
from greenctx._core.switching import Switching
from greenctx.errors import ContextCanceled, EnvironmentNotRunning, NotTheActiveContext, WrongThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx._core.context import Context
    from greenctx._core.scope import Scope


class Phase(Enum):
    """What has become of an environment. The value is a phrase for messages: "the environment ..."."""

    UNUSED = "has not run yet"
    RUNNING = "is running"
    ENDING = "is being torn down"
    ENDED = "has ended"


class Admission(Switching):
    """What `Environment` is made on: everything but the operations."""

    # As long as its dict is empty its methods are found faster.
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
        # The greenlet whose calls need no further check: the active context's, but None while that is being destroyed,
        # and IN_GUEST while its guest code runs (greenctx.wasix sets it).
        self._admitted: greenlet | None = None
        self._registry: Registry = Registry()
        self._is_plain = False  # whether its class has the compiled switch as it is
        # False while main waits elsewhere than in its switch_context: in destroy_context, or in gevent's hub, say.
        self._main_can_start_others = True

    def __repr__(self) -> str:
        if self._active is None:
            return f"<{type(self).__name__} that {self._phase.value}>"
        active = self._active.context_id
        return f"<{type(self).__name__} active={active} suspended={self._registry.suspended_ids(active)}>"

    @property
    def active_context_id(self) -> int:
        """The id of the context that runs: the caller's."""
        me = getcurrent()
        if me is not self._admitted:
            self.admit(me)
        return self.active_id()

    def encloses(self, me: greenlet, /) -> bool:
        """Whether that greenlet is a context's."""
        return self._context_of(me) is not None

    def _entrypoint_of(self, context: Context) -> Callable[[], Any] | None:
        """The entrypoint as it was given; None of main."""
        return context.entrypoint

    def can_switch_to(self, context_id: int) -> bool:
        """Whether `switch_context` from here would not be `SwitchTargetMissing`."""
        registry = self._registry
        return context_id in registry.started or context_id in registry.unstarted or self._admitted is None

    def admit(self, me: greenlet, /) -> None:
        """The check of every call, where the calling greenlet is not known as the active one: adopt or refuse it."""
        active = self._active
        if self._main is None or active is None:
            raise EnvironmentNotRunning(self._phase.value)
        if not self.is_of_thread(root_of(me)):
            raise WrongThread(_thread_name(self._thread_id), _thread_name(threading.get_ident()))
        if self._admitted is IN_GUEST:
            raise NotTheActiveContext(active.context_id, "guest code on its fiber")
        context = self._context_of(me)
        if context is None:
            raise NotTheActiveContext(active.context_id)
        self._adopt(context)

    def is_of_thread(self, root: greenlet, /) -> bool:
        """Whether it runs in the thread that began with that greenlet."""
        return self._main is not None and root_of(self._main.greenlet) is root

    def _context_of(self, me: greenlet) -> Context | None:
        """The context whose greenlet that is."""
        if self._main is not None and me is self._main.greenlet:
            return self._main
        if type(me) is not greenlet:  # others may have a hash of their own, or none
            return None
        return self._registry.by_greenlet.get(me)

    def _adopt(self, me: Context) -> None:
        """Make ``me``, which is running, the active context. The one that was becomes suspended unless it has ended."""
        registry = self._registry
        former = self._active
        if former is not me and former is not None:
            if former is self._main:
                self._main_can_start_others = False
            else:
                if former.has_ended:  # its end took it out of the registry, unless that was interrupted
                    registry.started.pop(former.context_id, None)
                    registry.by_greenlet.pop(former.greenlet, None)
                    registry.unwinding.pop(former.context_id, None)  # put there by who began to destroy it, too late
                elif not former.has_started:  # main was to start it, and was interrupted
                    registry.unstarted[former.context_id] = former
                    del registry.started[former.context_id]
            if me is self._main:
                self._main_can_start_others = True
            self._active = me
        if me.cancellation is not None:
            self._admitted = None
        else:
            registry.started[me.context_id] = me  # not there if it waited in destroy_context
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
