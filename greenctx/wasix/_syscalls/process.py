"""The record of one program in one store, which the store's `StoreState` refers to."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from wasmtime import Memory, WasmtimeError

from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._files.descriptors import MAX_FILES, Descriptors, TooManyDescriptors
from greenctx.wasix._files.directories import Directories
from greenctx.wasix._files.terminal import TerminalModes
from greenctx.wasix._files.wasmtime_wasi import Scratch, WasmtimeWasi
from greenctx.wasix._modules import abi
from greenctx.wasix._native import capi
from greenctx.wasix._native._fiber import DIRECT_CALLS, DirectLinker
from greenctx.wasix._syscalls.of_wasix.setjmp import Checkpoints
from greenctx.wasix._syscalls.of_wasix.timers import Timers
from greenctx.wasix._syscalls.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Store

    from greenctx.wasix._fibers.stores import Caller
    from greenctx.wasix._files.stdio import Stdio
    from greenctx.wasix._modules.names import EntrypointNames


class Process:
    """The open files and the settings of the program in one store.

    Nothing here may refer to the store, whose state refers to this: the store must be freed when it is forgotten.
    """

    def __init__(self) -> None:
        self.descriptors: dict[Stdio | None, Descriptors] = {}
        """By the standard streams that they began with. See `DescriptorTables`."""
        self.max_files: int | None = MAX_FILES
        """How many descriptors may be open in wasmtime; None is no limit."""
        self._open_files: int | None = None
        self.directories = Directories()
        self.signals = Signals()
        self.timers = Timers(self.signals)
        self.checkpoints = Checkpoints(self.signals)
        self.entrypoint_names: EntrypointNames | None = None
        self.on_second_context: Callable[[], object] | None = None
        """Called when context_create has created the second context."""
        self.thread_locals: dict[int, int] = {}
        self.terminal_modes = True, True, True
        """Whether it echoes, waits for whole lines, and has line feeds: as the guest set it."""
        self.terminal = TerminalModes()
        self.called_in_vain: set[tuple[str, str]] = set()
        """The functions that the guest has called, but greenctx does not provide."""
        self._began = time.thread_time_ns()
        self._wasi: dict[bytes, WasmtimeWasi] = {}
        """By the guest's memory, as wasmtime identifies it."""
        self._scratch: Scratch | None = None

    def processor_time(self) -> int:
        """Return the processor time in nanoseconds that the thread has used since the process began."""
        return max(0, time.thread_time_ns() - self._began)

    def wasi(self, caller: Caller) -> WasmtimeWasi:
        """Return wasmtime's functions on the memory that the calling guest exports."""
        memory = caller.get(abi.MEMORY)
        if not isinstance(memory, Memory):
            raise WasmtimeError(f"a guest that calls WASI has to export its memory as {abi.MEMORY!r}")
        key = capi.memory_key(memory)
        wasi = self._wasi.get(key)
        if wasi is None:
            wasi = self._wasi[key] = WasmtimeWasi(caller.store, memory)
        return wasi

    def scratch(self, caller: Caller) -> Scratch:
        """Return wasmtime's functions on a memory of the host's own."""
        if self._scratch is None:
            self._scratch = Scratch(caller.store)
        return self._scratch

    def is_open(self, caller: Caller, fd: int) -> bool:
        """Whether the descriptor is open in wasmtime."""
        return self.scratch(caller).call(caller, "fd_fdstat_get", fd, 0) == abi.SUCCESS

    def now(self, caller: Caller, clock: int) -> int:
        """Return the time of a clock in nanoseconds, as wasmtime tells it: its monotonic clock begins anywhere."""
        scratch = self.scratch(caller)
        scratch.call(caller, "clock_time_get", clock, 1, 0)
        return int.from_bytes(scratch.get(caller, 0, 8), "little")

    def may_open(self, caller: Caller) -> bool:
        """Whether the limit allows one more of wasmtime's descriptors."""
        return self.max_files is None or self.open_files(caller) < self.max_files

    def open_files(self, caller: Caller) -> int:
        """Return how many descriptors are open in wasmtime. Ask before the first one is opened or closed."""
        if self._open_files is None:
            count = 0
            while self.is_open(caller, count):
                count += 1
            self._open_files = count
        return self._open_files

    def note_files(self, caller: Caller, change: int) -> None:
        """Note that one more descriptor is open in wasmtime, or one fewer."""
        self._open_files = self.open_files(caller) + change


def process_of(store: Store) -> Process:
    """Return the process in the store. Raises what `state_of` does."""
    state = state_of(store)
    process = state.process
    if not isinstance(process, Process):
        process = state.process = Process()
    return process


def call_wasmtime(name: str, caller: Caller, *args: int) -> int:
    """Call wasmtime's function on the memory that the calling guest exports; return its errno."""
    return process_of(caller.store).wasi(caller).call(caller, name, *args)


class DescriptorTables:
    """Finds the file descriptors of a guest's process. One object for all system calls of a linker.

    A store may have guests of several linkers, each with standard streams of its own: each has a table of its own.
    """

    def __init__(self, *, calls_directly: bool = True) -> None:
        self.stdio: Stdio | None = None
        """The standard streams of the linker's guests; None leaves reading and writing to wasmtime."""
        self.direct_linker = DirectLinker(calls_directly)
        """Lets guests of the linker call directly."""
        self.has_duplicates = False
        """Whether the linker has WASIX's calls about files, so that guests can duplicate descriptors."""

    def of(self, caller: Caller) -> Descriptors:
        """Return the descriptors that greenctx serves."""
        tables = process_of(caller.store).descriptors
        table = tables.get(self.stdio)
        if table is None:
            table = tables[self.stdio] = Descriptors({} if self.stdio is None else self.stdio.streams())
        return table

    def call_wasmtime(self, name: str, caller: Caller, fd: int, *args: int) -> int:
        """Call wasmtime's function for the file that the descriptor refers to; return its errno.

        From now on the guest calls the function directly.
        """
        descriptors, wasi = self.of(caller), process_of(caller.store).wasi(caller)
        errno = wasi.call(caller, name, descriptors.wasmtime_fd(fd), *args)
        if name in DIRECT_CALLS:
            function = wasi.function(caller, name)
            self._learn(caller, wasi, name, capi.func_address(function), function)
        return errno

    def read_or_write_directly(self, caller: Caller) -> None:
        """From now on, let the guest read and write the process's own standard streams directly."""
        self._learn(caller, process_of(caller.store).wasi(caller))

    def _learn(self, caller: Caller, wasi: WasmtimeWasi, *function: Any) -> None:
        assert wasi.memory is not None
        descriptors = self.of(caller)
        if descriptors.direct.is_stale:
            descriptors.update_direct()
        descriptors.direct.learn(self.direct_linker, capi.item_address(wasi.memory), *function)
        state_of(caller.store).call_directly(descriptors.direct)

    def note_opened(self, caller: Caller, wasmtime_fd: int) -> int | None:
        """Note that wasmtime has opened a descriptor. Return the program's number for it.

        Return None, and close the descriptor, if there is no room for more.
        """
        process = process_of(caller.store)
        try:
            number = self.of(caller).number_of_new(wasmtime_fd)
        except TooManyDescriptors:
            process.scratch(caller).call(caller, "fd_close", wasmtime_fd)
            return None
        process.note_files(caller, 1)
        return number

    def is_open(self, caller: Caller, fd: int) -> bool:
        """Whether the descriptor is open, here or in wasmtime."""
        descriptors = self.of(caller)
        if descriptors.get(fd) is not None:
            return True
        return process_of(caller.store).is_open(caller, descriptors.wasmtime_fd(fd))
