"""One context: its greenlet, and what the parent of that sees when it ends; and the registry of all of them."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

from greenctx._core.switching import Coroutine, Tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.errors import Cancellation


MAIN = 0
MAIN_NAME = "main"


class Context(Coroutine):
    """A context, main included.

    It is no greenlet but has one, for greenlet takes longer to switch between objects of a subclass.
    The greenlet's parent is main's or, while the context is being destroyed, its destroyer's. The parent gets every end
    but a silent one as an exception: a return value could be lost to a signal's `KeyboardInterrupt`, which arrives
    after the call that returned it.
    """

    __slots__ = ()

    greenlet: Any
    """Its `greenlet`; None if it was destroyed before it started, for an unstarted one refers back to `run`."""
    context_id: int
    """Main's, until `ContextSwitchingEnvironment.create_context` gives it its own."""
    created_at: float
    """By `time.monotonic`; for main, when it began."""
    registry: Registry
    entrypoint: Callable[[], Any] | None
    """None for main."""
    cancellation: Cancellation | None
    """Set once destroy_context has begun."""
    destroyer: Context | None
    """The one that waits in destroy_context for this context to end, if any."""

    @property
    def name(self) -> str:
        """What to call it."""
        return MAIN_NAME if self.entrypoint is None else name_of(self.entrypoint)

    @property
    def has_started(self) -> bool:
        """Whether it runs, or has run."""
        return bool(self.greenlet) or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether its greenlet has ended. (One that never started is destroyed without an end.)"""
        return self.greenlet is not None and bool(self.greenlet.dead)


def new_context(registry: Registry, entrypoint: Callable[[], Any], main: Context) -> Context:
    """A context that has not started, in a copy of the caller's `contextvars` context."""
    context = Context(registry, entrypoint, monotonic())
    context.greenlet = its = greenlet(context.run, main.greenlet)
    its.gr_context = copy_context()
    return context


def main_context(registry: Registry, me: greenlet) -> Context:
    """Main, which begins on that greenlet."""
    context = Context(registry, None, monotonic())
    context.greenlet = me
    return context


def name_of(entrypoint: object) -> str:
    """What to call a context with that entrypoint."""
    for _ in range(100):  # wrappers of wrappers; a ring is no function that functools has made
        inner = entrypoint.func if isinstance(entrypoint, partial) else getattr(entrypoint, "__wrapped__", None)
        if inner is None:
            break
        entrypoint = inner
    name = getattr(entrypoint, "__name__", None)
    return name if isinstance(name, str) else type(entrypoint).__name__


class Registry(Tables):
    """Maps ids to contexts. It holds them strongly, so that the garbage collector never unwinds one.

    A context is in exactly one of the first three tables, or in none while it waits in ``destroy_context`` for the end
    of another context (it would be wrong to resume it then).
    """

    __slots__ = ("next_id",)

    started: dict[int, Context]
    """What a plain switch may resume. Main and the active context are here, too: a switch need not touch it."""
    unstarted: dict[int, Context]
    unwinding: dict[int, Context]
    """Contexts that are being destroyed."""
    by_greenlet: dict[greenlet, Context]
    """Every context that has not ended, but main, whose greenlet may be of any class."""

    def __init__(self) -> None:
        self.next_id = 1
        self.started, self.unstarted, self.unwinding, self.by_greenlet = {}, {}, {}, {}

    def is_destroying(self, of: Context) -> bool:
        """Whether that context waits in ``destroy_context``."""
        return any(victim.destroyer is of for victim in self.unwinding.values())

    def count_live(self, main: Context) -> int:
        """How many contexts there are besides main."""
        registered = len(self.started) + len(self.unstarted) + len(self.unwinding) - (MAIN in self.started)
        destroyers = {victim.destroyer for victim in self.unwinding.values()}
        destroyers -= {None, main, *self.unwinding.values()}
        return registered + len(destroyers)

    def ids(self) -> list[int]:
        """The ids of every context but main and those that wait in ``destroy_context``, ascending."""
        return sorted((self.started.keys() | self.unstarted.keys() | self.unwinding.keys()) - {MAIN})

    def suspended_ids(self, active_id: int) -> list[int]:
        """The ids of the suspended contexts, main included, ascending."""
        unwinding = {key for key, context in self.unwinding.items() if not self.is_destroying(context)}
        return sorted((self.started.keys() | self.unstarted.keys() | unwinding) - {active_id})

    def describe(self, context_id: int) -> str:
        """The state of a context that nobody can switch to, as a phrase for an error message."""
        if context_id in self.unwinding:
            return "is being destroyed"
        for victim in self.unwinding.values():
            if victim.destroyer is not None and victim.destroyer.context_id == context_id:
                return f"waits in destroy_context for context {victim.context_id} to end"
        return "has ended or was destroyed" if context_id in range(self.next_id) else "was never created"
