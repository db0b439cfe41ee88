"""Send Ctrl-C again if it came in a ``__del__``, where Python drops it.

The objects of wasmtime's package have ``__del__`` methods in Python. Of the signals that come while a program starts or
ends, one in a hundred comes in such a method. Python reports that KeyboardInterrupt to `sys.unraisablehook` and goes
on. The guest would go on too, perhaps for ever.
"""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING

from greenctx.wasix._clock.epochs import can_be_signalled

if TYPE_CHECKING:
    from collections.abc import Callable


class LostInterrupts:
    """While entered in the main thread, sends lost interrupts again. Other errors go to the hook that was set before.

    A hook that other code sets meanwhile stays. Under gevent runs overlap, and the first to begin may end first. Its
    hook then stays below the hook of the other run, passes everything on, and disappears with it.
    """

    def __init__(self) -> None:
        self._enters = can_be_signalled()
        self._holds = False
        self._before: Callable[[sys.UnraisableHookArgs], object] = sys.__unraisablehook__

    def __enter__(self) -> None:
        if self._enters:
            self._before = sys.unraisablehook
            self._holds = True
            sys.unraisablehook = self

    def __exit__(self, *_: object) -> None:
        self._holds = False
        if sys.unraisablehook is self:
            before = self._before
            while isinstance(before, LostInterrupts) and not before._holds:
                before = before._before
            sys.unraisablehook = before

    def __call__(self, lost: sys.UnraisableHookArgs) -> None:
        if self._holds and issubclass(lost.exc_type, KeyboardInterrupt) and can_be_signalled() and _handles_ctrl_c():
            # Another thread sends it a moment later: sent at once, it would arrive in this hook and be lost again.
            _thread.start_new_thread(_thread.interrupt_main, ())
        else:
            self._before(lost)


def _handles_ctrl_c() -> bool:
    """Whether SIGINT has a handler in Python. Without one, `interrupt_main` does nothing."""
    import signal  # needed by hardly any program

    return callable(signal.getsignal(signal.SIGINT))
