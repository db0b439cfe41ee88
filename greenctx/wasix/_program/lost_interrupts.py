"""Ctrl-C that comes in a ``__del__``, where Python drops it, comes again.

wasmtime's objects have ``__del__`` methods in Python. Of the signals that come while a program starts or ends, one in a
hundred comes in such a method. Python then reports the KeyboardInterrupt to `sys.unraisablehook` and goes on. So would
the guest, perhaps for ever.
"""

from __future__ import annotations

import _thread
import sys
from typing import TYPE_CHECKING

from greenctx.wasix._clock.epochs import can_be_signalled

if TYPE_CHECKING:
    from collections.abc import Callable


class LostInterrupts:
    """While entered in the main thread, delivers them again. Other errors go to the hook that was set before.

    A hook that others set meanwhile stays. Under gevent runs overlap, and the first to begin may end first. Its hook
    then stays beneath that of the other run, passes everything on, and goes with it.
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
            # By another thread, a moment later: at once it would arrive here, in this hook, and be lost again.
            _thread.start_new_thread(_thread.interrupt_main, ())
        else:
            self._before(lost)


def _handles_ctrl_c() -> bool:
    """Whether SIGINT has a handler in Python: `interrupt_main` does nothing without."""
    import signal  # which hardly any program needs

    return callable(signal.getsignal(signal.SIGINT))
