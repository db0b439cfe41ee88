"""The names of the frames in an exception's traceback, the same on the compiled path and on Python's."""

from __future__ import annotations

import traceback

COMPILED = "greenctx._switching."


def frames(error: BaseException) -> list[str]:
    """Of the compiled frames only that of switch_context, by the name that Python's has."""
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    names = [name.removeprefix(f"{COMPILED}Switching.") if name.endswith(".switch_context") else name for name in names]
    return [name for name in names if not name.startswith(COMPILED)]
