"""Runs guests that mean harm through the command line's `main`, many in one process, which is a process of its own."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 100
"""Seconds that a guest may take, whose own time limit is a few of them."""

MOST_MEMORY = 1 << 30
"""The most memory that the process may use, in bytes."""

GOOD_GUEST = Path(__file__).parents[1] / "guests" / "good.wat"
GOOD_STATUS = 42


@dataclass(frozen=True)
class Ran:
    """How one guest ended, and what was written to stderr."""

    arguments: list[str]
    status: int | str
    stderr: str
    memory: int
    """The peak memory of the process by then, in bytes."""
    seconds: float

    def check(self) -> None:
        """Whether it ended with a status, within its limit of memory, and without a traceback on stderr."""
        assert isinstance(self.status, int), self
        assert 0 <= self.status <= 255, self
        assert "Traceback" not in self.stderr, self
        assert "Exception ignored" not in self.stderr, self
        _, begins, own = self.stderr.rpartition("greenctx: ")  # what comes before is the guest's
        assert not (begins and "\x1b" in own), self
        assert self.memory < MOST_MEMORY, self


def run_all(runs: Sequence[Sequence[str]], *, good_guest_every: int = 1) -> list[Ran]:
    """Do ``greenctx ARGUMENTS`` for each. Checks that the process survives all of them, and that every so often a good
    guest still does what it should. In a failure the guest at fault is named.
    """
    good = ["run", str(GOOD_GUEST)]
    jobs: list[list[str]] = []
    for number, run in enumerate(runs, 1):
        jobs.append([*run])
        if number % good_guest_every == 0 or number == len(runs):
            jobs.append(good)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(jobs, file)
        file.flush()
        command = [sys.executable, "-W", "error", __file__, file.name]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode or len(lines) != 2 * len(jobs):
        raise AssertionError(f"the process ended with {done.returncode} after {lines[-1:]}: {done.stderr[-5000:]}")
    results = [Ran(job, *line) for job, line in zip(jobs, lines[1::2], strict=True)]
    for before, after in pairwise(results):
        if after.arguments == good:
            assert after.status == GOOD_STATUS, (before, after)
    return [ran for ran in results if ran.arguments != good]


def work(jobs: list[list[str]]) -> None:
    """Run them all. On stdout there is a line before each (its arguments) and one after it (how it ended)."""
    from greenctx.cli import main

    report, own_stderr = os.fdopen(os.dup(1), "w"), os.dup(2)
    faulthandler.enable(own_stderr)
    with open(os.devnull, "w") as nowhere, tempfile.TemporaryFile("w+", errors="replace") as heard:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(heard.fileno(), 2)
        for job in jobs:
            print(json.dumps(job), file=report, flush=True)
            faulthandler.dump_traceback_later(PATIENCE, exit=True, file=own_stderr)
            started = time.monotonic()
            status: int | str
            try:
                status = main(job)
            except BaseException as error:
                status = repr(error)
                traceback.print_exc()
            faulthandler.cancel_dump_traceback_later()
            sys.stderr.flush()
            heard.seek(0)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            ended = [status, heard.read()[:10_000], memory, round(time.monotonic() - started, 3)]
            print(json.dumps(ended), file=report, flush=True)
            heard.seek(0)
            heard.truncate()


if __name__ == "__main__":
    work(json.loads(Path(sys.argv[1]).read_text()))
