"""Benchmarks: ``pytest benchmarks``. Ends with a table of ratios, each figure to its baseline in the same run.

A shared machine may be half as fast again from one moment to the next. So its pace is measured between any two rounds.
Ratios are of figures in terms of the pace, even if the baseline was measured a minute ago.

With ``--benchmark-json=results.json`` the figures are kept; ``python benchmarks/plot.py results.json`` draws how cost
grows with the number of contexts and with depth.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import thread_time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

sys.path.insert(0, str(Path(__file__).parent))  # for modules that the benchmarks share

from bare import ping_pong

ROUNDS = 15
WARMUP_ROUNDS = 2

Baseline = str | tuple[str, ...] | None


@dataclass
class Figure:
    """The result of one benchmark."""

    value: float
    unit: str
    in_paces: float
    """The value in terms of the machine's pace."""
    baselines: tuple[str, ...]

    def ratios(self) -> dict[str, float]:
        """Return the ratios to its baselines, as far as they were measured."""
        return {name: self.in_paces / _figures[name].in_paces for name in self.baselines if name in _figures}


_figures: dict[str, Figure] = {}


def pace() -> float:
    """Return the processor time of a switch of bare greenlets right now, in seconds."""
    return ping_pong(4000, thread_time)  # not by the clock, which goes on while another thread has the GIL


def _run_rounds(benchmark: Any, function: Callable[[], object]) -> list[float]:
    """Run the function in rounds; return the machine's pace in each round, without the warm-up."""
    paces: list[float] = []
    benchmark.pedantic(function, setup=lambda: paces.append(pace()), rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)
    paces.append(pace())
    return [(before + after) / 2 for before, after in pairwise(paces)][WARMUP_ROUNDS:]


@pytest.fixture
def note(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record the median of the values, and the baselines to compare it with."""

    def run(values: Sequence[float], unit: str, baseline: Baseline, paces: Sequence[float]) -> None:
        in_paces = median(value / pace for value, pace in zip(values, paces, strict=True))
        baselines = (baseline,) if isinstance(baseline, str) else baseline or ()
        figure = Figure(median(values), unit, in_paces, baselines)
        _figures[request.node.name.removeprefix("test_")] = figure
        benchmark.extra_info["each"] = f"{figure.value:.0f} {unit}"
        benchmark.extra_info["ratios"] = {name: round(ratio, 3) for name, ratio in figure.ratios().items()}

    return run


@pytest.fixture
def measure(benchmark: Any, note: Callable[..., None]) -> Callable[..., None]:
    """Time ``function()``, which does something ``times`` times; record the time of one, and the baselines."""

    def run(function: Callable[[], object], *, times: int, baseline: Baseline = None) -> None:
        paces = _run_rounds(benchmark, function)
        note([seconds / times * 1e9 for seconds in benchmark.stats.stats.data], "ns", baseline, paces)

    return run


@pytest.fixture
def record(benchmark: Any, note: Callable[..., None]) -> Callable[..., None]:
    """Record the seconds that ``function()`` measures and returns, and the baselines."""

    def run(function: Callable[[], float], *, baseline: Baseline = None) -> None:
        values: list[float] = []
        paces = _run_rounds(benchmark, lambda: values.append(function() * 1e9))
        note(values[WARMUP_ROUNDS:], "ns", baseline, paces)

    return run


@pytest.fixture
def record_bytes(benchmark: Any, note: Callable[..., None]) -> Callable[..., None]:
    """Record a figure in bytes."""

    def run(figure: float, *, baseline: Baseline = None) -> None:
        benchmark.pedantic(lambda: None, rounds=1)
        note([figure], "bytes", baseline, [1])

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the medians, and their ratios to the baselines."""
    if not _figures:
        return
    terminalreporter.section("medians of one run, and their ratios")
    for name, figure in _figures.items():
        line = f"{name:52} {figure.value:12.0f} {figure.unit:5}"
        terminalreporter.write_line(line + ",".join(f" {ratio:7.2f} x {to}" for to, ratio in figure.ratios().items()))
