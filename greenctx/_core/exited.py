"""What takes a `GreenletExit` out of a context."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from greenlet import GreenletExit


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
