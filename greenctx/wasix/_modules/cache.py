"""Compiled modules, kept from one run to the next in the user's cache directory.

wasmtime's own cache is not used, because it trusts its files: of 120 runs, each with one bit of the file changed, 22
crashed or did something else. Here a file is used only if it is complete, belongs to the user, and was made from the
same module by the same wasmtime. Otherwise, or if anything is wrong with the directory, the module is compiled.
"""

from __future__ import annotations

import os
import stat
import zlib
from contextlib import suppress
from threading import get_ident

from greenctx.wasix._native.capi import LIBRARY

MAX_BYTES = 256 * 2**20
"""The size of all files together. Beyond it the least recently used files are evicted."""

_CHECKSUM = 4  # bytes of the checksum at the end of a file
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class ModuleCache:
    """The files in a directory. Each holds what the compiled module depends on, the module, and a checksum."""

    def __init__(self, directory: str) -> None:
        """The directory is made by the first `keep`."""
        self.directory = directory

    @classmethod
    def of_the_user(cls) -> ModuleCache | None:
        """Return the cache in ``$XDG_CACHE_HOME``, or in ``.cache`` at home; None without either."""
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not os.path.isabs(base):
            base = os.path.join(os.path.expanduser("~"), ".cache")
        return cls(os.path.join(base, "greenctx")) if os.path.isabs(base) else None

    def find(self, code: bytes, collector: bool) -> bytes | None:
        """Return the compiled module, with or without wasmtime's collector, if it was kept."""
        try:
            origin = _origin(code, collector)
            path = self._path(origin)
            content = _read_own(path)
        except OSError:
            return None
        checksum = zlib.crc32(memoryview(content)[:-_CHECKSUM]).to_bytes(_CHECKSUM, "little")
        if len(content) < len(origin) + _CHECKSUM or not content.startswith(origin) or not content.endswith(checksum):
            return None
        with suppress(OSError):
            os.utime(path)  # marks it as recently used
        return content[len(origin) : -_CHECKSUM]

    def keep(self, code: bytes, collector: bool, compiled: bytes) -> None:
        """Keep the compiled module for the next time, if possible."""
        with suppress(OSError):
            origin = _origin(code, collector)
            content = origin + compiled
            if len(content) > MAX_BYTES:
                import logging  # takes long to import

                logging.getLogger("greenctx").info("a compiled module of %d bytes is too large: not kept", len(content))
                return
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            _check_own(os.stat(self.directory))
            self._write(self._path(origin), content + zlib.crc32(content).to_bytes(_CHECKSUM, "little"))
            self._remove_oldest()

    def _path(self, origin: bytes) -> str:
        return os.path.join(self.directory, f"{zlib.crc32(origin):08x}-{len(origin):x}")

    def _write(self, path: str, content: bytes) -> None:
        """Replaced in one step: a reader finds the whole new file or the whole old one."""
        fresh = f"{path}.{os.getpid()}.{get_ident()}"
        try:
            with open(fresh, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(content)
            os.replace(fresh, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(fresh)
            raise

    def _remove_oldest(self) -> None:
        with os.scandir(self.directory) as entries:
            found = [(entry.stat(follow_symlinks=False), entry.path) for entry in entries]
        files = [(status, path) for status, path in found if not stat.S_ISDIR(status.st_mode)]
        total = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda file: file[0].st_mtime):
            if total <= MAX_BYTES:
                break
            os.unlink(path)
            total -= status.st_size


def _origin(code: bytes, collector: bool) -> bytes:
    """Return what a compiled module depends on, except engine and processor, which wasmtime compares itself."""
    library = os.stat(LIBRARY)
    made_by = ascii((collector, str(LIBRARY), library.st_size, library.st_mtime_ns, len(code)))
    return made_by.encode() + b"\n" + code


def _read_own(path: str) -> bytes:
    """Return the content of a file that only the user can write. Raises OSError.

    The process is going to run what the file holds.
    """
    with open(path, "rb", opener=lambda name, _: os.open(name, _FLAGS)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError("not a file")
        _check_own(found)
        return file.read()


def _check_own(found: os.stat_result) -> None:
    """Raise PermissionError if another user may write to the file."""
    if hasattr(os, "geteuid") and (found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise PermissionError("another user's")
