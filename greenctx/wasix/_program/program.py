"""Program: a WASI command with its arguments, environment variables and directories; run it, get its exit status."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from greenctx._core.aio import await_, current_run
from greenctx.errors import ProgramClosed, ProgramInUse
from greenctx.wasix._clock.deadline import YIELD_SECONDS, Deadline
from greenctx.wasix._clock.epochs import SharedEpochThread, can_be_signalled, epoch_thread
from greenctx.wasix._files.stdio import Stdio
from greenctx.wasix._modules.compile import read_code
from greenctx.wasix._program.executable import Executable
from greenctx.wasix._program.invocation import Invocation
from greenctx.wasix._program.limits import limits_of
from greenctx.wasix._program.lost_interrupts import LostInterrupts
from greenctx.wasix._program.run import RunConfig, RunSettings, run_in_new_store
from greenctx.wasix._program.wasi_config import WasiSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import BinaryIO, Self, Unpack

    from greenctx.wasix._linking.linker import Linker
    from greenctx.wasix._linking.typed_functions import F
    from greenctx.wasix._program.limits import Limits

    class ProgramSettings(RunSettings, total=False):
        """The settings of a `Program`."""

        shadow_stack: int | None
        contexts: bool
        cache: bool
        command: bool


MIN_YIELD_SECONDS = 0.001


class Program:
    """A WASI command, compiled and ready to run.

    ``linker`` has WASI preview 1 and the WASIX context calls. Add host functions by its ``define_func`` before `run`.
    Each `run` makes a store and closes it. `close`, or a ``with`` statement, frees the rest at once. Without it, a host
    function that refers to its program keeps the program alive for ever: Python's garbage collector does not see
    wasmtime's reference to the function.
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
        command: bool = True,
        stdin: BinaryIO | bytes | None = None,
        stdout: BinaryIO | None = None,
        stderr: BinaryIO | None = None,
    ) -> None:
        """Compile ``code``, a module in binary or text (WAT) form.

        ``argv`` includes the program's name and is ``[name]`` by default. ``env`` has all environment variables that
        the guest sees. ``preopens`` maps the guest's directories to the host's; a `ReadOnly` one cannot be changed.

        ``limits`` apply to each run. ``shadow_stack`` gives each context that many bytes for its address-taken locals,
        where WASIX's contexts share one stack; the guest must export ``__stack_pointer``. With ``contexts=False`` the
        context calls return notsup.

        ``instruments`` are told what the contexts of each run do, and which host functions they call (see
        `greenctx.Instrument`).

        With ``cache`` the compiled module is kept in the user's cache directory, and taken from there, also by other
        processes. (Within one process, keep the program instead.)

        With ``command=False`` the module need not export ``_start`` (see `invoke`).

        ``stdin`` is a binary file, or bytes, which each run reads from the beginning; ``stdout`` and ``stderr`` are
        binary files to write to, and are flushed. None inherits the process's own: its file descriptors 0, 1 and 2.

        Raises `InvalidProgram` if the code is not a WASI command that this wasmtime can compile, or starts beyond its
        limits. Raises it also for a missing directory, and for a string that WASI cannot pass on. Raises
        `ResourcesExhausted` if the system has no more memory, file descriptors or threads.
        """
        instruments = [*instruments]
        self._made_of = code, {key: value for key, value in locals().items() if key not in ("self", "code", "cache")}
        if not isinstance(code, bytes):
            raise TypeError(f"code must be the bytes of a module, not {code!r:.80}; for a file use Program.from_file")
        if shadow_stack is not None and shadow_stack <= 0:
            raise ValueError(f"shadow_stack must be None or a positive number of bytes, not {shadow_stack!r}")
        self._closed = False
        self._runs: set[object] = set()
        self.name = name
        self.settings = WasiSettings(name, argv, env, preopens)
        self.limits = limits_of(limits)
        self.instruments = [*instruments]
        self.on_shared_stack: Callable[[], object] | None = None
        """Called when a run creates its second context, if all contexts share one C stack but could have their own."""
        self._stdio = Stdio(stdin, stdout, stderr)
        self._executable = Executable(
            name, code, self.limits, shadow_stack=shadow_stack, contexts=contexts, cache=cache, command=command
        )
        self._engine = self._executable.engine
        self._shared_epoch_thread = SharedEpochThread(self._engine)

    @property
    def linker(self) -> Linker:
        """Where host functions are defined."""
        return self._executable.linker

    @property
    def shadow_stack(self) -> int | None:
        """Bytes of each context's shadow stack."""
        return self._executable.shadow_stack

    @property
    def contexts(self) -> bool:
        """Whether the program may have contexts."""
        return self._executable.contexts

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **settings: Unpack[ProgramSettings]) -> Program:
        """Load a .wasm or .wat file. See `__init__`. Raises `InvalidProgram` also for a file that cannot be read."""
        name = os.fspath(path)
        return cls(read_code(name), name=name, **settings)

    def host_function(self, module: str, name: str | None = None) -> Callable[[F], F]:
        """Define the decorated function as a host function, typed by its annotations: see `Linker.host_function`."""
        return self.linker.host_function(module, name)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the code and the settings. The program is compiled where it arrives (see ``cache``)."""
        if self.linker.definitions:
            raise TypeError("a program with host functions of its own cannot be pickled; make it where it is to run")
        return _arrived, (type(self), *self._made_of)

    def run(self, **settings: Unpack[RunSettings]) -> int:
        """Run the program; return the guest's exit status, an unsigned number of 32 bits.

        ``argv``, ``env``, ``preopens``, ``stdin``, ``stdout``, ``stderr``, ``limits`` and ``instruments`` replace the
        program's own for this run. A limit of memory may be lower than the program's; a higher one changes nothing.

        A shell sees the low eight bits, so ``exit(-1)``, 4294967295 here, is 255 there.

        Raises `InvalidProgram` if an import is not defined, `GuestTrap` when the guest traps in any context,
        `greenctx.ContextEntrypointReturned`, `TimeLimitExceeded`, `ResourcesExhausted`, and any exception of a host
        function. Ctrl-C raises KeyboardInterrupt. Every context has unwound by then.
        """
        return int(self._run(settings))

    def invoke(self, name: str, *args: Any, **settings: Unpack[RunSettings]) -> list[Any]:
        """Call an export of a fresh instance, after ``_initialize`` if there is one; return its results.

        Strings among the arguments are converted to the numbers that the function takes. The settings and errors are
        those of `run`, but an exit of the guest raises `GuestExit`.
        """
        return cast("list[Any]", self._run(settings, Invocation(self.name, name, args)))

    async def run_async(self, *, yield_every: float = YIELD_SECONDS, **settings: Unpack[RunSettings]) -> int:
        """Run the program inside of the calling task, as `run` does. Host functions may call `greenctx.await_`.

        The event loop also runs while the guest sleeps or waits for its standard streams, and whenever it has computed
        for ``yield_every`` seconds (at least 0.001). So do programs that a host function runs by `run`.

        When the task is cancelled, or the time limit is over, `asyncio.CancelledError` is raised where the program
        waits for the event loop. Every context unwinds. Then the task ends cancelled, or this raises
        `TimeLimitExceeded`.
        """
        if not yield_every >= MIN_YIELD_SECONDS:
            raise ValueError(f"yield_every must be at least {MIN_YIELD_SECONDS} seconds, not {yield_every!r}")
        return int(await self._run_async(yield_every, settings))

    def _run(self, settings: RunSettings, invocation: Invocation | None = None) -> Any:
        if current_run() is not None:
            return await_(self._run_async(YIELD_SECONDS, settings, invocation))
        this_run = object()
        try:
            self._begin(this_run)
            config = self._config(settings)
            deadline = Deadline.within_current(config.limits.seconds)
            holds_gil = self._executable.holds_gil
            needs_epochs = deadline or can_be_signalled() or holds_gil or self._executable.sets_timers
            epochs = epoch_thread(self._engine) if needs_epochs else nullcontext()
            with LostInterrupts():
                return run_in_new_store(self._executable, config, deadline, epochs, holds_gil, invocation)
        finally:
            self._runs.discard(this_run)

    async def _run_async(self, yield_every: float, settings: RunSettings, invocation: Invocation | None = None) -> Any:
        from greenctx.wasix._program.run_async import run_within  # imports asyncio, which takes long

        this_run = object()
        try:
            self._begin(this_run)
            config = self._config(settings)
            deadline = Deadline.within_current(config.limits.seconds, yield_every)
            epochs = self._shared_epoch_thread.every(yield_every / 2)
            run = partial(run_in_new_store, self._executable, config, deadline, epochs, False, invocation)
            return await run_within(deadline, run)
        finally:
            self._runs.discard(this_run)

    def _begin(self, run: object) -> None:
        self._runs.add(run)
        if self._closed:
            raise ProgramClosed

    def _config(self, given: RunSettings) -> RunConfig:
        return RunConfig(self.settings, self._stdio, self.limits, self.instruments, self.on_shared_stack).replaced(
            given
        )

    def close(self) -> None:
        """Free what the program holds. It cannot be run again (`ProgramClosed`); closing it again does nothing.

        Raises `ProgramInUse` while it runs.
        """
        # A run counts itself before it checks `_closed`, so at least one of the two sees the other.
        closed, self._closed = self._closed, True
        if self._runs:
            self._closed = closed
            raise ProgramInUse
        self._shared_epoch_thread.close()
        self._executable.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _arrived(kind: type[Program], code: bytes, settings: dict[str, Any]) -> Program:
    return kind(code, **settings, cache=True)
