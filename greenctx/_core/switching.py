"""The switch, and the start, the end and the cancellation of a context: the specification, and its compiled twin.

The Python code here is the specification. It runs under ``GREENCTX_PURE=1``, and where the twin was not built.
Otherwise the bottom of this module replaces its classes by those of `_switching.pyx`, as `heapq` and `bisect` do: the
same names in the same order. Change both twins together; the tests run on both.

A switch changes one fact, which context is active, and leaves the registry alone. An earlier design took the target out
of the registry and put the caller in. That cost 0.2 bare switches, and an interruption could leave it half done. Two
rules keep the state right whatever happens:

- Announce, then switch. Nothing is called between the first change of state and the greenlet switch, because CPython
  looks for signals when a function begins and after each call of a function in C. A KeyboardInterrupt there would leave
  a context active that does not run.
- Whoever wakes up looks. A resumed context makes itself the active one, whatever resumed it: a switch, other code that
  switches greenlets (gevent, for example), or an exception. If an interruption prevents that, `admit` does it at the
  next call of that context.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent

from greenctx.errors import (
    Cancellation,
    CancellationSwallowed,
    ContextCanceled,
    ContextEntrypointReturned,
    ExitCarrier,
    SwitchTargetMissing,
)

if TYPE_CHECKING:
    from collections.abc import Callable


COMPILED = False


class Tables:
    """Base of `Registry`: the tables in which a switch finds its target, and an end its context."""

    __slots__ = ("by_greenlet", "next_id", "started", "unstarted", "unwinding")

    def take_unstarted(self, context_id: int) -> Any:
        """Move a context to those that have started, and return it. Raises `SwitchTargetMissing`."""
        if context_id not in self.unstarted:
            raise SwitchTargetMissing(context_id, self.describe(context_id))
        # Nothing is called from here on, because the caller goes on to switch.
        self.started[context_id] = target = self.unstarted[context_id]
        del self.unstarted[context_id]
        return target

    started: dict[int, Any]
    unstarted: dict[int, Any]
    unwinding: dict[int, Any]
    by_greenlet: dict[Any, Any]
    next_id: int
    describe: Any


class Coroutine:
    """Base of `Context`: its attributes, its start and its end."""

    __slots__ = (
        "cancellation",
        "context_id",
        "created_at",
        "destroyer",
        "entrypoint",
        "greenlet",
        "registry",
        "switches",
    )

    def __init__(self, registry: Any, entrypoint: Callable[[], object] | None, created_at: float) -> None:
        self.registry = registry
        self.context_id = 0
        self.entrypoint: Any = entrypoint
        self.created_at = created_at
        self.greenlet: Any = None
        self.cancellation: Cancellation | None = None
        self.destroyer: Any = None
        self.switches = 0

    def run(self) -> None:
        """Run the entrypoint, and return or raise what the parent greenlet is to get. Called by the greenlet.

        The parent gets every end but a silent one as an exception, because a return value could be lost to a signal's
        `KeyboardInterrupt`, which comes after the call that returned it.
        """
        try:
            self.entrypoint()
        except GreenletExit as exit:
            if isinstance(exit, ContextCanceled) and exit.belongs_to(self.cancellation):
                return
            raise ExitCarrier(self.context_id, exit) from exit
        finally:
            # Without a call such as `pop`: a KeyboardInterrupt could come after it and leave the rest undone.
            registry = self.registry
            if self.context_id in registry.started:
                del registry.started[self.context_id]
            if self.context_id in registry.unwinding:
                del registry.unwinding[self.context_id]
            del registry.by_greenlet[self.greenlet]
        if self.cancellation is None:
            raise ContextEntrypointReturned(self.context_id)
        if not self.cancellation.defused:
            raise CancellationSwallowed(self.context_id)


class Switching:
    """Base of environments: the attributes that a switch reads and changes, the switch and the cancellation.

    admission.py sets and explains these attributes, and has the methods that this class calls.
    """

    __slots__ = ("_active", "_admitted", "_is_plain", "_main", "_main_can_start_others", "_outer", "_registry")

    def switch_context(self, context_id: int) -> None:
        """Suspend the active context and resume that one; return when another context switches back.

        Switching to oneself does nothing. Raises `SwitchTargetMissing` if no context is suspended under that id, and
        `ContextCanceled` if the calling context is being destroyed. In main, raises what the entrypoint of another
        context raised, and `ContextEntrypointReturned` if one returned.
        """
        caller = getcurrent()
        if caller is not self._admitted:
            self.admit(caller)
            self._check_is_not_canceled()
        me = self._active
        target = resumed = self._registry.started.get(context_id)
        if target is None:
            target = resumed = self._registry.take_unstarted(context_id)
            if me is self._main:
                self._main_can_start_others = True  # its former wait is over, wherever that was
            elif self._main_can_start_others:
                # A greenlet begins at the depth of the one that starts it, of recursion and of the native stack: a
                # chain of starts would overflow. So main, which waits in its own switch_context, is resumed to start
                # the target (`_woken_by_other`).
                resumed = self._main
        # From here to the switch nothing is called.
        self._active = target
        self._admitted = target.greenlet
        try:
            resumed.greenlet.switch()
            if self._admitted is not caller:
                self._woken_by_other(me)
        except ExitCarrier as error:
            self._adopt(me)
            error.unwrap()
        except BaseException:
            self._adopt(me)
            raise

    def _woken_by_other(self, me: Any) -> None:
        """Go on in ``me``, which was resumed but not made the active context.

        Main is resumed like this to start another context: the active context has not started then.
        """
        while me is self._main and (active := self._active) is not None and not active.has_started:
            if self._active is active:  # a signal's handler may have destroyed it in the call of `has_started`
                active.greenlet.switch()
        self._adopt(me)

    def _cancel(self, victim: Any, me: Any) -> None:
        """Throw the cancellation into a suspended context; return or raise when ``me`` is resumed."""
        victim_id, my_id = victim.context_id, me.context_id
        started, unwinding = self._registry.started, self._registry.unwinding
        cancellation = victim.cancellation or Cancellation()
        canceled = ContextCanceled(victim_id, cancellation)
        former, former_id, its = me, my_id, victim.greenlet
        if victim.destroyer is not None:
            former = victim.destroyer
            former_id = former.context_id
        try:
            unwinding[victim_id] = victim
            if victim_id in started:
                del started[victim_id]
            # The former destroyer waited for the same end, until other code resumed ``me``. Now it is suspended.
            if former_id not in unwinding:
                started[former_id] = former
            if my_id in started:  # only the end of its victim may resume a destroyer
                del started[my_id]
            if me is self._main:
                self._main_can_start_others = False
            its.parent, victim.destroyer = me.greenlet, me  # the parent is resumed when the victim ends
            victim.cancellation = cancellation
            self._active, self._admitted = victim, None
            its.throw(canceled)
        finally:
            if victim.destroyer is me and not its.dead:
                its.parent, victim.destroyer = self._main.greenlet, None
            self._adopt(me)

    _active: Any
    _admitted: Any
    _main: Any
    _main_can_start_others: bool
    _registry: Any
    admit: Any
    _adopt: Any
    _check_is_not_canceled: Any


if not TYPE_CHECKING and os.environ.get("GREENCTX_PURE", "0") in ("", "0"):  # pragma: no cover
    with suppress(ImportError):
        from greenctx._core._switching import Coroutine, Switching, Tables  # noqa: F401

        COMPILED = True
