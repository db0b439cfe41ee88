"""The exit statuses of the command line, and the line on stderr that says why."""

from __future__ import annotations

import sys

EXIT_TRAP = 134
"""The status of a guest that trapped, as in wasmtime's own command."""
EXIT_INTERRUPTED = 130
EXIT_TIMEOUT = 124
EXIT_USAGE = 2


def fail(status: int, *lines: str) -> int:
    """Print the lines to stderr; return the status."""
    # Names in files may contain anything, control sequences of terminals included.
    text = "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines)
    if sys.stderr is not None:  # it is None if the descriptor was closed when Python started
        print(f"greenctx: {text}", file=sys.stderr)
    return status
