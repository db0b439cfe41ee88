"""Program: a WASI command with its arguments, environment variables and directories; run it, get its exit status."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, cast

from wasmtime import Store, WasmtimeError

from greenctx._core.aio import await_, current_run
from greenctx._core.scope import NoContexts
from greenctx.environment import ContextSwitchingEnvironment
from greenctx.errors import GuestExit, InvalidProgram, ProgramClosed, ProgramInUse, StoreInUse
from greenctx.wasix._clock.deadline import YIELD_SECONDS, Deadline
from greenctx.wasix._clock.epochs import SharedEpochThread, can_be_signalled, epoch_thread, yield_every_epoch
from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._files.stdio import Stdio
from greenctx.wasix._linking.imports import check_imports
from greenctx.wasix._linking.linker import Linker
from greenctx.wasix._modules.abi import START
from greenctx.wasix._modules.compile import (
    check_start,
    compile_module,
    in_one_line,
    never_waits,
    read_code,
    switches_contexts,
    to_binary,
)
from greenctx.wasix._modules.names import EntrypointNames
from greenctx.wasix._modules.shared_memory import unshare_memory
from greenctx.wasix._native.capi import close
from greenctx.wasix._program.limits import Limits
from greenctx.wasix._program.lost_interrupts import LostInterrupts
from greenctx.wasix._program.wasi_config import WasiSettings
from greenctx.wasix._syscalls.of_wasix.files import is_wasix_program
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO, Self, TypedDict, Unpack

    from wasmtime import Func

    from greenctx.wasix._modules.cache import ModuleCache

    class ProgramSettings(TypedDict, total=False):
        """The settings of a `Program`."""

        argv: Sequence[str] | None
        env: Mapping[str, str] | None
        preopens: Mapping[str, str | os.PathLike[str]] | None
        limits: Limits | None
        shadow_stack: int | None
        contexts: bool
        instruments: Iterable[object]
        cache: bool
        stdin: BinaryIO | bytes | None
        stdout: BinaryIO | None
        stderr: BinaryIO | None


MIN_YIELD_SECONDS = 0.001


class Program:
    """A WASI command, compiled and ready to run.

    ``linker`` has WASI preview 1 and the WASIX context calls; host functions of one's own are added with its
    ``define_func`` before `run`. Each `run` uses a store of its own and closes it. `close`, or a ``with`` statement,
    frees the rest at once: a host function that refers to its program would keep it alive for ever, for wasmtime's
    reference to the function is invisible to the garbage collector.
    """

    def __init__(
        self,
        code: bytes,
        *,
        name: str = "program",
        argv: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        preopens: Mapping[str, str | os.PathLike[str]] | None = None,
        limits: Limits | None = None,
        shadow_stack: int | None = None,
        contexts: bool = True,
        instruments: Iterable[object] = (),
        cache: bool = False,
        stdin: BinaryIO | bytes | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
    ) -> None:
        """Compile ``code``, a module in binary or text (WAT) form.

        ``argv`` includes the program's name and is ``[name]`` by default; ``env`` is all that the guest sees of
        environment variables; ``preopens`` maps the guest's directories to the host's.

        ``limits`` are those of each run. ``shadow_stack`` gives each context that many bytes for its address-taken
        locals, instead of WASIX's stack that all share; it takes a guest that exports ``__stack_pointer``. With
        ``contexts=False`` the context calls answer notsup.

        ``instruments`` are told what the contexts of each run do, and which host functions they call (see
        `greenctx.Instrument`).

        With ``cache`` the compiled module is kept in the user's cache directory, for programs of the same code in other
        processes, and taken from there. (One process had better keep the program.)

        ``stdin`` is a binary file, or bytes, which each run reads from the beginning; ``stdout`` and ``stderr`` are
        binary files to write to, and are flushed. None inherits the process's own: its file descriptors 0, 1 and 2.

        Raises `InvalidProgram` if it is not a WASI command that this wasmtime can compile, or starts beyond its limits;
        and for a directory that is not there or a string that WASI cannot pass on.
        """
        if not isinstance(code, bytes):
            raise TypeError(f"code must be the bytes of a module, not {code!r:.80}; for a file use Program.from_file")
        if shadow_stack is not None and shadow_stack <= 0:
            raise ValueError(f"shadow_stack must be None or a positive number of bytes, not {shadow_stack!r}")
        self._closed = False
        self._runs: set[object] = set()
        self.name = name
        self.settings = WasiSettings(name, [name] if argv is None else argv, env or {}, preopens or {})
        self.limits = limits or Limits()
        self.shadow_stack = shadow_stack
        self.contexts = contexts
        self.instruments = [*instruments]
        self._stdio = Stdio(stdin, stdout, stderr)
        self._code = unshare_memory(to_binary(name, code))
        self._engine, self._module = compile_module(
            name, self.limits.cap(name, self._code), _user_cache() if cache else None
        )
        check_start(name, self._module)
        if shadow_stack is not None and contexts:
            from greenctx.wasix._shadow_stacks.shadow_stacks import check_exports

            check_exports(name, self._module)
        # Guests that switch may do so very often: they run with the GIL held, which they must not keep while they wait.
        self._holds_gil = contexts and switches_contexts(self._module) and never_waits(self._module)
        self._entrypoint_names = EntrypointNames(self._code)
        self._shared_epoch_thread = SharedEpochThread(self._engine)
        self.linker = Linker(self._engine, report_host_calls=bool(self.instruments))
        self.linker.define_wasi(self._stdio)
        self.linker.define_wasix(files=is_wasix_program(self._module))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **settings: Unpack[ProgramSettings]) -> Program:
        """Load a .wasm or .wat file. See `__init__`; a file that cannot be read is `InvalidProgram`, too."""
        name = os.fspath(path)
        return cls(read_code(name), name=name, **settings)

    def run(self) -> int:
        """Run the program; return its exit status, as the guest gave it: an unsigned number of 32 bits.

        (A shell sees the low eight of them, so ``exit(-1)``, 4294967295 here, is 255 there.)

        Raises `InvalidProgram` if an import is not defined, `wasmtime.Trap` when the guest traps in any context,
        `greenctx.ContextEntrypointReturned`, `TimeLimitExceeded`, and whatever a host function raises. Ctrl-C is
        KeyboardInterrupt. Every context is unwound by then.
        """
        if current_run() is not None:
            return await_(self.run_async())
        this_run = object()
        try:
            self._begin(this_run)
            deadline = Deadline.within_current(self.limits.seconds)
            needs_epochs = deadline or can_be_signalled() or self._holds_gil
            epochs = epoch_thread(self._engine) if needs_epochs else nullcontext()
            with LostInterrupts():
                return self._run(deadline, epochs, self._holds_gil)
        finally:
            self._runs.discard(this_run)

    async def run_async(self, *, yield_every: float = YIELD_SECONDS) -> int:
        """The same inside of the calling task: its host functions may call `greenctx.await_`.

        The event loop runs, too, while the guest sleeps or waits for its standard streams; and whenever the guest has
        computed for ``yield_every`` seconds, 0.001 at least. (Programs that it runs meanwhile by `run` run so, too.)

        When the task is cancelled, or the limit of time is over, `asyncio.CancelledError` is raised where the program
        waits for the event loop; every context is unwound, and the task ends cancelled, or `TimeLimitExceeded` is
        raised.
        """
        from greenctx.wasix._program.run_async import run_within  # with asyncio, which takes long to import

        if not yield_every >= MIN_YIELD_SECONDS:
            raise ValueError(f"yield_every must be at least {MIN_YIELD_SECONDS} seconds, not {yield_every!r}")
        this_run = object()
        try:
            self._begin(this_run)
            deadline = Deadline.within_current(self.limits.seconds, yield_every)
            epochs = self._shared_epoch_thread.every(yield_every / 2)
            return await run_within(deadline, partial(self._run, deadline, epochs, holds_gil=False))
        finally:
            self._runs.discard(this_run)

    def _begin(self, run: object) -> None:
        self._runs.add(run)
        if self._closed:
            raise ProgramClosed

    def _run(self, deadline: Deadline, epochs: AbstractContextManager[None], holds_gil: bool) -> int:
        store = Store(self._engine)
        try:
            with epochs, deadline:
                status = self._run_in(store, deadline, holds_gil)
        except BaseException:
            with suppress(StoreInUse):  # by another thread; it is freed when that has done with it
                close(store)
            raise
        close(store)
        return status

    def _run_in(self, store: Store, deadline: Deadline, holds_gil: bool) -> int:
        store.set_wasi(self.settings.wasi_config(self._stdio))
        self.limits.apply(store)
        self.linker.define_wasix_imports(self._module)
        check_imports(self.name, self.linker, store, self._module)
        yield_every_epoch(store)
        process_of(store).entrypoint_names = self._entrypoint_names
        state = state_of(store)
        state.deadline = deadline
        state.holds_gil = holds_gil
        try:
            if self.contexts:
                environment = ContextSwitchingEnvironment(
                    max_contexts=self.limits.contexts, instruments=self.instruments
                )
                environment.run_main_context(self._run_start, store)
            else:
                NoContexts().run(self._run_start, store)
        except GuestExit as exit:
            return exit.status
        finally:
            state.shadow_stacks = None  # which refer to the store
        return 0

    def close(self) -> None:
        """Free what the program holds. It cannot be run again (`ProgramClosed`); closing it again does nothing.

        Raises `ProgramInUse` while it runs.
        """
        # A run notes itself before it looks here, so one of the two sees the other.
        closed, self._closed = self._closed, True
        if self._runs:
            self._closed = closed
            raise ProgramInUse
        self._shared_epoch_thread.close()
        for thing in (self.linker, self._module, self._engine):
            close(thing)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_start(self, store: Store) -> None:
        try:
            instance = self.linker.instantiate(store, self._module)
        except WasmtimeError as error:
            raise InvalidProgram(self.name, f"it cannot be instantiated: {in_one_line(error)}") from error
        if self.shadow_stack is not None and self.contexts:
            if state_of(store).calls:
                raise InvalidProgram(self.name, "its start function starts contexts, too early for shadow stacks")
            from greenctx.wasix._shadow_stacks.shadow_stacks import ShadowStacks

            state_of(store).shadow_stacks = ShadowStacks(store, instance, self.shadow_stack)
        call(store, cast("Func", instance.exports(store)[START]))


def _user_cache() -> ModuleCache | None:
    from greenctx.wasix._modules.cache import ModuleCache

    return ModuleCache.of_the_user()
