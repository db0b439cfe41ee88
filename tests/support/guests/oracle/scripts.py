"""Scripts of context operations, obeyed by a guest on Wasmer."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from random_runs.scripts import AT_EXIT, Entry, Rules

from guests.compile import compile_guest

if TYPE_CHECKING:
    from random_runs.scripts import Script

    from guests.oracle.wasmer import Wasmer

WASMER_RULES = Rules(
    max_contexts=inf,
    bad_pointer_creates=True,
    tells_which_context_returned=False,
)

DIFFERENCES = {
    "max_contexts": "Wasmer has no limit of contexts, and panics when the system's limit of mappings is reached",
    "bad_pointer_creates": "Wasmer creates the context before it writes the id: a context without a known id stays",
    "tells_which_context_returned": "Wasmer says it in its log only, and ends the program with 129 as greenctx does",
}
"""Why greenctx differs from Wasmer, for each rule in which it does."""


class OnWasmer:
    """Obeys scripts as `InGuest` does."""

    def __init__(self, wasmer: Wasmer) -> None:
        self._wasmer = wasmer
        self._module = compile_guest("script", "-O1", "-DON_ITS_OWN")

    def run(self, script: Script) -> str:
        text = " ".join(f"{operation.do:d} {operation.argument}" for operation in script.operations)
        ran = self._wasmer.run(self._module, text)
        script.log += [Entry(*map(int, line.split())) for line in ran.stdout.splitlines()]
        if ran.reason != "exited":
            return "trap" if ran.reason.startswith(TRAPPED) else f"{ran.reason}, {ran.stderr}"
        if ran.status == 129 and script.log[-1].error != AT_EXIT:
            return "context ? returned"
        return f"status {ran.status}"


TRAPPED = "failed: command execution failed: RuntimeError: unreachable"
