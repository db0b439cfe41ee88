"""Which switch is in use: the compiled one, or Python's where that was not built or ``GREENCTX_PURE=1`` is set."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from greenctx.errors import Cancellation

COMPILED = False

if not TYPE_CHECKING and os.environ.get("GREENCTX_PURE", "0") in ("", "0"):  # pragma: no cover
    with suppress(ImportError):
        from greenctx._core._switching import Coroutine, Switching

        COMPILED = True

if TYPE_CHECKING or not COMPILED:  # pragma: no branch

    class Switching:
        """What an environment is made on: the attributes that a plain switch needs, and when compiled, that switch."""

        __slots__ = (
            "_active",
            "_by_greenlet",
            "_caller",
            "_is_plain",
            "_main",
            "_main_can_start_others",
            "_outer",
            "_started",
            "_unstarted",
            "_unwinding",
        )

        switch_context: Any

    class Coroutine:
        """What a context is made on: its attributes, and when compiled, its start, its end and its cancellation."""

        __slots__ = (
            "cancellation",
            "context_id",
            "created_at",
            "destroyer",
            "entrypoint",
            "greenlet",
            "registry",
        )

        def __init__(self, registry: Any, entrypoint: Any, created_at: float) -> None:
            self.registry = registry
            self.context_id = 0
            self.entrypoint = entrypoint
            self.created_at = created_at
            self.greenlet: Any = None
            self.cancellation: Cancellation | None = None
            self.destroyer: Any = None

        run: Any
        cancel: Any
