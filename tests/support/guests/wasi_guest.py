"""A guest that makes any WASI call for a test, with arguments that no C library passes."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, cast

import wasmtime
from wasmtime import Engine, Module, Store, WasiConfig

from greenctx.wasix import Linker, Stdio, call
from greenctx.wasix._fibers.stores import state_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wasmtime import Func, Memory

    from greenctx.wasix._clock.deadline import Deadline

_SIGNATURES = {
    "clock_time_get": "i32 i64 i32",
    "fd_advise": "i32 i64 i64 i32",
    "fd_close": "i32",
    "fd_datasync": "i32",
    "fd_fdstat_get": "i32 i32",
    "fd_fdstat_set_flags": "i32 i32",
    "fd_filestat_get": "i32 i32",
    "fd_filestat_set_size": "i32 i64",
    "fd_filestat_set_times": "i32 i64 i64 i32",
    "fd_pread": "i32 i32 i32 i64 i32",
    "fd_prestat_dir_name": "i32 i32 i32",
    "fd_prestat_get": "i32 i32",
    "fd_pwrite": "i32 i32 i32 i64 i32",
    "fd_read": "i32 i32 i32 i32",
    "fd_readdir": "i32 i32 i32 i64 i32",
    "fd_renumber": "i32 i32",
    "fd_seek": "i32 i64 i32 i32",
    "fd_sync": "i32",
    "fd_tell": "i32 i32",
    "fd_write": "i32 i32 i32 i32",
    "path_create_directory": "i32 i32 i32",
    "path_filestat_get": "i32 i32 i32 i32 i32",
    "path_filestat_set_times": "i32 i32 i32 i32 i64 i64 i32",
    "path_link": "i32 i32 i32 i32 i32 i32 i32",
    "path_open": "i32 i32 i32 i32 i32 i64 i64 i32 i32",
    "path_readlink": "i32 i32 i32 i32 i32 i32",
    "path_remove_directory": "i32 i32 i32",
    "path_rename": "i32 i32 i32 i32 i32 i32",
    "path_symlink": "i32 i32 i32 i32 i32",
    "path_unlink_file": "i32 i32 i32",
    "poll_oneoff": "i32 i32 i32 i32",
}

_WASIX_SIGNATURES = {
    "chdir": "i32 i32",
    "clock_time_set": "i32 i64",
    "epoll_create": "i32",
    "epoll_ctl": "i32 i32 i32 i32",
    "epoll_wait": "i32 i32 i32 i64 i32",
    "fd_dup": "i32 i32",
    "fd_dup2": "i32 i32 i32 i32",
    "fd_event": "i64 i32 i32",
    "fd_fdflags_get": "i32 i32",
    "fd_fdflags_set": "i32 i32",
    "fd_pipe": "i32 i32",
    "futex_wait": "i32 i32 i32 i32",
    "futex_wake": "i32 i32",
    "futex_wake_all": "i32 i32",
    "getcwd": "i32 i32",
    "path_open2": "i32 i32 i32 i32 i32 i64 i64 i32 i32 i32",
    "proc_id": "i32",
    "proc_parent": "i32 i32",
    "proc_raise": "i32",
    "proc_raise_interval": "i32 i64 i32",
    "proc_signal": "i32 i32",
    "proc_signals_get": "i32",
    "proc_signals_sizes_get": "i32",
    "stack_checkpoint": "i32 i32",
    "thread_id": "i32",
    "thread_local_create": "i64 i32",
    "thread_local_destroy": "i32",
    "thread_local_get": "i32 i32",
    "thread_local_set": "i32 i64",
    "thread_parallelism": "i32",
    "thread_signal": "i32 i32",
    "thread_sleep": "i64",
    "tty_get": "i32",
    "tty_set": "i32",
}


def _text(*modules: tuple[str, dict[str, str]]) -> str:
    imports = functions = ""
    for module, name, parameters in ((module, *each) for module, these in modules for each in these.items()):
        ty = f"(param {parameters}) (result i32)"
        arguments = " ".join(f"(local.get {index})" for index in range(len(parameters.split())))
        imports += f'(import "{module}" "{name}" (func ${name} {ty}))\n'
        functions += f'(func (export "{name}") {ty} (call ${name} {arguments}))\n'
    return f'(module {imports} (memory (export "memory") 2) {functions})'


ENGINE = Engine()
WASI = "wasi_snapshot_preview1", _SIGNATURES
MODULE = Module(ENGINE, _text(WASI))
WASIX = "wasix_32v1", _WASIX_SIGNATURES
WASIX_MODULE = Module(ENGINE, _text(WASI, WASIX))
PREVIEW0_MODULE = Module(ENGINE, _text(("wasi_unstable", _SIGNATURES)))
END = 2 * 65536  # of the guest's memory

SUBSCRIPTION = Struct("<Q B7x I4x Q Q H6x")
EVENT = Struct("<Q H B5x Q H6x")
MONOTONIC = 1

# The layout of the guest's memory.
IOVECS, RESULT, SUBSCRIPTIONS, EVENTS, PATH, BUFFERS = 64, 16, 4096, 8192, 12288, 65536


class WasiGuest:
    """With ``native`` wasmtime serves all calls, for comparison."""

    def __init__(
        self,
        stdio: Stdio | None,
        directory: str | None = None,
        *,
        native: bool = False,
        preopens: Mapping[str, str] | None = None,
        module: Module | None = None,
    ) -> None:
        self.store = Store(ENGINE)
        config = WasiConfig()
        for guest, host in ({"/data": directory} if directory is not None else preopens or {}).items():
            config.preopen_dir(host, guest)
        self.store.set_wasi(config)
        self.native = native
        linker: wasmtime.Linker
        if native:
            linker = wasmtime.Linker(ENGINE)
            linker.define_wasi()
        else:
            linker = Linker(ENGINE)
            linker.define_wasi(stdio)
            linker.define_wasix()
        module = module or (MODULE if native else WASIX_MODULE)
        self.exports = linker.instantiate(self.store, module).exports(self.store)
        self.memory = cast("Memory", self.exports["memory"])

    def limit(self, deadline: Deadline) -> None:
        """Enter the deadline as `Program` does."""
        state_of(self.store).deadline = deadline

    def call(self, name: str, *args: int) -> int:
        """Make the call; return its errno."""
        func = cast("Func", self.exports[name])
        return cast("int", func(self.store, *args) if self.native else call(self.store, func, *args))

    def put(self, address: int, data: bytes) -> None:
        self.memory.write(self.store, data, address)

    def get(self, address: int, size: int) -> bytes:
        return bytes(self.memory.read(self.store, address, address + size))

    def result(self, at: int = RESULT) -> int:
        return int.from_bytes(self.get(at, 4), "little")

    def path(self, text: bytes, at: int = PATH) -> tuple[int, int]:
        """Write a path; return the arguments for it."""
        self.put(at, text)
        return at, len(text)

    def buffers(self, *sizes: int) -> tuple[int, int, int]:
        """Lay out buffers one after the other; return the arguments for them and for the result."""
        start, iovecs = BUFFERS, b""
        for size in sizes:
            iovecs += start.to_bytes(4, "little") + size.to_bytes(4, "little")
            start += size
        self.put(IOVECS, iovecs)
        return IOVECS, len(sizes), RESULT

    def read(self, fd: int, *sizes: int) -> bytes | int:
        """Read into buffers of those sizes: the bytes, or the errno."""
        errno = self.call("fd_read", fd, *self.buffers(*sizes))
        return errno or self.get(BUFFERS, self.result())

    def write(self, fd: int, *parts: bytes) -> int:
        """Write those; the number of bytes or, negative, the errno."""
        arguments = self.buffers(*map(len, parts))
        self.put(BUFFERS, b"".join(parts))
        return -self.call("fd_write", fd, *arguments) or self.result()

    def open(self, name: str, *, create: bool = False) -> int:
        """Open a file of the directory for reading and writing; return its descriptor."""
        path = name.encode()
        self.put(PATH, path)
        errno = self.call("path_open", 3, 0, PATH, len(path), int(create), (1 << 29) - 1, (1 << 29) - 1, 0, RESULT)
        assert errno == 0, errno
        return self.result()

    def poll(self, *subscriptions: tuple[int, ...]) -> list[tuple[int, int, int]] | int:
        """Poll for (userdata, tag, subject, timeout, precision, flags)...: (userdata, error, type)..., or the errno."""
        self.put(SUBSCRIPTIONS, b"".join(SUBSCRIPTION.pack(*(*one, 0, 0, 0)[:6]) for one in subscriptions))
        errno = self.call("poll_oneoff", SUBSCRIPTIONS, EVENTS, len(subscriptions), RESULT)
        if errno:
            return errno
        return [event[:3] for event in EVENT.iter_unpack(self.get(EVENTS, self.result() * EVENT.size))]
