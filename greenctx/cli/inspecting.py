"""``greenctx inspect``."""

from __future__ import annotations

import json

from greenctx.cli.compiling import compile_apart
from greenctx.cli.exit_status import EXIT_NOT_RUNNABLE, EXIT_USAGE, fail, show
from greenctx.errors import InvalidProgram


def inspect(file: str, as_json: bool, *, owns_process: bool) -> int:
    """Print a report on the file. The status says whether it can be run, is another module, or is not a module."""
    from greenctx.wasix._program.executable import read_code
    from greenctx.wasix._program.inspection import inspect_code

    try:
        code = read_code(file)
        found = compile_apart(lambda: inspect_code(file, code), file, len(code), None) if owns_process else None
        found = found or inspect_code(file, code)
    except InvalidProgram as error:
        if as_json:
            show(json.dumps({"file": file, "runnable": False, "reason": error.reason}) + "\n")
        return fail(EXIT_USAGE, str(error))
    status = show(f"{json.dumps(found.as_dict())}\n" if as_json else found.as_text())
    return status or (0 if found.runnable else EXIT_NOT_RUNNABLE)
