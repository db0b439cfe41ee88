"""The command line: ``greenctx run``, ``greenctx demo``, ``greenctx inspect`` and ``greenctx timeline``."""

from __future__ import annotations

import _thread
import gc
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from greenctx.cli.arguments import parse
from greenctx.cli.exit_status import EXIT_INTERRUPTED, EXIT_TIMEOUT, EXIT_TRAP, EXIT_USAGE, fail, forget_unwritten, show
from greenctx.cli.observing import draw_timeline, observing
from greenctx.errors import (
    ContextEntrypointReturned,
    GreenctxError,
    GuestException,
    InvalidProgram,
    InvalidTrace,
    TimeLimitExceeded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from greenctx.wasix import Program


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    sys.unraisablehook = _deliver_again
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        sys.unraisablehook = sys.__unraisablehook__
        if argv is None:
            forget_unwritten()


def _main(argv: Sequence[str] | None) -> int:
    given = parse(sys.argv[1:] if argv is None else argv)
    _occupy_standard_streams()
    if given.command == "timeline":
        try:
            draw_timeline(given.file, given.output)
        except InvalidTrace as error:
            return fail(EXIT_USAGE, str(error))
        return 0
    try:
        with _no_collection(freeze=argv is None):
            from greenctx.wasix import Limits, Program
    except ImportError as error:
        return fail(EXIT_USAGE, str(error))
    try:
        if given.command == "demo":
            from importlib.resources import as_file, files

            with as_file(files("greenctx.wasix") / "demo" / "demo.wat") as path:
                return _run(Program.from_file(path))
        if given.command == "inspect":
            return _inspect(given.file, given.json)
        preopens = dict(_split_dir(text) for text in given.dir)
        variables = dict(_split_variable(text) for text in given.env)
        limits = Limits(contexts=given.max_contexts, memory=given.max_memory, seconds=given.timeout)
        argv = given.argv[1:] if given.argv[:1] == ["--"] else given.argv
        if not argv:
            return fail(EXIT_USAGE, "no FILE to run (see greenctx run --help)")
        with observing(given, argv[0]) as instruments:
            program = Program.from_file(
                argv[0],
                argv=argv,
                env=variables,
                preopens=preopens,
                limits=limits,
                shadow_stack=given.shadow_stack,
                contexts=not given.no_contexts,
                instruments=instruments,
                cache=not given.no_cache,
            )
            return _run(program)
    except InvalidProgram as error:
        return fail(EXIT_USAGE, str(error))


@contextmanager
def _no_collection(freeze: bool) -> Iterator[None]:
    """Keep Python's garbage collector from running. With ``freeze`` it never looks at the objects made meanwhile.

    wasmtime's package makes tens of thousands of objects, none of which is garbage before the end. To look through them
    again and again, and at exit, takes longer than a small guest. Only a process of our own may freeze them.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze:
            gc.freeze()
        if was_enabled:
            gc.enable()


def _run(program: Program) -> int:
    from wasmtime import Trap, WasmtimeError

    try:
        return program.run() & 0xFF
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
    """Return the lines of its message, and of its notes: where in the guest it came from."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])]).splitlines()


def _deliver_again(lost: sys.UnraisableHookArgs) -> None:
    """Send Ctrl-C once more if it came in a ``__del__`` of wasmtime's, where Python drops exceptions."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_thread.interrupt_main, ())
    elif not getattr(lost.object, "__module__", "").startswith("wasmtime"):  # which raises for an object half made
        sys.__unraisablehook__(lost)


def _occupy_standard_streams() -> None:
    """Open the null device for each standard stream that is closed, so that no other file becomes a guest's stream."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed, and the lowest such number, which the next file gets
            os.open(os.devnull, os.O_RDWR)


def _inspect(file: str, as_json: bool) -> int:
    import json

    from greenctx.wasix._program.inspection import inspect_file

    found = inspect_file(file)
    return show(f"{json.dumps(found.as_dict())}\n" if as_json else found.as_text())


def _split_dir(text: str) -> tuple[str, str]:
    host, separator, guest = text.partition("::")
    if not host or (separator and not guest):
        raise InvalidProgram("--dir", f"{text!r} is not HOST or HOST::GUEST")
    return guest or host, host


def _split_variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise InvalidProgram("--env", f"{text!r} is not NAME=VALUE")
    return name, value
