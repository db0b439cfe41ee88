"""One run of a program: its settings, and its store."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

from wasmtime import Store, WasmtimeError

from greenctx._core.scope import NoContexts
from greenctx.environment import ContextSwitchingEnvironment
from greenctx.errors import GuestExit, InvalidProgram, StoreInUse
from greenctx.wasix._clock.epochs import yield_every_epoch
from greenctx.wasix._fibers.calls import call
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._files.file_threads import FileThreads
from greenctx.wasix._modules.abi import START
from greenctx.wasix._modules.compile import in_one_line
from greenctx.wasix._modules.exhaustion import check_resources
from greenctx.wasix._native.capi import close, find_export
from greenctx.wasix._program.limits import Limits, limits_of
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from wasmtime import Func

    from greenctx.wasix._clock.deadline import Deadline
    from greenctx.wasix._files.stdio import Stdio
    from greenctx.wasix._program.executable import Executable
    from greenctx.wasix._program.invocation import Invocation
    from greenctx.wasix._program.wasi_config import WasiSettings


class RunSettings(TypedDict, total=False):
    """The settings of a `Program` that each run may replace."""

    argv: Sequence[str] | None
    env: Mapping[str, str] | None
    preopens: Mapping[str, str | os.PathLike[str]] | None
    limits: Limits | None
    instruments: Iterable[object]
    stdin: BinaryIO | bytes | None
    stdout: BinaryIO | None
    stderr: BinaryIO | None


class RunConfig(NamedTuple):
    """The configuration of one run."""

    settings: WasiSettings
    stdio: Stdio
    limits: Limits
    instruments: Sequence[object]
    on_shared_stack: Callable[[], object] | None

    def replaced(self, given: RunSettings) -> RunConfig:
        """Return a configuration with those settings replaced. Raises TypeError for unknown settings.

        None as a setting means the same as for a `Program`.
        """
        unknown = given.keys() - RunSettings.__optional_keys__
        if unknown:
            raise TypeError(f"a run has no setting {min(unknown)!r}; it has {', '.join(RunSettings.__annotations__)}")
        if not given:
            return self
        values: dict[str, Any] = {**given}
        return RunConfig(
            self.settings.replaced(**{name: values[name] for name in ("argv", "env", "preopens") if name in given}),
            self.stdio.replaced(**{name: values[name] for name in ("stdin", "stdout", "stderr") if name in given}),
            limits_of(given["limits"]) if "limits" in given else self.limits,
            [*given["instruments"]] if "instruments" in given else self.instruments,
            self.on_shared_stack,
        )


def run_in_new_store(
    executable: Executable,
    config: RunConfig,
    deadline: Deadline,
    epochs: AbstractContextManager[None],
    holds_gil: bool,
    invocation: Invocation | None = None,
) -> Any:
    """Run the program once; return its exit status, or the results of an invocation. Its store is closed by then."""
    store = Store(executable.engine)
    files = FileThreads() if config.settings.preopens else nullcontext()
    try:
        with files, epochs, deadline:
            status = _run_in(store, executable, config, deadline, holds_gil, invocation)
    except BaseException as error:
        with suppress(StoreInUse):  # by another thread, which frees it in the end
            close(store)
        if isinstance(error, WasmtimeError):
            check_resources(error)
        raise
    close(store)
    return status


def _run_in(
    store: Store,
    executable: Executable,
    config: RunConfig,
    deadline: Deadline,
    holds_gil: bool,
    invocation: Invocation | None,
) -> Any:
    if config.instruments:
        executable.linker.begin_host_call_reports()
    store.set_wasi(config.settings.wasi_config(config.stdio))
    executable.limit(store, config.limits)
    executable.check_imports(store)
    yield_every_epoch(store)
    process = process_of(store)
    process.entrypoint_names = executable.entrypoint_names
    process.max_files = config.limits.files
    executable.connect(process, config.stdio)
    tell = config.on_shared_stack
    if tell is not None:
        process.on_second_context = lambda: tell() if executable.shares_stack() else None
    state = state_of(store)
    state.deadline = deadline
    state.holds_gil = holds_gil
    try:
        if executable.contexts:
            environment = ContextSwitchingEnvironment(
                max_contexts=config.limits.max_contexts, instruments=config.instruments
            )
            return environment.run_main_context(_start, store, executable, invocation)
        return NoContexts().run(_start, store, executable, invocation)
    except GuestExit as exit:
        if invocation is not None:
            raise
        return exit.status
    finally:
        state.shadow_stacks = None  # they refer to the store
        process.terminal.restore()


def _start(store: Store, executable: Executable, invocation: Invocation | None) -> Any:
    try:
        instance = executable.linker.instantiate(store, executable.module)
    except WasmtimeError as error:
        check_resources(error)
        # A shared memory that it does not import as `env.memory`, for example.
        raise InvalidProgram(executable.name, f"it cannot be instantiated: {in_one_line(error)}") from error
    if executable.shadow_stack is not None and executable.contexts:
        if state_of(store).calls:
            raise InvalidProgram(executable.name, "its start function starts contexts, too early for shadow stacks")
        from greenctx.wasix._shadow_stacks.shadow_stacks import ShadowStacks

        state_of(store).shadow_stacks = ShadowStacks(store, instance, executable.shadow_stack)
    if invocation is not None:
        return invocation(store, instance)
    start, checkpoints = cast("Func", find_export(store, instance, START)), process_of(store).checkpoints
    checkpoints.can_restart = True
    call(store, start)
    while checkpoints.goes_on(store):
        call(store, start)
    return 0
