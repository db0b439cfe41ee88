"""Deadlines: when a program must have ended, and how deadlines nest."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from greenctx.errors import TimeLimitExceeded
from greenctx.wasix._native._fiber import monotonic

if TYPE_CHECKING:
    from contextvars import Token

YIELD_SECONDS = 0.01

_innermost: ContextVar[Deadline | None] = ContextVar("greenctx.deadline", default=None)


class Deadline:
    """The time at which a program must have ended, if there is one.

    While it is entered, the programs that host functions run have the same deadline or an earlier one.
    """

    def __init__(self, seconds: float | None, yield_every: float = YIELD_SECONDS) -> None:
        self.yield_every = yield_every
        """On an event loop: how many seconds a guest may compute before the loop runs its other tasks."""
        self.seconds = seconds
        """The limit of time, in seconds, as the program was given it."""
        self.ends_at = None if seconds is None else monotonic() + seconds
        """The time of the deadline, by the native part's `monotonic`."""
        self._holds = False

    @classmethod
    def within_current(cls, seconds: float | None, yield_every: float = YIELD_SECONDS) -> Deadline:
        """Return a deadline so many seconds from now, or the entered one if that is earlier."""
        deadline, outer = cls(seconds, yield_every), _innermost.get()
        if outer is None or not outer._holds:  # a task that its program started inherits it, and may live longer
            return deadline
        if outer.ends_at is not None and (deadline.ends_at is None or outer.ends_at < deadline.ends_at):
            deadline.seconds, deadline.ends_at = outer.seconds, outer.ends_at
        return deadline

    def __bool__(self) -> bool:
        return self.ends_at is not None

    def __enter__(self) -> None:
        self._holds = True
        self._token: Token[Deadline | None] = _innermost.set(self)

    def __exit__(self, *_: object) -> None:
        self._holds = False
        _innermost.reset(self._token)
        del self._token  # refers to the context, which refers to this object

    def check(self) -> None:
        """Raise `TimeLimitExceeded` if the deadline is over."""
        if self.left() == 0:
            raise self.exceeded()

    def left(self) -> float | None:
        """Return how many seconds are left; None without a limit."""
        return None if self.ends_at is None else max(0.0, self.ends_at - monotonic())

    def exceeded(self) -> TimeLimitExceeded:
        """Return the error to raise."""
        assert self.seconds is not None
        return TimeLimitExceeded(self.seconds)
