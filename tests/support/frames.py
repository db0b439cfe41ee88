"""The names of the frames in an exception's traceback, the same on the compiled path and on Python's."""

from __future__ import annotations

import traceback

COMPILED = "greenctx._core._switching."
NAMES = ("Switching.switch_context", "Switching._cancel", "Coroutine.run")
IN_PYTHON = {f"{COMPILED}{name}": name.partition(".")[2] for name in NAMES}
IN_PYTHON[f"{COMPILED}Coroutine.end"] = "run"


def frames(error: BaseException) -> list[str]:
    """Of the compiled frames, only those that the Python path has too, by their names there."""
    found: list[str] = []
    for frame in traceback.extract_tb(error.__traceback__):
        name = IN_PYTHON.get(frame.name, frame.name)
        if not name.startswith(COMPILED) and not (frame.name.endswith("Coroutine.end") and found[-1:] == [name]):
            found.append(name)
    return found
