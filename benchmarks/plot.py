"""Draw how the cost of a switch grows: ``python benchmarks/plot.py results.json growth.svg``.

The results are those of ``pytest benchmarks/test_growth.py --benchmark-json=results.json``.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib.figure import Figure

PANELS = {
    "contexts alive": {"switch_with_so_many_alive": "context"},
    "Python frames of depth": {"switch_so_deep": "context", "bare_greenlet_switch_so_deep": "bare greenlet"},
}


def read(results: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the figures, in nanoseconds, by benchmark and its parameter."""
    figures: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for benchmark in json.loads(results.read_text())["benchmarks"]:
        named = re.fullmatch(r"test_(\w+)\[(\d+)\]", benchmark["name"])
        if named:
            figures[named[1]].append((int(named[2]), float(benchmark["extra_info"]["each"].split()[0])))
    return figures


def draw(figures: dict[str, list[tuple[int, float]]]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (what, lines) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for name, label in lines.items():
            axes.plot(*zip(*figures[name], strict=True), marker="o", label=label)
        axes.set(xlabel=what, ylabel="ns a switch", ylim=(0, None), xscale="log" if "alive" in what else "linear")
        axes.legend()
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/plot.py RESULTS.json PICTURE.svg")
    draw(read(Path(sys.argv[1]))).savefig(sys.argv[2])
