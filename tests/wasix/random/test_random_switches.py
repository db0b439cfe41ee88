"""Random switches of guests to one another, deferred and not: no abort, no wrong value, and the same in both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import random_runs

SCRIPT = Path(random_runs.__file__).with_name("guest_switches.py")
MORE_SEEDS = [pytest.param(2, marks=pytest.mark.long)]


@pytest.fixture
def operations(long: bool) -> int:
    return 400 if long else 200


def run(seed: int, operations: int, *options: str) -> tuple[list[Any], str]:
    """Return what each run counted, in the order of their seeds, and how the guest ended."""
    command = [sys.executable, str(SCRIPT), str(seed), str(operations), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    *counts, guest = done.stdout.splitlines()
    return sorted(map(json.loads, counts), key=lambda one: one["seed"]), guest


@pytest.mark.parametrize("seed", [1, *MORE_SEEDS])
@pytest.mark.parametrize("option", ["", "epochs", "watched", "two-threads", "gevent", "asyncio"])
def test_deferred_switches_change_nothing(seed: int, option: str, operations: int) -> None:
    """Every context does the same, in the same order, whether greenlet switches are deferred or not."""
    if option == "gevent":
        pytest.importorskip("gevent")
    counts, guest = run(seed, operations, option)
    assert (counts, guest) == run(seed, operations, option, "not-deferred")
    assert counts[0]["operations"] >= operations
    assert counts[0]["destroyed"] > 5


@pytest.mark.parametrize("seed", [1, *MORE_SEEDS])
@pytest.mark.parametrize("options", ["", "epochs watched two-threads", "gevent", "asyncio epochs"])
def test_interrupted_deferred_switches(seed: int, options: str, operations: int) -> None:
    """With interruptions at any moment it ends well, too."""
    if "gevent" in options:
        pytest.importorskip("gevent")
    counts, _ = run(seed, operations, "interrupt", *options.split())
    assert counts[0]["KeyboardInterrupt"] > 0
