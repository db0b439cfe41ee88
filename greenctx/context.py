"""The greenlet of one context, and what its parent sees when it ends."""

from __future__ import annotations

from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit

from greenctx.errors import CancellationSwallowed, ContextCanceled, ContextEntrypointReturned
from greenctx.exited import ContextExited
from greenctx.switching import Coroutine

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenlet import greenlet

    from greenctx.environment import ContextSwitchingEnvironment
    from greenctx.errors import Cancellation


class Context(Coroutine):
    """A context other than main: a greenlet that runs the entrypoint.

    Its parent is main's greenlet or, while it is being destroyed, its destroyer's. The parent gets every end but a
    silent one as an exception: a return value could be lost to a signal's `KeyboardInterrupt`, which arrives after
    the call that returned it.
    """

    __slots__ = ("cancellation", "context_id", "created_at", "destroyer", "entrypoint", "environment")

    context_id: int
    created_at: float
    environment: ContextSwitchingEnvironment
    entrypoint: Callable[[], Any]
    cancellation: Cancellation | None
    """Set once destroy_context has begun."""
    destroyer: greenlet | None
    """The one that waits in destroy_context for this context to end, if any."""

    def run(self) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # in greenlet, it is to be overridden
        """Run the entrypoint. Returns only for an end that nobody needs to hear of."""
        try:
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
        if self.cancellation is None:
            raise ContextEntrypointReturned(self.context_id)
        if not self.cancellation.defused:
            raise CancellationSwallowed(self.context_id)


def new_context(
    environment: ContextSwitchingEnvironment, context_id: int, entrypoint: Callable[[], Any], main: greenlet
) -> Context:
    """A context that has not started, in a copy of the caller's `contextvars` context."""
    context = Context(None, main)  # not by an __init__ in Python, which took half as long again
    context.environment = environment
    context.context_id = context_id
    context.entrypoint = entrypoint
    context.created_at = monotonic()
    context.cancellation = context.destroyer = None
    context.gr_context = copy_context()
    return context
