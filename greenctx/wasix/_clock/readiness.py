"""The readiness of file descriptors: what a program may wait for, and the system call that waits."""

from __future__ import annotations

import os
import select
from errno import EBADF
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

Wait = tuple[int, bool]
"""A file descriptor to wait for, and whether to wait until it can be written to, or else read from."""


def find_ready(wanted: Collection[Wait], seconds: float) -> set[Wait]:
    """Wait until a descriptor is ready, for so long at most; return all ready ones. Raises OSError for a closed one."""
    if not wanted:
        return set()
    if not hasattr(select, "poll"):
        return _find_ready_without_poll(wanted, seconds)
    masks: dict[int, int] = {}
    for descriptor, to_write in wanted:
        masks[descriptor] = masks.get(descriptor, 0) | (select.POLLOUT if to_write else select.POLLIN)
    poll = select.poll()
    for descriptor, mask in masks.items():
        poll.register(descriptor, mask)
    found = dict(poll.poll(seconds * 1000))
    if any(mask & select.POLLNVAL for mask in found.values()):
        raise OSError(EBADF, "a closed file descriptor")
    # Reading and writing do not block on an error or a hang-up either, so both count as ready.
    return {
        (descriptor, to_write)
        for descriptor, to_write in wanted
        if found.get(descriptor, 0) & ~(select.POLLIN if to_write else select.POLLOUT)
    }


def _find_ready_without_poll(wanted: Collection[Wait], seconds: float) -> set[Wait]:
    """The same without poll: on Windows, and where eventlet removed it, whose select lets other greenlets run."""
    to_read = [descriptor for descriptor, to_write in wanted if not to_write]
    to_write = [descriptor for descriptor, to_write in wanted if to_write]
    try:
        can_read, can_write, _ = select.select(to_read, to_write, [], seconds)
    except OSError:
        if os.name == "nt":  # it can wait for sockets only
            return set(wanted)
        raise
    return {(descriptor, False) for descriptor in can_read} | {(descriptor, True) for descriptor in can_write}
