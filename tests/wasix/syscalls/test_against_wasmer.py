"""Each WASIX call, and each way in which programs end: greenctx does what Wasmer does, or the table says why not."""

from __future__ import annotations

import pytest
from guests.oracle.sides import Case, on_greenctx, on_wasmer
from guests.oracle.table import load_all
from guests.oracle.wasmer import needs_wasmer, running_wasmer

CASES = load_all()
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.call}: {case.case}")


@every_case
def test_greenctx(case: Case) -> None:
    """greenctx does what the table says."""
    assert on_greenctx(case) == case.expected


@needs_wasmer
@every_case
def test_wasmer(case: Case) -> None:
    """Wasmer does what the table says."""
    assert on_wasmer(running_wasmer(), case) == case.wasmer


def test_differences() -> None:
    """Each difference has a reason, and what has a reason is a difference."""
    for case in CASES:
        assert (case.expected != case.wasmer) is bool(case.why), case
        assert (case.greenctx is None) is (case.expected == case.wasmer), case
