"""A program's working directory and its preopened directories: where a guest's path leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx.wasix._files import paths
from greenctx.wasix._modules import abi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._files.paths import Preopen
    from greenctx.wasix._files.wasmtime_wasi import Scratch

FIRST_PREOPEN = 3
AT_FDCWD = 2**32 - 2
"""The number that WASI's libcs pass as a descriptor to mean the working directory."""

# Addresses in the scratch memory, and values of WASI preview 1 (wasi/api.h).
_PATH, _RESULT = 0, 2 * paths.MAX_LENGTH
_FOLLOW = 1  # of lookupflags: follow symbolic links
_FILE_TYPE, _DIRECTORY = 16, 3  # the offset of the type in a filestat, and the type of directories


class Directories:
    """The directories of one program. Its methods call wasmtime through ``scratch``."""

    def __init__(self) -> None:
        self.current = b"/"
        """The working directory: an absolute path."""
        self._preopens: list[Preopen] | None = None

    def change(self, scratch: Scratch, caller: Caller, path: bytes) -> int:
        """Change the working directory; return an errno. The root needs no check: every program begins there."""
        wanted = paths.normalized(path, self.current)
        if wanted != b"/":
            error = self._call(scratch, caller, "path_filestat_get", FIRST_PREOPEN, _FOLLOW, wanted)
            if error:
                return error
            if scratch.get(caller, _RESULT + _FILE_TYPE, 1)[0] != _DIRECTORY:
                return abi.NOTDIR
        self.current = wanted
        return abi.SUCCESS

    def find(self, scratch: Scratch, caller: Caller, path: bytes) -> tuple[int, int] | None:
        """Return the descriptor of the preopen that an absolute path is in, and how much of the path names it."""
        return paths.find(path, self.preopens(scratch, caller))

    def preopens(self, scratch: Scratch, caller: Caller) -> Sequence[Preopen]:
        """Return the preopened directories, by wasmtime's descriptors."""
        if self._preopens is None:
            self._preopens = [*_preopens(scratch, caller)]
        return self._preopens

    def open(
        self, scratch: Scratch, caller: Caller, fd: int, flags: int, path: bytes, *options: int
    ) -> tuple[int, int]:
        """Open a path as ``path_open``, which refuses absolute ones; return an errno and a descriptor.

        The path may also be relative to the working directory.
        """
        if fd == AT_FDCWD and not paths.is_absolute(path):
            path = self.current + b"/" + path
        error = self._call(scratch, caller, "path_open", fd, flags, path, *options)
        return error, _number(scratch, caller, _RESULT)

    def _call(
        self, scratch: Scratch, caller: Caller, name: str, fd: int, flags: int, path: bytes, *options: int
    ) -> int:
        """Call wasmtime's function with a path, absolute or relative to the descriptor; the result is at `_RESULT`."""
        if paths.is_absolute(path):
            found = self.find(scratch, caller, path)
            if found is None:
                return abi.NOENT
            fd, path = found[0], path[found[1] :] or b"."
        if len(path) > paths.MAX_LENGTH:
            return abi.NAMETOOLONG
        scratch.put(caller, _PATH, path)
        return scratch.call(caller, name, fd, flags, _PATH, len(path), *options, _RESULT)


def _preopens(scratch: Scratch, caller: Caller) -> list[Preopen]:
    found = []
    fd = FIRST_PREOPEN
    while scratch.call(caller, "fd_prestat_get", fd, _RESULT) == abi.SUCCESS:
        length = _number(scratch, caller, _RESULT + 4)
        if scratch.call(caller, "fd_prestat_dir_name", fd, _PATH, length) == abi.SUCCESS:
            found.append((fd, scratch.get(caller, _PATH, length)))
        fd += 1
    return found


def _number(scratch: Scratch, caller: Caller, address: int) -> int:
    return int.from_bytes(scratch.get(caller, address, 4), "little")
