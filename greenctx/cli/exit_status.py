"""How the command line ends: its exit statuses, and the line that says why."""

from __future__ import annotations

import sys

EXIT_TRAP = 134
"""The status of a guest that trapped, as in wasmtime's own command."""
EXIT_INTERRUPTED = 130
EXIT_TIMEOUT = 124
EXIT_USAGE = 2
EXIT_NOT_RUNNABLE = 1
"""Of ``greenctx inspect``."""


def fail(status: int, *lines: str) -> int:
    """Say that on stderr; return the status."""
    # Names in files can hold anything, a terminal's control sequences included.
    text = "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    if sys.stderr is not None:  # as it is when it was closed from the beginning
        print(f"greenctx: {text}", file=sys.stderr)
    return status
