"""Public binaries of other projects, from a folder named by ``GREENCTX_CORPUS``. None of them is kept here.

``pytest -s`` prints the table: program, how it ended, and what it called in vain.
"""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path

import pytest
from wasmtime import Trap

from greenctx import GreenctxError
from greenctx.errors import TimeLimitExceeded
from greenctx.wasix import InvalidProgram, Limits, Program
from greenctx.wasix._program.inspection import inspect_file

CORPUS = os.environ.get("GREENCTX_CORPUS")
SCRIPT = b"""for i in 0 1 2; do echo $((i+1)); done
echo written > /file; read line < /file; echo $line
f() { echo in f $1; }; f x
"""
SHELL_PRINTS = b"1\n2\n3\nwritten\nin f x\n"


def binaries() -> list[Path]:
    return sorted(Path(CORPUS).rglob("*.wasm")) if CORPUS else []


def end_of(binary: Path, directory: Path, output: io.BytesIO) -> str:
    """How the program ends. A shell is given a script."""
    try:
        with Program.from_file(
            binary,
            argv=[binary.stem],
            preopens={"/": directory},
            limits=Limits(seconds=10),
            cache=True,
            stdin=SCRIPT,
            stdout=output,
            stderr=output,
        ) as program:
            return f"status {program.run()}"
    except InvalidProgram as error:
        return f"refused: {error.reason}"
    except TimeLimitExceeded:
        return "time limit"
    except (Trap, GreenctxError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


@pytest.mark.skipif(not CORPUS, reason="GREENCTX_CORPUS names no folder with public binaries")
@pytest.mark.parametrize("binary", binaries(), ids=lambda binary: binary.stem)
def test_ends_as_inspected(binary: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each program starts, or is refused for a reason that inspect names; what it calls in vain, inspect has told."""
    found = inspect_file(binary)
    output = io.BytesIO()
    with caplog.at_level(logging.INFO, "greenctx"):
        end = end_of(binary, tmp_path, output)
    in_vain = [message.split()[3].rstrip(",") for message in caplog.messages if "does not provide" in message]
    print(f"\n{binary.stem:28} {end[:100]:102} {' '.join(in_vain)}")
    assert end.startswith("refused") is not found.runnable
    if not found.runnable:
        assert end == f"refused: {found.reason}"
    assert {*in_vain} <= {one.name for one in found.imports if one.answers_enotsup}
    if binary.stem in ("bash", "dash"):
        assert output.getvalue().startswith(SHELL_PRINTS)
