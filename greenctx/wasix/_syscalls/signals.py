"""Signals that a guest raises: its exported handler is called, on the stack of the context that raised them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Func

from greenctx._core.scope import current_context_id
from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.value_types import kind_of
from greenctx.wasix._modules import abi

if TYPE_CHECKING:
    from greenctx.wasix._fibers.stores import Caller

MAX_SIGNAL = 64
"""The highest number of a signal."""

Raised = tuple[int, int]
"""The id of a context, and a signal that was raised in it."""


class Signals:
    """Those of one program.

    While a context handles a signal, the same one waits in that context, as is usual; so nothing can nest for ever.
    """

    def __init__(self) -> None:
        self.handler = abi.SIGNAL_HANDLER
        """The name of the exported function. WASIX's libc names one that there is not to block signals."""
        self._pending: list[Raised] = []
        self._handled: set[Raised] = set()

    def raise_(self, caller: Caller, signal: int) -> None:
        """Let a signal be handled in the context that is running: now, or as soon as it can be. 0 is none."""
        raised = current_context_id(), signal
        if signal and raised not in self._pending:
            self._pending.append(raised)
        self.deliver(caller)

    def deliver(self, caller: Caller) -> None:
        """Have the guest handle what waits in the context that is running, unless it has no handler."""
        context_id = current_context_id()
        while (handler := self._find_handler(caller)) is not None:
            waiting = [one for one in self._pending if one[0] == context_id and one not in self._handled]
            if not waiting:
                return
            raised = waiting[0]
            self._pending.remove(raised)
            try:
                self._handled.add(raised)
                call(caller, handler, raised[1])
            finally:
                self._handled.discard(raised)

    def _find_handler(self, caller: Caller) -> Func | None:
        handler = caller.get(self.handler)
        if not isinstance(handler, Func):
            return None
        ty = handler.type(caller)
        return handler if [*map(kind_of, ty.params)] == ["i32"] and not ty.results else None
