"""One context: its greenlet, and what the parent of that sees when it ends."""

from __future__ import annotations

from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, greenlet

from greenctx._core.exited import ContextExited
from greenctx._core.switching import COMPILED, Coroutine
from greenctx.errors import CancellationSwallowed, ContextCanceled, ContextEntrypointReturned

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.environment import ContextSwitchingEnvironment
    from greenctx.errors import Cancellation


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
    environment: ContextSwitchingEnvironment
    entrypoint: Callable[[], Any] | None
    """None for main."""
    cancellation: Cancellation | None
    """Set once destroy_context has begun."""
    destroyer: Context | None
    """The one that waits in destroy_context for this context to end, if any."""

    @property
    def has_started(self) -> bool:
        """Whether it runs, or has run."""
        return bool(self.greenlet) or self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether its greenlet has ended. (One that never started is destroyed without an end.)"""
        return self.greenlet is not None and bool(self.greenlet.dead)

    def run(self) -> None:
        """Run the entrypoint. Returns only for an end that nobody needs to hear of."""
        try:
            assert self.entrypoint is not None
            self.entrypoint()
        except GreenletExit as exit:
            if isinstance(exit, ContextCanceled) and exit.belongs_to(self.cancellation):
                return
            raise ContextExited(self.context_id, exit) from exit
        finally:
            # No calls here: a KeyboardInterrupt could arrive in one and leave the rest undone.
            registry = self.environment._registry
            if self.context_id in registry.started:
                del registry.started[self.context_id]
            if self.context_id in registry.unwinding:
                del registry.unwinding[self.context_id]
            del registry.by_greenlet[self.greenlet]
        if self.cancellation is None:
            raise ContextEntrypointReturned(self.context_id)
        if not self.cancellation.defused:
            raise CancellationSwallowed(self.context_id)

    if COMPILED:  # pragma: no cover
        run = Coroutine.run


def new_context(environment: ContextSwitchingEnvironment, entrypoint: Callable[[], Any], main: Context) -> Context:
    """A context that has not started, in a copy of the caller's `contextvars` context."""
    context = Context(environment, entrypoint, monotonic())
    context.greenlet = greenlet(context.run, main.greenlet)
    context.greenlet.gr_context = copy_context()
    return context


def main_context(environment: ContextSwitchingEnvironment, me: greenlet) -> Context:
    """Main, which begins on that greenlet."""
    context = Context(environment, None, monotonic())
    context.greenlet = me
    return context
