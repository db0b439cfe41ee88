"""Wasmer in a process beside the tests, one that may abort."""

from __future__ import annotations

import atexit
import json
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVER = Path(__file__).with_name("server.py")

needs_wasmer = pytest.mark.skipif(
    find_spec("wasmer_sdk") is None, reason="Wasmer's SDK is not installed: pip install 'greenctx[oracle]'"
)


class Ran(NamedTuple):
    """The outcome of a program on Wasmer."""

    status: int | None
    reason: str
    """The end as Wasmer names it: exited, timeout, ..., or aborted, if Wasmer aborted its process."""
    stdout: bytes
    stderr: str


class Wasmer:
    """Runs modules on Wasmer, many in one process. A program that aborts this process only ends its own run."""

    def __init__(self) -> None:
        self.aborted = 0
        """How many processes ended too early."""
        self._cache = tempfile.TemporaryDirectory(prefix="greenctx-wasmer-")
        self._process: subprocess.Popen[str] | None = None

    def run(
        self,
        module: Path,
        *args: str,
        files: Mapping[str, str] | None = None,
        timeout: float = 20,
        attempts: int = 3,
    ) -> Ran:
        """Run a module. ``files`` lie in /workspace, the working directory.

        Another attempt is made only if Wasmer aborts, which it sometimes does when contexts are left.
        """
        request = json.dumps({"module": str(module), "args": args, "files": files or {}, "timeout": timeout})
        for _ in range(attempts):
            process = self._process or self._start()
            if answer := self._ask(process, request, timeout):
                fields = json.loads(answer)
                if fields["reason"] == "timeout":  # the guest may loop on
                    self.close()
                return Ran(fields["status"], fields["reason"], fields["stdout"].encode("latin-1"), fields["stderr"])
            self.aborted += 1
            self.close()
        return Ran(None, "aborted", b"", "")

    def close(self) -> None:
        """End the process. Another run starts another one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(BrokenPipeError), process:  # closes its pipes, and waits
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._cache.cleanup()

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", str(SERVER), self._cache.name]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        return self._process

    def _ask(self, process: subprocess.Popen[str], request: str, timeout: float) -> str:
        """Return the answer, or nothing if the process has ended or is stuck."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(request, file=process.stdin, flush=True)
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([process.stdout], [], [], timeout + 10)
        return process.stdout.readline() if ready else ""


@cache
def running_wasmer() -> Wasmer:
    """Return the instance that tests share."""
    running = Wasmer()
    atexit.register(running.__exit__)
    return running
