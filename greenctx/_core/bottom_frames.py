"""The Python frames at the bottom of greenlets, for those who decide by them.

trio lets Ctrl-C wait while its own code runs, and takes all code for its own below which it finds no task's frame. The
frames of a greenlet end at the greenlet's bottom. So there has to be a frame whose code trio knows as the user's.
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
