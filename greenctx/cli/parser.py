"""The parser of the command line, and of its options' values."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

import greenctx
from greenctx._core.switching import COMPILED
from greenctx.cli.exit_status import EXIT_USAGE, fail

if TYPE_CHECKING:
    from typing import NoReturn


_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,30})?) ?([KMGT]?)(?:I?B)?", re.ASCII | re.IGNORECASE)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Refuse in one line, as the rest of the command line does."""
        self.exit(fail(EXIT_USAGE, f"{message} (see {self.prog} --help)"))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser. It sets only what is given, because `Arguments` has the defaults."""
    parser = _Parser(prog="greenctx", description="Run WASIX programs whose contexts switch.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True)
    usage = "greenctx run [OPTION]... FILE [ARGS]..."
    run = commands.add_parser("run", help="run a program", usage=usage, argument_default=argparse.SUPPRESS)
    run.add_argument("--dir", action="append", metavar="HOST[::GUEST]", help="give it a directory")
    run.add_argument("--env", action="append", metavar="K=V", help="set an environment variable")
    run.add_argument("--max-contexts", type=count, metavar="N", help="contexts alive at any one time, besides main")
    run.add_argument("--max-memory", type=size, metavar="SIZE", help="memory and tables together, as 64MiB")
    run.add_argument("--timeout", type=seconds, metavar="SECONDS", help="end it after that time, with status 124")
    run.add_argument("--shadow-stack", type=size, metavar="SIZE", help="a stack of its own for each context's locals")
    run.add_argument("--no-contexts", action="store_true", help="let the context calls answer notsup")
    run.add_argument("--no-cache", action="store_true", help="compile it anew, and do not keep that for the next time")
    run.add_argument("--trace", metavar="FILE", help="write what its contexts do, for Perfetto or greenctx timeline")
    run.add_argument("--stats", action="store_true", help="print a table of its contexts to stderr at the end")
    dump = "on SIGUSR1, print the stacks of its contexts to stderr"
    run.add_argument("--dump-on-signal", action="store_true", help=dump)
    # One positional. With two, argparse would drop a double dash that is the guest's first argument.
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


def count(text: str) -> int:
    """Parse a number of contexts."""
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of contexts")
    return int(text)


def seconds(text: str) -> float:
    """Parse a positive, finite number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def size(text: str) -> int:
    """Parse a number of bytes: ``65536``, ``64KiB``, ``1.5MiB``, ``2G``. All units are powers of 1024."""
    from fractions import Fraction  # it takes long to import, and is seldom needed

    match = _SIZE.fullmatch(text)
    value = int(Fraction(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 65536, 64KiB or 1.5GiB")
    return value
