"""The scope that code runs in: a context variable, so that environments nest, and interleave on one thread."""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, TypeVarTuple

from greenlet import getcurrent

from greenctx._core.context import MAIN, MAIN_NAME
from greenctx.errors import ON_FIBER, NotTheActiveContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from greenlet import greenlet

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

IN_GUEST: Any = object()
"""The admitted caller while guest code runs on its fiber. It equals no greenlet, so that every call is refused."""


class Scope(Protocol):
    """An environment, or `NoContexts`. It decides who may call the environment, and guests."""

    _admitted: greenlet | None
    """The greenlet whose calls need no further check. None if every call needs one; or `IN_GUEST`."""
    _outer: Scope | None
    """The scope that this one is nested in."""

    def admit(self, me: greenlet, /) -> None:
        """Check a call by a greenlet other than the admitted one. Raises the caller's error."""
        ...

    def is_of_thread(self, root: greenlet, /) -> bool:
        """Whether it runs in the thread that began with that greenlet."""
        ...

    def encloses(self, me: greenlet, /) -> bool:
        """Whether a scope that begins on that greenlet is nested in this one.

        It is not if that greenlet runs a task or thread that a context started, which only inherited the context
        variable.
        """
        ...

    @property
    def active_context_id(self) -> int:
        """The id of the context that the caller runs in; main's if there are no contexts."""
        ...

    def active_id(self) -> int:
        """Return the id of the active context here, or around a scope without contexts. Checks nothing."""
        ...

    def active_name(self) -> str:
        """The name of that context: its entrypoint's."""
        ...


current: ContextVar[Scope | None] = ContextVar("greenctx.current_environment", default=None)


def current_context_id() -> int:
    """Return the id of the context that the calling code runs in; main's outside of any environment."""
    scope = current.get()
    return MAIN if scope is None else scope.active_context_id


def of_this_thread() -> Scope | None:
    """Return the current scope; None if this thread only inherited it with another thread's context variables.

    A thread inherits them by `asyncio.to_thread`, for example. While a guest runs in a thread, the environment of that
    thread refuses all calls; the environment of another thread must not.
    """
    scope = current.get()
    return scope if scope is not None and scope.is_of_thread(root_of(getcurrent())) else None


def admit_caller() -> Scope | None:
    """Check that the calling greenlet may call guests; return the scope that they run in, if this thread has one."""
    scope, me = current.get(), getcurrent()
    if scope is None or me is scope._admitted:
        return scope
    scope.admit(me)
    return of_this_thread()


def check_is_not_in_guest() -> None:
    """Raise `NotTheActiveContext` if guest code runs in the current scope, or in a scope around it."""
    for scope in nesting():
        if scope._admitted is IN_GUEST:
            raise NotTheActiveContext(scope.active_id(), ON_FIBER)


def nesting() -> Iterator[Scope]:
    """Yield the current scope, the scope that it is nested in, and so on outwards."""
    scope = current.get()
    while scope is not None:
        yield scope
        scope = scope._outer


def root_of(me: greenlet) -> greenlet:
    """Return the greenlet that the thread began with. It tells threads apart; under gevent their idents change."""
    while me.parent is not None:
        me = me.parent
    return me


class NoContexts:
    """The scope of a guest without an environment, even where a context calls the guest."""

    active_context_id = MAIN

    def __init__(self) -> None:
        self._root = root_of(getcurrent())
        outer = current.get()
        self._outer = outer if outer is not None and outer.encloses(getcurrent()) else None
        self._admitted: greenlet | None = None

    def run(self, function: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run ``function(*args)`` with no current environment."""
        context = copy_context()
        context.run(current.set, self)
        return context.run(function, *args)

    def admit(self, _: greenlet, /) -> None:
        """Admit every caller."""

    def is_of_thread(self, root: greenlet, /) -> bool:
        return self._root is root

    def encloses(self, me: greenlet, /) -> bool:
        return self._outer is not None and self._outer.encloses(me)

    def active_id(self) -> int:
        return MAIN if self._outer is None else self._outer.active_id()

    def active_name(self) -> str:
        return MAIN_NAME if self._outer is None else self._outer.active_name()
