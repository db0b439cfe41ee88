"""What stands for the frames of guests in dumps of stacks.

wasmtime walks a guest's stack when a trap or an exception is made, and its API can do so for nothing else: the stack of
a fiber that is suspended is not among those that it looks at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx._reports.frame_notes import notes
from greenctx.wasix._fibers.host_functions import HostFunction

if TYPE_CHECKING:
    from types import FrameType


def _in_host_call(frame: FrameType) -> str:
    function = frame.f_locals.get("self")
    name = function.name if isinstance(function, HostFunction) else "a host function"
    return f"(a guest, which has called {name})"


notes[HostFunction.serve.__code__] = _in_host_call
