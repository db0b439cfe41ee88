"""Which switch is in use: the compiled one, or Python's where that was not built or ``GREENCTX_PURE=1`` is set."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from greenlet import greenlet

COMPILED = False

if not TYPE_CHECKING and os.environ.get("GREENCTX_PURE", "0") in ("", "0"):  # pragma: no cover
    with suppress(ImportError):
        from greenctx._switching import Coroutine, Switching

        COMPILED = True

if TYPE_CHECKING or not COMPILED:  # pragma: no branch

    class Switching:
        """What an environment is made on: the attributes that a plain switch needs, and when compiled, that switch."""

        __slots__ = (
            "_active",
            "_caller",
            "_is_plain",
            "_main",
            "_main_can_start_others",
            "_outer",
            "_started",
            "_unstarted",
        )

        switch_context: Any

    class Coroutine(greenlet):
        """What a context is made on. (The compiled one has a way to be canceled that takes less time than `throw`.)"""

        __slots__ = ()

        cancel: Any
