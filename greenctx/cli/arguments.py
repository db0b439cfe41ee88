"""The arguments of the command line, with their defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Arguments:
    """The parsed command line."""

    command: str
    # Of `greenctx run`.
    argv: Sequence[str] = ()
    """The file and its arguments."""
    dir: Sequence[str] = ()
    env: Sequence[str] = ()
    max_contexts: int | None = None
    max_memory: int | None = None
    timeout: float | None = None
    shadow_stack: int | None = None
    no_contexts: bool = False
    no_cache: bool = False
    trace: str | None = None
    stats: bool = False
    dump_on_signal: bool = False
    # Of `greenctx inspect` and `greenctx timeline`.
    file: str
    json: bool = False
    output: str


def parse(argv: Sequence[str]) -> Arguments:
    """Parse the command line. Raises SystemExit after it has printed a help text, or what is wrong."""
    given = Arguments()
    if len(argv) > 1 and argv[0] == "run" and not argv[1].startswith("-"):
        # No options, the usual case. To import argparse and make a parser takes a tenth of a small guest's run.
        given.command, given.argv = "run", argv[1:]
        return given
    from greenctx.cli.parser import make_parser

    return make_parser().parse_args(argv, given)
