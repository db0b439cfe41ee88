"""Benchmarks: ``pytest benchmarks``. Ends with a table of ratios, each figure to its baseline in the same run.

With ``--benchmark-json=results.json`` the figures are kept; ``python benchmarks/plot.py results.json`` draws how cost
grows with the number of contexts and with depth.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parent))  # for what the benchmarks share

_figures: dict[str, float] = {}
_units: dict[str, str] = {}
_baselines: dict[str, tuple[str, ...]] = {}

ROUNDS = 15

Baseline = str | tuple[str, ...] | None


def _note(request: pytest.FixtureRequest, benchmark: Any, figure: float, unit: str, baseline: Baseline) -> None:
    name = request.node.name.removeprefix("test_")
    _figures[name], _units[name] = figure, unit
    _baselines[name] = (baseline,) if isinstance(baseline, str) else baseline or ()
    benchmark.extra_info["each"] = f"{figure:.0f} {unit}"
    benchmark.extra_info["ratios"] = {to: round(figure / _figures[to], 3) for to in _baselines[name] if to in _figures}


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Time ``function()``, which does something ``times`` times; remember one of it, and what to compare it with."""

    def run(function: Callable[[], object], *, times: int, baseline: Baseline = None) -> None:
        benchmark.pedantic(function, rounds=ROUNDS, warmup_rounds=2)
        _note(request, benchmark, median(benchmark.stats.stats.data) / times * 1e9, "ns", baseline)

    return run


@pytest.fixture
def record(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """The same of a ``function()`` that does the timing and returns the seconds that one took."""

    def run(function: Callable[[], float], *, baseline: Baseline = None) -> None:
        seconds: list[float] = []
        benchmark.pedantic(lambda: seconds.append(function()), rounds=ROUNDS, warmup_rounds=2)
        _note(request, benchmark, median(seconds) * 1e9, "ns", baseline)

    return run


@pytest.fixture
def record_bytes(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Remember a figure in bytes."""

    def run(figure: float, *, baseline: Baseline = None) -> None:
        benchmark.pedantic(lambda: None, rounds=1)
        _note(request, benchmark, figure, "bytes", baseline)

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the medians, and their ratios to the baselines."""
    if not _figures:
        return
    terminalreporter.section("medians of one run, and their ratios")
    for name, figure in _figures.items():
        line = f"{name:52} {figure:12.0f} {_units[name]:5}"
        ratios = (f" {figure / _figures[to]:7.2f} x {to}" for to in _baselines[name] if to in _figures)
        terminalreporter.write_line(line + ",".join(ratios))
