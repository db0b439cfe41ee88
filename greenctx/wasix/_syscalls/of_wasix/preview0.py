"""WASI preview 0 (``wasi_unstable``), for programs of 2019: preview 1, translated where preview 0 differs.

They differ in the numbers for ``whence``, and in the layouts of filestat and subscription (phases/old/snapshot_0 in
WASI's repository).
"""

from __future__ import annotations

from functools import partial
from struct import Struct
from typing import TYPE_CHECKING

from greenctx.wasix._files.paths import MAX_LENGTH
from greenctx.wasix._modules import abi
from greenctx.wasix._syscalls.guest_memory import GuestMemory
from greenctx.wasix._syscalls.of_wasix.unprovided import unprovided
from greenctx.wasix._syscalls.of_wasix.wasi_in_wasix import declare, wasi_calls
from greenctx.wasix._syscalls.poll import Subscription
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._files.wasmtime_wasi import Scratch
    from greenctx.wasix._syscalls.process import DescriptorTables
    from greenctx.wasix._syscalls.table import SystemCall

_WHENCE = {0: 1, 1: 2, 2: 0}
"""From here, from the end, from the beginning: in preview 0, and in preview 1."""

_FILESTAT_1 = Struct("<Q Q B 7x Q Q Q Q Q")  # device, inode, type, links, size, times
_FILESTAT = Struct("<Q Q B 3x I Q Q Q Q")
_SUBSCRIPTION = Struct("<Q B7x I4x I4x Q Q H6x")  # userdata, tag, fd, clock, timeout, precision, flags
_CLOCK = 0  # a tag

_RESULT, _PATH = 0, 64  # addresses in the scratch memory


def wasi_preview0(descriptors: DescriptorTables) -> dict[str, SystemCall]:
    """Declare all functions of preview 0, by name."""
    module = abi.WASI_UNSTABLE_MODULE
    calls = wasi_calls(descriptors, module, for_wasix=False)
    seek, poll = calls["fd_seek"].function, calls["poll_oneoff"].function
    translated: dict[str, Callable[..., int | None]] = {
        "fd_filestat_get": fd_filestat_get,
        "fd_seek": partial(fd_seek, seek),
        "path_filestat_get": path_filestat_get,
        "poll_oneoff": partial(poll, layout=_SUBSCRIPTION, decode=_subscription),
    }
    for name, function in translated.items():
        calls[name] = declare(module, name, calls[name].type, function)
    calls["proc_raise"] = unprovided(module, "proc_raise", "i32 -> i32")
    return calls


def fd_seek(
    seek: Callable[..., int | None], caller: Caller, fd: int, offset: int, whence: int, result_pointer: int
) -> int | None:
    """Move to another position in the file."""
    if whence not in _WHENCE:
        return abi.INVAL
    return seek(caller, fd, offset, _WHENCE[whence], result_pointer)


def fd_filestat_get(caller: Caller, fd: int, result_pointer: int) -> int:
    """Store the file's type, size and times."""
    return _stat(caller, result_pointer, "fd_filestat_get", fd)


def path_filestat_get(caller: Caller, fd: int, flags: int, path: int, length: int, result_pointer: int) -> int:
    """Store the type, size and times of the file at that path."""
    name = GuestMemory(caller).read_path(path, length)
    if len(name) > MAX_LENGTH:
        return abi.NAMETOOLONG
    _scratch(caller).put(caller, _PATH, name)
    return _stat(caller, result_pointer, "path_filestat_get", fd, flags, _PATH, len(name))


def _stat(caller: Caller, result_pointer: int, name: str, *args: int) -> int:
    memory, scratch = GuestMemory(caller), _scratch(caller)
    memory.check(result_pointer, _FILESTAT.size)
    error = scratch.call(caller, name, *args, _RESULT)
    if error == abi.SUCCESS:
        fields = [*_FILESTAT_1.unpack(scratch.get(caller, _RESULT, _FILESTAT_1.size))]
        fields[3] = min(fields[3], 2**32 - 1)  # links
        memory.write(result_pointer, _FILESTAT.pack(*fields))
    return error


def _scratch(caller: Caller) -> Scratch:
    return process_of(caller.store).scratch(caller)


def _subscription(userdata: int, tag: int, fd: int, clock: int, *rest: int) -> Subscription:
    return Subscription(userdata, tag, clock if tag == _CLOCK else fd, *rest)
