"""The greenlet of one context, and what its parent sees when it ends."""

from __future__ import annotations

from contextvars import copy_context
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from greenlet import GreenletExit, greenlet

from greenctx.errors import CancellationSwallowed, ContextCanceled, ContextEntrypointReturned

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.environment import ContextSwitchingEnvironment
    from greenctx.errors import Cancellation


class ContextExited(BaseException):
    """Carries a `GreenletExit` to the parent, to which greenlet would hand a bare one as if it were a result."""

    def __init__(self, context_id: int, exit_: GreenletExit) -> None:
        super().__init__(f"context {context_id} ended with {exit_!r}")
        self.exit = exit_

    def unwrap(self) -> NoReturn:
        """Raise the carried exception, its own ``__context__`` kept, while this one is handled.

        (While it is handled: should an interruption come instead, it has the carried exception in its context.)
        """
        exit, context = self.exit, self.exit.__context__
        try:
            raise exit
        finally:
            exit.__context__ = context
            del exit, context, self  # the traceback refers to this frame


class Context(greenlet):
    """A context other than main: a greenlet that runs the entrypoint.

    Its parent is main's greenlet or, while it is being destroyed, its destroyer's. The parent gets every end but a
    silent one as an exception: a return value could be lost to a signal's `KeyboardInterrupt`, which arrives after
    the call that returned it.
    """

    __slots__ = ("cancellation", "context_id", "created_at", "destroyer", "entrypoint", "environment")

    def __init__(
        self, environment: ContextSwitchingEnvironment, context_id: int, entrypoint: Callable[[], Any], parent: greenlet
    ) -> None:
        super().__init__(parent=parent)
        self.gr_context = copy_context()
        self.environment = environment
        self.context_id = context_id
        self.entrypoint = entrypoint
        self.created_at = monotonic()
        self.cancellation: Cancellation | None = None
        """Set once destroy_context has begun."""
        self.destroyer: greenlet | None = None
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
