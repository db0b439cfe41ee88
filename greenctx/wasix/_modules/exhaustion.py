"""Exhaustion: which of wasmtime's errors, and of the system's, say that there is no more of something."""

from __future__ import annotations

import errno
from typing import Final

from greenctx.errors import ResourcesExhausted

_NUMBERS: Final = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def check_resources(error: Exception) -> None:
    """Raise `ResourcesExhausted` if it is this that the error says."""
    said = str(error).rstrip()
    for number in _NUMBERS:
        # wasmtime tells the system's number only in this text, as the last cause. What a guest is called comes before.
        if said.endswith(f"(os error {number})") or (isinstance(error, OSError) and error.errno == number):
            raise ResourcesExhausted(number) from error
