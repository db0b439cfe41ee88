"""Exhaustion: recognize the errors of wasmtime and of the system which say that a resource is used up."""

from __future__ import annotations

import errno
from typing import Final

from greenctx.errors import ResourcesExhausted

_NUMBERS: Final = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


def check_resources(error: Exception) -> None:
    """Raise `ResourcesExhausted` if the error says that a resource is used up."""
    said = str(error).rstrip()
    for number in _NUMBERS:
        # wasmtime gives the system's errno only in this text, as the last cause. A guest's name can only come before
        # it.
        if said.endswith(f"(os error {number})") or (isinstance(error, OSError) and error.errno == number):
            raise ResourcesExhausted(number) from error
