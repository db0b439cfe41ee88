"""Foreign text, from a guest or a file: read it up to a limit, and escape what would control a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import RawIOBase
    from typing import BinaryIO

HEAD = 4096
"""How many bytes of a file are read before it is judged."""

_PART = 2**20


def read_file(name: str, max_bytes: int, is_plausible: Callable[[bytes], bool]) -> bytes:
    """Return the content of a file. See `read`; raises OSError, too."""
    with Path(name).open("rb", buffering=0) as file:
        return read(file, max_bytes, is_plausible)


def read(file: BinaryIO | RawIOBase, max_bytes: int, is_plausible: Callable[[bytes], bool]) -> bytes:
    """Return the content of a binary file, or only its head if the head is not plausible.

    Raises ValueError for more than ``max_bytes``. A device such as /dev/zero has no end.
    """
    parts = [file.read(HEAD) or b""]
    size = len(parts[0])
    if is_plausible(parts[0]):
        while size <= max_bytes and (part := file.read(_PART)):
            parts.append(part)
            size += len(part)
    if size > max_bytes:
        raise ValueError(f"it has more than {max_bytes} bytes")
    return b"".join(parts)


def reason_of(error: Exception) -> str:
    """Return why a file could not be read or written, without the file's name."""
    return getattr(error, "strerror", None) or str(error)


def printable(text: str) -> str:
    """Return the text with escapes in place of control characters, line ends, and other characters without a shape."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
