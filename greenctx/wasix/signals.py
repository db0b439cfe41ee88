"""Signals that a guest raises: its exported handler is called, on the stack of the context that raised them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Func

from greenctx.wasix import abi
from greenctx.wasix.suspend import call
from greenctx.wasix.value_types import kind_of

if TYPE_CHECKING:
    from greenctx.wasix.stores import Caller

MOST = 64
"""The highest number of a signal."""


class Signals:
    """Those of one program."""

    def __init__(self) -> None:
        self.handler = abi.SIGNAL_HANDLER
        """The name of the exported function. WASIX's libc names one that there is not to block signals."""
        self._pending: list[int] = []

    def raise_(self, signal: int) -> None:
        """Let a signal be pending, once; 0 is none."""
        if signal and signal not in self._pending:
            self._pending.append(signal)

    def deliver(self, caller: Caller) -> None:
        """Have the guest handle what is pending; leave it so if there is no handler."""
        while self._pending:
            handler = caller.get(self.handler)
            if not isinstance(handler, Func):
                return
            ty = handler.type(caller)
            if [*map(kind_of, ty.params)] != ["i32"] or ty.results:
                return
            call(caller, handler, self._pending.pop(0))
