"""``greenctx run`` and ``greenctx demo``: from the options to a program, and from its end to a status."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from greenctx.cli.compiling import compile_apart
from greenctx.cli.exit_status import EXIT_TIMEOUT, EXIT_TRAP, EXIT_USAGE, fail, show
from greenctx.cli.observing import observing
from greenctx.errors import (
    ContextEntrypointReturned,
    GreenctxError,
    GuestException,
    GuestExit,
    InvalidProgram,
    TimeLimitExceeded,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from greenctx.cli.arguments import Arguments
    from greenctx.wasix import Program, ReadOnly


def run_demo(given: Arguments) -> int:
    """Run the bundled guest."""
    from importlib.resources import as_file, files

    with as_file(files("greenctx.wasix") / "demo" / "demo.wat") as path:
        return run_file(given, [os.fspath(path)])


def run_file(given: Arguments, argv: Sequence[str]) -> int:
    """Run the file and its arguments; return the exit status. Raises `InvalidProgram`."""
    from greenctx.wasix import Limits, Program
    from greenctx.wasix._program.executable import read_code

    argv = [*(argv[1:] if argv[:1] == ["--"] else argv)]
    if not argv:
        return fail(EXIT_USAGE, "no FILE to run (see greenctx run --help)")
    if argv[1:2] == ["--"]:  # other commands need it before a guest's arguments; greenctx does not
        del argv[1]
    preopens = dict(_split_dir(text) for text in given.dir)
    variables = dict(_split_variable(text) for text in given.env)
    limits = Limits(
        contexts=given.max_contexts,
        memory=given.max_memory,
        seconds=given.timeout,
        files=Limits().files if given.max_files is None else given.max_files,
        stacks=given.max_stacks,
    )
    with observing(given, argv[0]) as instruments:
        code = read_code(argv[0], sys.stdin.buffer if argv[0] == "-" else None)
        load = partial(
            Program,
            code,
            name=argv[0],
            argv=argv,
            env=variables,
            preopens=preopens,
            limits=limits,
            shadow_stack=given.shadow_stack,
            contexts=not given.no_contexts,
            instruments=instruments,
            cache=not given.no_cache,
            command=given.invoke is None,
        )
        try:
            if given.owns_process and (given.timeout is not None or given.max_memory is not None):
                # The child leaves the compiled module in the cache, so that loading it here is quick. Without a cache
                # it is compiled again, which takes as long as in the child.
                compile_apart(lambda: load().close(), argv[0], len(code), given.timeout)
        except TimeLimitExceeded as error:
            return fail(EXIT_TIMEOUT, str(error))
        program = load()
        if not given.shared_stack:
            program.on_shared_stack = _warn_of_shared_stack
        invoke = given.invoke
        return _status_of(program.run if invoke is None else lambda: _invoke(program, invoke, argv[1:]))


def _invoke(program: Program, name: str, arguments: Sequence[str]) -> int:
    try:
        results = program.invoke(name, *arguments)
    except GuestExit as exit:
        return exit.status
    return show("".join(f"{result}\n" for result in results))


def _status_of(run: Callable[[], int]) -> int:
    from wasmtime import Trap, WasmtimeError

    try:
        return run() & 0xFF
    except InvalidProgram:
        raise
    except ContextEntrypointReturned as error:
        return fail(error.exit_code, str(error))
    except TimeLimitExceeded as error:
        return fail(EXIT_TIMEOUT, str(error))
    except (GuestException, Trap, WasmtimeError) as error:
        return fail(EXIT_TRAP, *_lines(error))
    except GreenctxError as error:
        return fail(EXIT_TRAP, str(error))


def _lines(error: Exception) -> list[str]:
    """Return the error's message and its notes, which say where in the guest it was raised."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])]).splitlines()


def _warn_of_shared_stack() -> None:
    fail(
        0,
        "all contexts of this guest share one C stack, and may corrupt each other's locals; "
        "give each a stack by --shadow-stack 64KiB, or say --shared-stack if the guest moves its stack pointer itself",
    )


def _split_dir(text: str) -> tuple[str, str | ReadOnly]:
    from greenctx.wasix import ReadOnly

    host, *rest = text.split("::")
    if not host or "" in rest or len(rest) > 2 or rest[1:] not in ([], ["ro"]):
        raise InvalidProgram("--dir", f"{text!r} is not HOST, HOST::GUEST or HOST::GUEST::ro")
    if not os.path.isdir(host):
        first, _, second = host.partition(":")
        if not rest and second and os.path.isdir(first):
            raise InvalidProgram("--dir", f"{text!r} is not a directory; HOST::GUEST is {first}::{second}")
        if os.path.exists(host):
            raise InvalidProgram("--dir", f"{host!r} is not a directory, as HOST and HOST::GUEST have to name")
    return (rest or [host])[0], ReadOnly(host) if rest[1:] else host


def _split_variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name:
        raise InvalidProgram("--env", f"{text!r} is not NAME=VALUE, or NAME for the value that it has here")
    if not separator:
        if name not in os.environ:
            raise InvalidProgram("--env", f"{name!r} is not set here; NAME=VALUE sets it for the guest")
        value = os.environ[name]
    return name, value
