"""``greenctx inspect``."""

from __future__ import annotations

import json
import os
import sys

from greenctx.cli.exit_status import EXIT_NOT_RUNNABLE, EXIT_USAGE, fail
from greenctx.errors import InvalidProgram


def inspect(file: str, as_json: bool) -> int:
    """Print what the file is. The status says whether it can be run, is a module that cannot, or is no module."""
    from greenctx.wasix._program.inspection import inspect_file

    try:
        found = inspect_file(file)
    except InvalidProgram as error:
        if as_json:
            _print(json.dumps({"file": file, "runnable": False, "reason": error.reason}) + "\n")
        return fail(EXIT_USAGE, str(error))
    _print(f"{json.dumps(found.as_dict())}\n" if as_json else found.as_text())
    return 0 if found.runnable else EXIT_NOT_RUNNABLE


def _print(text: str) -> None:
    encoding = sys.stdout.encoding or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except BrokenPipeError:  # whoever reads it has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the interpreter's own flush at exit
