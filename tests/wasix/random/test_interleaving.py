"""Many guest calls in one store, interleaved at random, with faults: no abort, no wrong value."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import random_runs
from processes import TIMEOUT

SCRIPT = Path(random_runs.__file__).with_name("interleave.py")
OPERATIONS = 6000
FAULTS = ["recursion", "interrupt", "memory"]


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 5))])
@pytest.mark.parametrize(
    "faults",
    [
        *([], ["recursion"], ["interrupt"], ["memory"], ["recursion", "interrupt"]),
        # All three at once end in a crash on CPython 3.13, one run in 30 or so. The cause is not known; no known change
        # of greenctx brought it. CI runs the long forms on 3.12, where it was not seen.
        pytest.param(FAULTS, marks=pytest.mark.long),
    ],
    ids="-".join,
)
def test_random_interleaving_ends_well(seed: int, faults: list[str]) -> None:
    """A run ends by itself, every value it checked was right, and it did what it is there for."""
    if "memory" in faults and importlib.util.find_spec("_testcapi") is None:
        pytest.skip("this Python has no _testcapi to make allocations fail")
    command = [sys.executable, str(SCRIPT), str(seed), str(OPERATIONS), *faults]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, f"{done.stderr[:2000]}\n...\n{done.stderr[-2000:]}"
    counts = json.loads(done.stdout)
    assert counts["operations"] >= OPERATIONS
    assert counts["switches"] > OPERATIONS / 4
    assert counts["destroyed"] > 50
    assert counts.get("main got GuestTrap", 0) + counts.get("caught GuestTrap", 0) > 0
    assert counts.get("main got HostError", 0) + counts.get("caught HostError", 0) > 0
    if "recursion" in faults:
        assert counts["RecursionError"] > 0
    if "memory" in faults:
        assert counts["MemoryError"] > 0
