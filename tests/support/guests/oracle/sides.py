"""One case on both sides: its output and its end, in the same words for Wasmer and for greenctx."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from wasmtime import Trap, TrapCode, WasmtimeError

from greenctx import ContextEntrypointReturned
from greenctx.errors import Deadlock, GuestException, TimeLimitExceeded
from greenctx.wasix import Limits, Program
from guests.compile import compile_guest
from guests.oracle.probes import build_probe, printed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from guests.oracle.wasmer import Wasmer

HANGS = "hangs"
SECONDS = 0.7
"""The seconds after which a program counts as hanging."""

FILES = {"file": "content", "dir/inner": "inside"}
"""The files in /workspace, the directory in which Wasmer starts a program."""


@dataclass(frozen=True)
class Case:
    """One call in one case. ``greenctx`` is None where it does the same as Wasmer; else ``why`` has the reason."""

    call: str
    case: str
    steps: str
    """A probe, or ``guest.c argument...``"""
    wasmer: str
    greenctx: str | None = None
    why: str = ""
    functions: Mapping[str, str] = field(default_factory=dict)

    @property
    def module(self) -> Path | None:
        name, *_ = self.steps.split()
        return compile_guest(name.removesuffix(".c")) if name.endswith(".c") else None

    @property
    def arguments(self) -> list[str]:
        return self.steps.split()[1:] if self.module else []

    @property
    def expected(self) -> str:
        """The expected outcome on greenctx."""
        return self.wasmer if self.greenctx is None else self.greenctx

    def seconds(self, expected: str) -> float:
        """The time limit, in seconds."""
        return SECONDS if HANGS in expected or not expected else 20

    def code(self) -> bytes:
        return self.module.read_bytes() if self.module else build_probe(self.steps, self.functions)

    def told(self, stdout: bytes, end: str) -> str:
        words = stdout.decode().splitlines() if self.module else islice(printed(stdout), 40)
        return " ".join([*words, *([f"[{end}]"] if end else [])])


def on_wasmer(wasmer: Wasmer, case: Case) -> str:
    """Run it on Wasmer."""
    with tempfile.TemporaryDirectory() as directory:
        module = case.module or Path(directory, "probe.wasm")
        module.write_bytes(case.code())
        ran = wasmer.run(module, *case.arguments, files=FILES, timeout=case.seconds(case.wasmer))
    kind, _, message = ran.reason.partition(": command execution failed: RuntimeError: ")
    match kind:
        case "exited":
            end = f"exit {ran.status}" if ran.status else ""
        case "failed":
            end = message.splitlines()[0]
        case "timeout":
            end = HANGS
        case _:
            end = ran.reason
    return case.told(ran.stdout, end)


TRAPS = {
    TrapCode.UNREACHABLE: "unreachable",
    TrapCode.STACK_OVERFLOW: "call stack exhausted",
    TrapCode.INTEGER_DIVISION_BY_ZERO: "integer divide by zero",
    TrapCode.MEMORY_OUT_OF_BOUNDS: "out of bounds memory access",
}
"""Return the outcome in Wasmer's words."""


def on_greenctx(case: Case) -> str:
    """Run it on greenctx, with the same files in the same place."""
    stdout, stderr = BytesIO(), BytesIO()
    with tempfile.TemporaryDirectory() as directory:
        for name, text in FILES.items():
            file = Path(directory, "workspace", name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        program = Program(
            case.code(),
            argv=["probe", *case.arguments],
            preopens={"/": directory},
            limits=Limits(seconds=case.seconds(case.expected)),
            stdin=b"",
            stdout=stdout,
            stderr=stderr,
        )
        with program:
            try:
                status = program.run()
                end = f"exit {status}" if status else ""
            except ContextEntrypointReturned as error:
                end = f"exit {error.exit_code}"
            except Deadlock:
                end = "Deadlock"
            except TimeLimitExceeded:
                end = HANGS
            except GuestException:
                end = "uncaught exception"
            except Trap as trap:
                # Traps made by the host have no code.
                end = trap.message if trap.trap_code is None else TRAPS.get(trap.trap_code, str(trap.trap_code))
            except WasmtimeError:
                end = "refused by wasmtime"
    return case.told(stdout.getvalue(), end)
