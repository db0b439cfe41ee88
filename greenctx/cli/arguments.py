"""The arguments of the command line, with their defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = ("run", "demo", "inspect", "timeline", "include")
"""The commands. A file of the same name in the current directory is run by `greenctx run` only."""


class Arguments:
    """The parsed command line."""

    command: str
    # Of `greenctx run`; all but the first also of `greenctx demo`.
    argv: Sequence[str] = ()
    """The file and its arguments."""
    dir: Sequence[str] = ()
    env: Sequence[str] = ()
    max_contexts: int | None = None
    max_memory: int | None = None
    max_stacks: int | None = None
    max_files: int | None = None
    timeout: float | None = None
    shadow_stack: int | None = None
    no_contexts: bool = False
    no_cache: bool = False
    trace: str | None = None
    stats: bool = False
    dump_on_signal: bool = False
    verbose: bool = False
    invoke: str | None = None
    shared_stack: bool = False
    owns_process: bool = False
    """Whether the process does nothing else, as when a shell has started the command."""
    # Of `greenctx inspect` and `greenctx timeline`.
    file: str
    json: bool = False
    output: str
