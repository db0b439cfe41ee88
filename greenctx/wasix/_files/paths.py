"""Paths, as a guest means them: from its root and its working directory, found in its preopened directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Preopen = tuple[int, bytes]
"""A descriptor and the guest's name of the directory."""

MAX_LENGTH = 4096
"""Bytes of a path, as on most systems."""


def is_absolute(path: bytes) -> bool:
    return path.startswith(b"/")


def normalized(path: bytes, directory: bytes = b"/") -> bytes:
    """The absolute path without ``.``, ``..`` and empty parts, worked out from the text: links are not followed."""
    parts: list[bytes] = []
    for part in (path if is_absolute(path) else directory + b"/" + path).split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/" + b"/".join(parts)


def find(path: bytes, preopens: Sequence[Preopen]) -> tuple[int, int] | None:
    """Where an absolute path is: the descriptor, and how much of the path that stands for. None: in no preopen.

    That is the innermost directory and, of several by the same name, the last, as in WASIX's libc. A relative name is
    taken from the root, where every program begins. What is left of the path may be nothing: the directory itself.
    """
    best: tuple[int, int, int] | None = None
    for fd, name in preopens:
        wanted = [part for part in name.split(b"/") if part not in (b"", b".")]
        end = _match(path, wanted)
        if end is not None and (best is None or len(wanted) >= best[0]):
            best = len(wanted), fd, end
    return None if best is None else best[1:]


def _match(path: bytes, wanted: list[bytes]) -> int | None:
    """Where the rest of the path begins if it begins with those parts."""
    end = _skip(path, 0)
    for part in wanted:
        after = end + len(part)
        if path[end:after] != part or path[after : after + 1] not in (b"", b"/"):
            return None
        end = _skip(path, after)
    return end


def _skip(path: bytes, position: int) -> int:
    """Past slashes, and parts that are a dot."""
    while path[position : position + 1] == b"/" or (
        path[position : position + 1] == b"." and path[position + 1 : position + 2] in (b"", b"/")
    ):
        position += 1
    return position
