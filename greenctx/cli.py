"""The command line: ``greenctx run``, ``greenctx demo`` and ``greenctx inspect``."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from greenctx.errors import ContextEntrypointReturned, InvalidProgram, ShadowStackOverflow, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from greenctx.wasix import Program

EXIT_TRAP = 134
"""The status of a guest that trapped, as in wasmtime's own command."""
EXIT_INTERRUPTED = 130
EXIT_TIMEOUT = 124
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(argv)
    try:
        from greenctx.wasix import Limits, Program
    except ImportError as error:
        return _fail(EXIT_USAGE, str(error))
    try:
        if options.command == "demo":
            with as_file(files("greenctx.wasix") / "demo.wat") as path:
                return _run(Program.from_file(path))
        if options.command == "inspect":
            return _inspect(options.file, options.json)
        preopens = dict(_split_dir(text) for text in options.dir)
        variables = dict(_split_variable(text) for text in options.env)
        limits = Limits(contexts=options.max_contexts, memory=options.max_memory, seconds=options.timeout)
        argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        if not argv:
            return _fail(EXIT_USAGE, "no FILE to run (see greenctx run --help)")
        program = Program.from_file(
            argv[0],
            argv=argv,
            env=variables,
            preopens=preopens,
            limits=limits,
            shadow_stack=options.shadow_stack,
            contexts=not options.no_contexts,
        )
        return _run(program)
    except InvalidProgram as error:
        return _fail(EXIT_USAGE, str(error))


def _run(program: Program) -> int:
    from wasmtime import Trap, WasmtimeError

    try:
        return program.run() & 0xFF
    except ContextEntrypointReturned as error:
        return _fail(error.exit_code, str(error))
    except (Trap, WasmtimeError) as error:  # the latter is an exception of the guest's that it did not catch, for one
        lines = "\n".join([str(error), *getattr(error, "__notes__", [])]).splitlines()
        return _fail(EXIT_TRAP, *lines)
    except (TimeLimitExceeded, ShadowStackOverflow) as error:
        return _fail(EXIT_TIMEOUT if isinstance(error, TimeLimitExceeded) else EXIT_TRAP, str(error))
    except RecursionError:  # a malloc that creates contexts, each of which takes a call of malloc for its shadow stack
        return _fail(EXIT_TRAP, "calls of the guest's and of the host's are nested too deeply")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _inspect(file: str, as_json: bool) -> int:
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
    print(f"greenctx: {text}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other refusal."""
        self.exit(_fail(EXIT_USAGE, f"{message} (see {self.prog} --help)"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="greenctx", description="Run WASIX programs whose contexts switch.")
    commands = parser.add_subparsers(dest="command", required=True)
    usage = "greenctx run [OPTION]... FILE [ARGS]..."
    run = commands.add_parser("run", help="run a program", usage=usage)
    run.add_argument("--dir", action="append", default=[], metavar="HOST[::GUEST]", help="give it a directory")
    run.add_argument("--env", action="append", default=[], metavar="K=V", help="set an environment variable")
    run.add_argument("--max-contexts", type=_count, metavar="N", help="contexts alive at any one time, besides main")
    run.add_argument("--max-memory", type=_size, metavar="SIZE", help="memory of all in all, as 64MiB")
    run.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="end it after that time, with status 124")
    run.add_argument("--shadow-stack", type=_size, metavar="SIZE", help="a stack of its own for each context's locals")
    run.add_argument("--no-contexts", action="store_true", help="let the context calls answer notsup")
    # One positional: of two, argparse would drop a double dash that is the guest's first argument.
    file_and_args = "a WASI command (.wasm, or .wat text), and its arguments"
    run.add_argument("argv", metavar="FILE [ARGS]", nargs=argparse.REMAINDER, help=file_and_args)
    commands.add_parser("demo", help="run the bundled guest, in which several contexts work together")
    inspect = commands.add_parser("inspect", help="say what a module imports and exports, and whether it can be run")
    inspect.add_argument("--json", action="store_true", help="as one JSON object")
    inspect.add_argument("file", metavar="FILE", help="a module (.wasm, or .wat text)")
    return parser


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


def _count(text: str) -> int:
    """A number of things."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    """A positive, finite time."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _size(text: str) -> int:
    """A number of bytes: ``65536``, ``64KiB``, ``1.5MiB``, ``2G``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?)(?:I?B)?", text.upper())
    value = int(float(match[1]) * 1024 ** (" KMGT".index(match[2] or " "))) if match else 0
    if value <= 0:
        raise ValueError
    return value
