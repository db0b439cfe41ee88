"""The parser of the command line."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from greenctx.cli.exit_status import EXIT_USAGE, fail, show
from greenctx.cli.options import count, seconds, size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from greenctx.cli.arguments import Arguments

EXAMPLES = """examples:
  greenctx run --dir ./data::/data --env LANG --timeout 10s program.wasm --verbose
  greenctx run --shadow-stack 64KiB --trace trace.json program.wasm
"""

ELSEWHERE = {
    "--mapdir": "--dir HOST::GUEST",
    "--volume": "--dir HOST::GUEST",
    "--map-dir": "--dir HOST::GUEST",
}
"""Options of other commands, and the same options here."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one line, like every other refusal."""
        self.exit(fail(EXIT_USAGE, f"{message} (see {self.prog} --help)"))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a help text. A stream that cannot be written to is not an error, as from Python 3.12 on."""
        with suppress(OSError):
            super()._print_message(message, file)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from greenctx.cli.version import version

        show(version())
        parser.exit()


def parse_by_argparse(argv: Sequence[str], given: Arguments) -> Arguments:
    """Set only the given options: `Arguments` has the defaults."""
    parser, commands = _make_parsers()
    _, unknown = parser.parse_known_args(argv, given)
    if unknown:
        option = unknown[0].partition("=")[0]
        hint = f"; here it is {ELSEWHERE[option]}" if option in ELSEWHERE else ""
        commands[given.command].error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    return given


def _make_parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Return the parser, and that of each command."""
    looks: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": EXAMPLES}
    parser = _Parser(
        prog="greenctx",
        usage="greenctx COMMAND ... | greenctx FILE [ARGS]...",
        description="Run WASIX programs whose contexts switch.",
        **looks,
    )
    parser.add_argument(
        "-V", "--version", action=_Version, nargs=0, help="name the versions, and whether guests can run"
    )
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands", prog="greenctx")
    usage = "greenctx run [OPTION]... FILE [ARGS]..."
    run = parsers.add_parser("run", help="run a program", usage=usage, argument_default=argparse.SUPPRESS, **looks)
    _add_options(run)
    invoke = "call that export, with ARGS as numbers, and print its results; FILE needs no _start"
    run.add_argument("--invoke", metavar="NAME", help=invoke)
    # One positional, because with two argparse would drop a double dash as the guest's first argument.
    file_and_args = "a WASI command (.wasm, .wat text, or - for stdin), and its arguments; a -- between them is dropped"
    run.add_argument("argv", metavar="FILE [ARGS]", nargs=argparse.REMAINDER, help=file_and_args)
    demo = parsers.add_parser(
        "demo",
        help="run the bundled guest, in which several contexts work together",
        argument_default=argparse.SUPPRESS,
    )
    _add_options(demo)
    inspect = parsers.add_parser(
        "inspect",
        help="say what a module imports and exports, and whether it can be run",
        description="Exit status: 0 if it can be run, 1 if not, 2 if it is not a module.",
    )
    inspect.add_argument("--json", action="store_true", help="as one JSON object, whatever the file is")
    inspect.add_argument("file", metavar="FILE", help="a module (.wasm, or .wat text)")
    timeline = parsers.add_parser("timeline", help="draw a trace, as a page to look at or a picture")
    timeline.add_argument("file", metavar="TRACE", help="what greenctx run --trace has written")
    timeline.add_argument("-o", "--output", required=True, metavar="FILE", help="where to: a name in .html or .svg")
    parsers.add_parser("include", help="print the directory of the C header for guests, for a compiler's -I")
    return parser, parsers.choices


def _add_options(parser: argparse.ArgumentParser) -> None:
    guest = parser.add_argument_group("what the guest gets")
    guest.add_argument("--dir", action="append", metavar="HOST[::GUEST[::ro]]", help="a directory, or one to read only")
    guest.add_argument(
        "-e", "--env", action="append", metavar="K[=V]", help="an environment variable, of the host's value without =V"
    )
    guest.add_argument(
        "--shadow-stack", type=size, metavar="SIZE", help="a stack of its own for each context's C locals"
    )
    guest.add_argument("--shared-stack", action="store_true", help="do not warn that contexts share one C stack")
    guest.add_argument("--no-contexts", action="store_true", help="let the context calls return ENOTSUP")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-contexts", type=count, metavar="N", help="contexts alive at any one time, besides main")
    limits.add_argument("--max-memory", type=size, metavar="SIZE", help="memory and tables together, such as 64MiB")
    limits.add_argument("--max-stacks", type=size, metavar="SIZE", help="stacks of contexts, 512KiB each at most")
    limits.add_argument("--max-files", type=count, metavar="N", help="open files and directories; 512 by default")
    limits.add_argument("--timeout", type=seconds, metavar="TIME", help="10, 10s, 500ms or 2m; then status 124")
    seeing = parser.add_argument_group("seeing what contexts do")
    seeing.add_argument("--trace", metavar="FILE", help="write it to a file, for Perfetto or greenctx timeline")
    seeing.add_argument("--stats", action="store_true", help="print a table of the contexts to stderr at the end")
    dump = "on SIGUSR1, print the stacks of the contexts to stderr"
    seeing.add_argument("--dump-on-signal", action="store_true", help=dump)
    verbose = "print what the log has to stderr, such as the first call of each function that is not provided"
    seeing.add_argument("--verbose", action="store_true", help=verbose)
    cache = "compile the module anew, and do not keep it for the next time"
    parser.add_argument_group("compiling").add_argument("--no-cache", action="store_true", help=cache)
