"""Signals that a guest raises. Its exported handler is called on the stack of the context that raised the signal.

As in Wasmer, the guest names its handler. A signal that comes before ends the program, or is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Func

from greenctx._core.scope import current_context_id
from greenctx.errors import GuestExit
from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.values import type_text
from greenctx.wasix._modules import abi

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._fibers.stores import Caller

MAX_SIGNAL = 64
"""The highest number of a signal."""

_INT, _QUIT, _ABRT, KILL, PIPE = 2, 3, 6, 9, 13

_STATUS = {_INT: abi.INTR, _QUIT: abi.SUCCESS, _ABRT: 128 + _ABRT, KILL: abi.INTR, PIPE: abi.PIPE}
"""The exit status of a program that such a signal ends. As Wasmer has it."""

Raised = tuple[int, int]
"""A context's id, and a signal that was raised in that context."""


class Signals:
    """The signals of one program.

    While a context handles a signal, the same signal waits in that context, as on POSIX. So handlers cannot nest for
    ever.
    """

    def __init__(self) -> None:
        self.handler: str | None = None
        """The name of the exported function, if the guest has named one. WASIX's libc blocks signals by naming one that
        does not exist."""
        self._function: Func | None = None
        """The function of that name, if it can handle signals."""
        self.is_blocked = False
        """Whether signals wait, because the guest is not in a state in which its handler could be called."""
        self._pending: list[Raised] = []
        self._handled: set[Raised] = set()

    def name_handler(self, caller: Caller, name: str) -> None:
        """Let the caller's export of that name handle signals from now on."""
        function = caller.get(name)
        handles = isinstance(function, Func) and type_text(function.type(caller)) == "i32 ->"
        self.handler, self._function = name, function if handles else None  # type: ignore[assignment]

    def raise_(self, store: Store, signal: int) -> int:
        """Have a signal handled in the running context, now or as soon as possible; return an errno.

        Signal 0 does nothing.
        """
        if signal > MAX_SIGNAL:
            return abi.INVAL
        if signal == KILL or (self.handler is None and signal in _STATUS):
            raise GuestExit(_STATUS[signal])
        if self.handler is None:
            return abi.SUCCESS
        raised = current_context_id(), signal
        if signal and raised not in self._pending:
            self._pending.append(raised)
        self.deliver(store)
        return abi.SUCCESS

    def is_handled(self, signal: int) -> bool:
        """Whether the running context is handling that signal."""
        return (current_context_id(), signal) in self._handled

    def deliver(self, store: Store) -> None:
        """Have the guest handle the signals that wait in the running context, if it has a handler."""
        context_id = current_context_id()
        while self._function is not None and not self.is_blocked:
            waiting = [one for one in self._pending if one[0] == context_id and one not in self._handled]
            if not waiting:
                return
            raised = waiting[0]
            self._pending.remove(raised)
            try:
                self._handled.add(raised)
                call(store, self._function, raised[1])
            finally:
                self._handled.discard(raised)
