"""Send Ctrl-C again if it came in a ``__del__``, where Python drops it.

The objects of wasmtime's package have ``__del__`` methods in Python. Of the signals that come while a program starts or
ends, one in a hundred comes in such a method. Python reports that KeyboardInterrupt to `sys.unraisablehook` and goes
on. The guest would go on too, perhaps for ever.
"""

from __future__ import annotations

import sys

from greenctx.wasix._clock.epochs import can_be_signalled
from greenctx.wasix._native._fiber import UnraisableHook


class LostInterrupts(UnraisableHook):
    """While entered in the main thread, sends lost interrupts again. Other errors go to the hook that was set before.

    A hook that other code sets meanwhile stays. Under gevent runs overlap, and the first to begin may end first. Its
    hook then stays below the hook of the other run, passes everything on, and disappears with it.
    """

    def __enter__(self) -> None:
        if can_be_signalled():
            self.before = sys.unraisablehook
            self.delivers = True
            sys.unraisablehook = self

    def __exit__(self, *_: object) -> None:
        self.delivers = False
        if sys.unraisablehook is self:
            before = self.before
            while isinstance(before, LostInterrupts) and not before.delivers:
                before = before.before
            sys.unraisablehook = before
