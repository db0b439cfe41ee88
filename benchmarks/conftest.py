"""Benchmarks: ``pytest benchmarks``. Ends with a table of ratios, each figure to its baseline in the same run."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

_seconds: dict[str, float] = {}
_baselines: dict[str, str] = {}

ROUNDS = 15


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Time ``function()``, which does something ``times`` times; remember one of it, and what to compare it with."""

    def run(function: Callable[[], object], *, times: int, baseline: str | None = None) -> None:
        benchmark.pedantic(function, rounds=ROUNDS, warmup_rounds=2)
        name = request.node.name.removeprefix("test_")
        _seconds[name] = median(benchmark.stats.stats.data) / times
        benchmark.extra_info["nanoseconds each"] = round(_seconds[name] * 1e9)
        if baseline is not None:
            _baselines[name] = baseline

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the medians, and their ratios to the baselines."""
    if not _seconds:
        return
    terminalreporter.section("medians of one run, and their ratios")
    for name, seconds in _seconds.items():
        line = f"{name:38} {seconds * 1e9:10.0f} ns"
        baseline = _baselines.get(name)
        if baseline in _seconds:
            line += f"   {seconds / _seconds[baseline]:6.2f} x {baseline}"
        terminalreporter.write_line(line)
