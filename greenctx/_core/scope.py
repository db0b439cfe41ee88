"""The current environment: a context variable, so that environments nest, and interleave on one thread."""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from greenlet import getcurrent

from greenctx._core.registry import MAIN
from greenctx.errors import NoEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet

    from greenctx.environment import ContextSwitchingEnvironment

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

current: ContextVar[ContextSwitchingEnvironment | WithoutContexts | None] = ContextVar(
    "greenctx.current_environment", default=None
)


def current_environment() -> ContextSwitchingEnvironment:
    """Return the environment in whose contexts the calling code runs: the innermost one where they nest.

    Raises `NoEnvironment` outside of any ``run_main_context``.
    """
    environment = current.get()
    if environment is None or isinstance(environment, WithoutContexts):
        raise NoEnvironment
    return environment


def current_context_id() -> int:
    """The id of the context that the calling code runs in; main's outside of any environment."""
    environment = current.get()
    if environment is None or isinstance(environment, WithoutContexts):
        return MAIN
    return environment.active_context_id


def of_this_thread() -> ContextSwitchingEnvironment | WithoutContexts | None:
    """The current environment; None where this thread has only inherited it, with another thread's context variables.

    (As `asyncio.to_thread` does. While a guest runs in this thread nobody may call this thread's environment; others
    have nothing to do with it.)
    """
    environment = current.get()
    return environment if environment is not None and environment._is_of(root_of(getcurrent())) else None


def root_of(me: greenlet) -> greenlet:
    """The greenlet that its thread began with; it tells threads apart (their idents change under gevent)."""
    while me.parent is not None:
        me = me.parent
    return me


class WithoutContexts:
    """Stands for the environment where a guest is to have none, though it may be called from within one."""

    def __init__(self) -> None:
        self._root = root_of(getcurrent())
        outer = current.get()
        self._outer = outer if outer is not None and outer._encloses(getcurrent()) else None
        self._caller: greenlet | None = None

    def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run ``function(*args)`` with no current environment."""
        context = copy_context()
        context.run(current.set, self)
        return context.run(function, *args)

    def _admit(self, _: greenlet) -> None:
        """Let everybody call guests."""

    def _is_of(self, root: greenlet) -> bool:
        return self._root is root

    def _encloses(self, me: greenlet) -> bool:
        return self._outer is not None and self._outer._encloses(me)

    def _active_id(self) -> int:
        return 0 if self._outer is None else self._outer._active_id()
