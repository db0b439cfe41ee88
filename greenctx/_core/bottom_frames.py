"""The Python frames at the bottom of greenlets, by which trio recognizes the user's code.

trio defers Ctrl-C while its own code runs, and takes code for its own if no frame below it belongs to a task. The
frames of a greenlet end at its bottom. So the bottom frame must be one that trio knows as the user's.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def call(function: Callable[[], object]) -> None:
    """Call the function: the first frame of a greenlet whose first function may be compiled."""
    function()


def need_frames(*bottoms: Callable[..., object]) -> bool:
    """Return whether trio runs here. Let Ctrl-C interrupt what runs above frames of `call` and of those functions."""
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return False
    try:
        trio.lowlevel.current_trio_token()
    except (AttributeError, RuntimeError):  # another thread is importing it; it does not run here
        return False
    for bottom in (call, *bottoms):
        trio.lowlevel.disable_ki_protection(bottom)
    return True
