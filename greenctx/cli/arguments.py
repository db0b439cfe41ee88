"""The arguments of the command line, with the defaults of those that are not given."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = ("run", "demo", "inspect", "timeline", "include")
"""What a file in the current directory may be named, and is run by `greenctx run` then."""


class Arguments:
    """What the command line says."""

    command: str
    # Of `greenctx run` and, but for the first, `greenctx demo`.
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
    invoke: str | None = None
    shared_stack: bool = False
    # Of `greenctx inspect` and `greenctx timeline`.
    file: str
    json: bool = False
    output: str


def parse(argv: Sequence[str]) -> Arguments:
    """Raises SystemExit where it has to say something of its own: what is wrong, or the help that is asked for."""
    if argv and argv[0] not in COMMANDS and _names_a_module(argv[0]):
        argv = ["run", *argv]
    given = Arguments()
    if len(argv) > 1 and argv[0] == "run" and not argv[1].startswith("-"):
        # There are no options, as mostly. To import argparse and make a parser takes a tenth of a small guest's run.
        given.command, given.argv = "run", argv[1:]
        return given
    from greenctx.cli.parser import parse_by_argparse

    return parse_by_argparse(argv, given)


def _names_a_module(text: str) -> bool:
    return not text.startswith("-") and (text.endswith((".wasm", ".wat")) or os.path.isfile(text))
