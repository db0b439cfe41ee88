"""Notes for dumps of stacks. A module of its own, so that whoever has one need not import what dumps take."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

notes: dict[CodeType, Callable[[FrameType], str]] = {}
"""What to say above the frames of that code: what the Python stack does not show."""
