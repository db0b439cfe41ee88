"""The command line: ``greenctx run``, ``greenctx demo``, ``greenctx inspect`` and ``greenctx timeline``."""

from __future__ import annotations

import _thread
import argparse
import gc
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import greenctx
from greenctx.errors import (
    ContextEntrypointReturned,
    GreenctxError,
    GuestException,
    InvalidProgram,
    InvalidTrace,
    TimeLimitExceeded,
)
from greenctx.observing import add_options, draw_timeline, observing
from greenctx.options import count, seconds, size
from greenctx.switching import COMPILED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from greenctx.wasix import Program

EXIT_TRAP = 134
"""The status of a guest that trapped, as in wasmtime's own command."""
EXIT_INTERRUPTED = 130
EXIT_TIMEOUT = 124
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    sys.unraisablehook = _deliver_again
    try:
        return _main(argv)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    finally:
        sys.unraisablehook = sys.__unraisablehook__


def _main(argv: Sequence[str] | None) -> int:
    given = _parser().parse_args(argv)
    _occupy_standard_streams()
    if given.command == "timeline":
        try:
            draw_timeline(given.file, given.output)
        except InvalidTrace as error:
            return _fail(EXIT_USAGE, str(error))
        return 0
    try:
        with _no_collection(freeze=argv is None):
            from greenctx.wasix import Limits, Program
    except ImportError as error:
        return _fail(EXIT_USAGE, str(error))
    try:
        if given.command == "demo":
            from importlib.resources import as_file, files

            with as_file(files("greenctx.wasix") / "demo.wat") as path:
                return _run(Program.from_file(path))
        if given.command == "inspect":
            return _inspect(given.file, given.json)
        preopens = dict(_split_dir(text) for text in given.dir)
        variables = dict(_split_variable(text) for text in given.env)
        limits = Limits(contexts=given.max_contexts, memory=given.max_memory, seconds=given.timeout)
        argv = given.argv[1:] if given.argv[:1] == ["--"] else given.argv
        if not argv:
            return _fail(EXIT_USAGE, "no FILE to run (see greenctx run --help)")
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
            )
            return _run(program)
    except InvalidProgram as error:
        return _fail(EXIT_USAGE, str(error))


@contextmanager
def _no_collection(freeze: bool) -> Iterator[None]:
    """Let Python's collector alone, and never look at what is imported meanwhile if the process is all ours.

    wasmtime's package makes tens of thousands of objects, none of which is garbage before the end. To look through them
    time and again, and at exit, takes longer than a small guest.
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
        return _fail(error.exit_code, str(error))
    except TimeLimitExceeded as error:
        return _fail(EXIT_TIMEOUT, str(error))
    except GuestException as error:
        return _fail(EXIT_TRAP, *_lines(error))
    except GreenctxError as error:
        return _fail(EXIT_TRAP, str(error))
    except (Trap, WasmtimeError) as error:
        return _fail(EXIT_TRAP, *_lines(error))


def _lines(error: Exception) -> list[str]:
    """What it says, and where in the guest it came from."""
    return "\n".join([str(error), *getattr(error, "__notes__", [])]).splitlines()


def _deliver_again(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C may come in a ``__del__`` of wasmtime's, where Python drops it: let it come once more, in a moment."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        _thread.start_new_thread(_thread.interrupt_main, ())
    elif not getattr(lost.object, "__module__", "").startswith("wasmtime"):  # as that of an object half made, then
        sys.__unraisablehook__(lost)


def _occupy_standard_streams() -> None:
    """See to it that no file that is opened from now on becomes the guest's stdin, stdout or stderr."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # it is closed, and the lowest that is, so it is the next to be opened
            os.open(os.devnull, os.O_RDWR)


def _inspect(file: str, as_json: bool) -> int:
    import json

    from greenctx.wasix.inspection import inspect_file

    found = inspect_file(file)
    text = f"{json.dumps(found.as_dict())}\n" if as_json else found.as_text()
    encoding = sys.stdout.encoding or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except BrokenPipeError:  # whoever reads it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own flush at exit
    return 0


def _fail(status: int, *lines: str) -> int:
    # Names in files can hold anything, a terminal's control sequences included.
    text = "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    if sys.stderr is not None:  # as it is when it was closed from the beginning
        print(f"greenctx: {text}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other refusal."""
        self.exit(_fail(EXIT_USAGE, f"{message} (see {self.prog} --help)"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="greenctx", description="Run WASIX programs whose contexts switch.")
    parser.add_argument("--version", action="version", version=_version())
    # argparse finds that name by itself, but imports shutil and what that needs, for the width of the terminal.
    commands = parser.add_subparsers(dest="command", required=True, prog=parser.prog)
    usage = "greenctx run [OPTION]... FILE [ARGS]..."
    run = commands.add_parser("run", help="run a program", usage=usage)
    run.add_argument("--dir", action="append", default=[], metavar="HOST[::GUEST]", help="give it a directory")
    run.add_argument("--env", action="append", default=[], metavar="K=V", help="set an environment variable")
    run.add_argument("--max-contexts", type=count, metavar="N", help="contexts alive at any one time, besides main")
    run.add_argument("--max-memory", type=size, metavar="SIZE", help="memory and tables together, as 64MiB")
    run.add_argument("--timeout", type=seconds, metavar="SECONDS", help="end it after that time, with status 124")
    run.add_argument("--shadow-stack", type=size, metavar="SIZE", help="a stack of its own for each context's locals")
    run.add_argument("--no-contexts", action="store_true", help="let the context calls answer notsup")
    add_options(run)
    # One positional: of two, argparse would drop a double dash that is the guest's first argument.
    file_and_args = "a WASI command (.wasm, or .wat text), and its arguments"
    run.add_argument("argv", metavar="FILE [ARGS]", nargs=argparse.REMAINDER, help=file_and_args)
    commands.add_parser("demo", help="run the bundled guest, in which several contexts work together")
    inspect = commands.add_parser("inspect", help="say what a module imports and exports, and whether it can be run")
    inspect.add_argument("--json", action="store_true", help="as one JSON object")
    inspect.add_argument("file", metavar="FILE", help="a module (.wasm, or .wat text)")
    timeline = commands.add_parser("timeline", help="draw a trace, as a page to look at or a picture")
    timeline.add_argument("file", metavar="TRACE", help="what greenctx run --trace has written")
    timeline.add_argument("-o", "--output", required=True, metavar="FILE", help="where to: a name in .html or .svg")
    return parser


def _version() -> str:
    return f"greenctx {greenctx.__version__}, with {'compiled' if COMPILED else 'pure Python'} switches"


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
