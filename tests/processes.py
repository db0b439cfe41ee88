"""Runs Python, and the command line, in a process of its own: what a crash would end, and what a shell sees."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

TIMEOUT = 120
"""Seconds; only for what hangs."""


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script. A fatal error shows its Python stack on stderr."""
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def run_greenctx(
    *args: str | bytes | os.PathLike[str], stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a shell does."""
    command = [sys.executable, "-m", "greenctx", *args]
    return subprocess.run(command, input=stdin, env=env, capture_output=True, timeout=TIMEOUT, check=False)
