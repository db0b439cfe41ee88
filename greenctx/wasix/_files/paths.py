"""A guest's paths: from its root or its working directory, and found in its preopened directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

Preopen = tuple[int, bytes]
"""A preopened directory: its descriptor, and its name in the guest."""

MAX_LENGTH = 4096
"""The longest path, in bytes, as on most systems."""


def is_absolute(path: bytes) -> bool:
    return path.startswith(b"/")


def normalized(path: bytes, directory: bytes = b"/") -> bytes:
    """Return the absolute path without ``.``, ``..`` and empty parts, from the text alone: no links are followed."""
    parts: list[bytes] = []
    for part in (path if is_absolute(path) else directory + b"/" + path).split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/" + b"/".join(parts)


def find(path: bytes, preopens: Sequence[Preopen]) -> tuple[int, int] | None:
    """Return the descriptor of the preopen that an absolute path is in, and how much of the path names it, or None.

    Like WASIX's libc, choose the innermost preopen and, of several by the same name, the last. A preopen's relative
    name is relative to the root, where every program begins. If the path names the preopen itself, the rest of the path
    is empty.
    """
    best: tuple[int, int, int] | None = None
    for fd, name in preopens:
        wanted = [part for part in name.split(b"/") if part not in (b"", b".")]
        end = _match(path, wanted)
        if end is not None and (best is None or len(wanted) >= best[0]):
            best = len(wanted), fd, end
    return None if best is None else best[1:]


def _match(path: bytes, wanted: list[bytes]) -> int | None:
    """Return where the rest of the path begins, if the path begins with those parts."""
    end = _skip(path, 0)
    for part in wanted:
        after = end + len(part)
        if path[end:after] != part or path[after : after + 1] not in (b"", b"/"):
            return None
        end = _skip(path, after)
    return end


def _skip(path: bytes, position: int) -> int:
    """Return the position after slashes and single dots."""
    while path[position : position + 1] == b"/" or (
        path[position : position + 1] == b"." and path[position + 1 : position + 2] in (b"", b"/")
    ):
        position += 1
    return position
