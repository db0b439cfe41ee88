"""The exit statuses of the command line, and the line on stderr that says why."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from greenctx._reports.foreign import printable

if TYPE_CHECKING:
    from typing import TextIO

EXIT_TRAP = 134
"""The status of a guest that trapped, as in wasmtime's own command."""
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
"""The status of a run that SIGTERM has ended, where a trace had to be written first."""
EXIT_TIMEOUT = 124
EXIT_USAGE = 2
EXIT_NOT_RUNNABLE = 1
"""Of ``greenctx inspect``."""


def fail(status: int, *lines: str) -> int:
    """Print the lines to stderr; return the status."""
    say("greenctx: " + "\n".join(map(printable, lines)))
    return status


def say(text: str) -> None:
    """Print lines to stderr, if that can be written to. The exit status does not depend on it.

    Names in files may contain anything, control sequences of terminals included. They are escaped here.
    """
    text = "\n".join(map(printable, text.split("\n"))) + "\n"
    with suppress(OSError):
        _write(sys.stderr, sys.__stderr__, text)


def show(text: str) -> int:
    """Print lines to stdout; return the status. A pipe whose reader has closed it is not a failure."""
    try:
        _write(sys.stdout, sys.__stdout__, text)
    except BrokenPipeError:
        pass
    except OSError as error:
        return fail(EXIT_USAGE, f"stdout cannot be written to: {error.strerror}")
    return 0


def forget_unwritten() -> None:
    """Drop what stdout and stderr could not write, because the interpreter would try again and change the status."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _write(stream: TextIO | None, original: TextIO | None, text: str) -> None:
    if stream is None:  # its descriptor was closed when Python started
        return
    if stream is not original:  # other code has replaced it
        stream.write(text)
        return
    # The stream is bypassed: a signal handler may have interrupted it in the middle of a line, and text that it cannot
    # write would change the status at exit.
    left = text.encode(stream.encoding or "ascii", "backslashreplace")
    while left:
        left = left[os.write(stream.fileno(), left) :]
