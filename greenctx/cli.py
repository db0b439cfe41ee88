"""The command line: ``greenctx run`` and ``greenctx demo``."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from greenctx.errors import ContextEntrypointReturned, InvalidProgram

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

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
        argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
        if not argv:
            return _fail(EXIT_USAGE, "no FILE to run (see greenctx run --help)")
        return _run(Program.from_file(argv[0], argv=argv, env=variables, preopens=preopens))
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
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


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
    usage = "greenctx run [--dir HOST[::GUEST]]... [--env K=V]... FILE [ARGS]..."
    run = commands.add_parser("run", help="run a program", usage=usage)
    run.add_argument("--dir", action="append", default=[], metavar="HOST[::GUEST]", help="give it a directory")
    run.add_argument("--env", action="append", default=[], metavar="K=V", help="set an environment variable")
    # One positional: of two, argparse would drop a double dash that is the guest's first argument.
    file_and_args = "a WASI command (.wasm, or .wat text), and its arguments"
    run.add_argument("argv", metavar="FILE [ARGS]", nargs=argparse.REMAINDER, help=file_and_args)
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
