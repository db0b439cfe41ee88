"""Context: one call stack and its greenlet. Registry: all contexts of an environment, by id."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

from greenctx._core.bottom_frames import call
from greenctx._core.switching import Coroutine, Tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.errors import Cancellation

MAIN = 0
"""The id of the main context."""
MAIN_NAME = "main"


class Context(Coroutine):
    """A context, main included.

    It has a greenlet and is not one itself, because greenlet switches objects of a subclass more slowly. The greenlet's
    parent is main's greenlet, or the destroyer's while the context is being destroyed.
    """

    __slots__ = ()

    greenlet: Any
    """A `greenlet`. None once destroyed before it started: an unstarted greenlet refers to `run`, a reference cycle."""
    context_id: int
    """0, the id of main, until `create_context` assigns one."""
    created_at: float
    """A time of `time.monotonic`; for main, when it began."""
    registry: Registry
    entrypoint: Callable[[], Any] | None
    """None for main."""
    cancellation: Cancellation | None
    """Set once destroy_context has begun."""
    destroyer: Context | None
    """The context that waits in destroy_context for this one to end, if any."""
    switches: int
    """How often it became the active context. Nobody counts that unless switches are reported."""

    @property
    def name(self) -> str:
        """The name that reports show."""
        return MAIN_NAME if self.entrypoint is None else name_of(self.entrypoint)

    @property
    def has_started(self) -> bool:
        """Whether it runs, or has run."""
        return bool(self.greenlet) or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether its greenlet has ended. A context destroyed before it started has no end."""
        return self.greenlet is not None and bool(self.greenlet.dead)


def new_context(registry: Registry, entrypoint: Callable[[], Any], main: Context) -> Context:
    """Make a context that has not started, with a copy of the caller's `contextvars` context."""
    context = Context(registry, entrypoint, monotonic())
    run = partial(call, context.run) if registry.needs_frames else context.run
    context.greenlet = its = greenlet(run, main.greenlet)
    its.gr_context = copy_context()
    return context


def main_context(registry: Registry, me: greenlet) -> Context:
    """Make main, which begins on that greenlet."""
    context = Context(registry, None, monotonic())
    context.greenlet = me
    return context


class BoundEntrypoint(partial[object]):
    """An entrypoint with its arguments, and the name of its context if `create_context` was given one."""

    context_name: str | None = None


def bind(entrypoint: Callable[..., object], args: tuple[object, ...], name: str | None) -> Callable[[], object]:
    """Return an entrypoint that takes no arguments. Raises TypeError for a name that is not a string."""
    if not args and name is None:
        return entrypoint
    if not isinstance(name, str | None):
        raise TypeError(f"the name of a context must be a string, not {name!r}")
    bound = BoundEntrypoint(entrypoint, *args)
    bound.context_name = name
    return bound


def check_is_id(context_id: object) -> None:
    """Raise TypeError for an object that cannot be the id of a context. Called for ids that were not found."""
    if not hasattr(context_id, "__index__"):
        raise TypeError(f"the id of a context is an int, which create_context returned, not {context_id!r}")


def name_of(entrypoint: object) -> str:
    """Return a name for a context with that entrypoint: the name of the function inside of all wrappers."""
    for _ in range(100):  # a limit, because wrappers made by hand may form a ring
        if isinstance(entrypoint, BoundEntrypoint) and entrypoint.context_name is not None:
            return entrypoint.context_name
        inner = entrypoint.func if isinstance(entrypoint, partial) else getattr(entrypoint, "__wrapped__", None)
        if inner is None:
            break
        entrypoint = inner
    name = getattr(entrypoint, "__name__", None)
    return name if isinstance(name, str) else type(entrypoint).__name__


class Registry(Tables):
    """Maps ids to contexts. It holds them strongly, so that the garbage collector never unwinds one.

    A context is in exactly one of `started`, `unstarted` and `unwinding`. While it waits in ``destroy_context`` for the
    end of another context it is in no table, because only that end may resume it.
    """

    __slots__ = ("needs_frames",)

    started: dict[int, Context]
    """Contexts that a plain switch may resume. Main and the active context are in it, so a switch changes no table."""
    unstarted: dict[int, Context]
    unwinding: dict[int, Context]
    """Contexts under destruction."""
    by_greenlet: dict[greenlet, Context]
    """Every context that has not ended, except main, whose greenlet may be of any class."""

    def __init__(self) -> None:
        self.next_id = 1
        self.started, self.unstarted, self.unwinding, self.by_greenlet = {}, {}, {}, {}
        self.needs_frames = False
        """Whether each greenlet begins with a Python frame (bottom_frames.py)."""

    def is_destroying(self, context: Context) -> bool:
        """Whether that context waits in ``destroy_context``."""
        return any(victim.destroyer is context for victim in self.unwinding.values())

    def count_live(self, main: Context) -> int:
        """Count the contexts that have not ended, without main."""
        registered = len(self.started) + len(self.unstarted) + len(self.unwinding) - (MAIN in self.started)
        destroyers = {victim.destroyer for victim in self.unwinding.values()}
        destroyers -= {None, main, *self.unwinding.values()}
        return registered + len(destroyers)

    def ids(self) -> list[int]:
        """Return the ids of all contexts except main and those that wait in ``destroy_context``, ascending."""
        return sorted((self.started.keys() | self.unstarted.keys() | self.unwinding.keys()) - {MAIN})

    def suspended_ids(self, active_id: int) -> list[int]:
        """Return the ids of the suspended contexts, main included, ascending."""
        unwinding = {key for key, context in self.unwinding.items() if not self.is_destroying(context)}
        return sorted((self.started.keys() | self.unstarted.keys() | unwinding) - {active_id})

    def describe(self, context_id: int) -> str:
        """Say why no switch can go to that id, as a phrase for an error message."""
        check_is_id(context_id)
        if context_id in self.unwinding:
            return "is being destroyed"
        for victim in self.unwinding.values():
            if victim.destroyer is not None and victim.destroyer.context_id == context_id:
                return f"waits in destroy_context for context {victim.context_id} to end"
        return "has ended or was destroyed" if context_id in range(self.next_id) else "was never created"
