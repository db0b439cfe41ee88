"""A guest's trap as an exception of greenctx: plain facts, which outlive the store and can be pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wasmtime import Trap

from greenctx._core.context import MAIN, MAIN_NAME
from greenctx._core.scope import current
from greenctx.errors import GreenctxError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmtime import TrapCode


class GuestFrame(NamedTuple):
    """A frame of a guest's backtrace, with the facts of a `wasmtime.Frame`."""

    func_index: int
    func_name: str | None
    module_name: str | None
    module_offset: int
    func_offset: int


class GuestTrap(GreenctxError, Trap):
    """The guest trapped. Also a `wasmtime.Trap`, for code that catches these."""

    # The base class asks wasmtime for these facts each time. Its trap does not outlive the process, and cannot be
    # copied.
    message: str = ""
    """wasmtime's message, with the backtrace."""
    trap_code: TrapCode | None = None
    """The reason; None when a host function or wasmtime itself ended the call."""
    frames: Sequence[GuestFrame] = ()  # type: ignore[assignment]
    """The frames of the backtrace, innermost first."""

    def __init__(
        self,
        message: str,
        code: TrapCode | None = None,
        frames: Sequence[GuestFrame] = (),
        context_id: int = MAIN,
        context_name: str = MAIN_NAME,
    ) -> None:
        # Not by `GreenctxError`, which passes them on to the next base: that makes a trap of wasmtime's of one message.
        Exception.__init__(self, message, code, tuple(frames), context_id, context_name)
        self.message = message
        self.trap_code = code
        self.frames = tuple(frames)
        self.context_id = context_id
        """The context in which the guest trapped. (An error that ends another context is raised in main.)"""
        self.context_name = context_name

    @property
    def code(self) -> TrapCode | None:
        """The same as ``trap_code``."""
        return self.trap_code

    @classmethod
    def of(cls, trap: Trap) -> GuestTrap:
        """Take the facts of a trap that ended a call of the calling context."""
        frames = [
            GuestFrame(frame.func_index, frame.func_name, frame.module_name, frame.module_offset, frame.func_offset)
            for frame in trap.frames
        ]
        scope = current.get()
        context = (MAIN, MAIN_NAME) if scope is None else (scope.active_id(), scope.active_name())
        return cls(trap.message, trap.trap_code, frames, *context)

    def __str__(self) -> str:
        return self.message


GuestTrap.__module__ = "greenctx.wasix"  # its public module, where pickles look for it
