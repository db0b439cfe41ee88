"""Notes in dumps of stacks. A module of its own, because dumps import traceback and dataclasses, which take long."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

notes: dict[CodeType, Callable[[FrameType], str]] = {}
"""By code object: a function that says, above a frame of that code, what the Python stack does not show."""
