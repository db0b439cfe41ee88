"""Notes in dumps of stacks. Kept apart from the dumps, which import traceback and dataclasses: that takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

notes: dict[CodeType, Callable[[FrameType], str]] = {}
"""By code object: a function that returns a line to show above a frame of that code."""
