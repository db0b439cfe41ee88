"""The command line: ``greenctx run`` and ``greenctx demo``."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from greenctx.errors import ContextEntrypointReturned, InvalidProgram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from greenctx.wasix import Program

EXIT_TRAP = 134
"""The status of a guest that trapped, as in wasmtime's own command."""
EXIT_INTERRUPTED = 130
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parser().parse_args(argv)
    try:
        from greenctx.wasix import Program
    except ImportError as error:
        return _fail(EXIT_USAGE, str(error))
    try:
        if options.command == "demo":
            with as_file(files("greenctx.wasix") / "demo.wat") as path:
                return _run(Program.from_file(path))
        preopens = dict(_split_dir(text) for text in options.dir)
        variables = dict(_split_variable(text) for text in options.env)
        argv = [options.file, *options.args]
        return _run(Program.from_file(options.file, argv=argv, env=variables, preopens=preopens))
    except InvalidProgram as error:
        return _fail(EXIT_USAGE, str(error))


def _run(program: Program) -> int:
    from wasmtime import Trap

    try:
        return program.run() & 0xFF
    except ContextEntrypointReturned as error:
        return _fail(error.exit_code, str(error))
    except Trap as error:
        return _fail(EXIT_TRAP, "\n".join([str(error), *getattr(error, "__notes__", [])]))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _fail(status: int, message: str) -> int:
    print(f"greenctx: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="greenctx", description="Run WASIX programs whose contexts switch.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a program")
    run.add_argument("--dir", action="append", default=[], metavar="HOST[::GUEST]", help="give it a directory")
    run.add_argument("--env", action="append", default=[], metavar="K=V", help="set an environment variable")
    run.add_argument("file", metavar="FILE", help="a WASI command: .wasm, or .wat text")
    run.add_argument("args", metavar="ARGS", nargs=argparse.REMAINDER, help="its arguments")
    commands.add_parser("demo", help="run the bundled guest, in which several contexts work together")
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
