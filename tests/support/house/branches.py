"""Measure which lines and branches of the core the tests run.

``python tests/support/house/branches.py [PYTEST ARGUMENT]...``

Leaves a ``.coverage`` for ``coverage report``. ``coverage run`` is wrong here, with ``concurrency = greenlet`` and
without: its tracer has a stack of frames, which it looks at when a function is called or returns; after a greenlet
switch lines are booked to the file and the line that ran before the switch. (It misses lines that run, and counts lines
that do not.) Its sys.monitoring core is right, and agrees with this one about lines, but knows no branches before
Python 3.14. So this remembers the last line of each frame by itself.
"""

from __future__ import annotations

import sys
import threading
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import coverage
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

arcs: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)


@cache
def is_core(file: str) -> bool:
    return Path(file).parent.name in ("greenctx", "_core", "_instruments", "_reports")


def trace(frame: FrameType, _event: str, _arg: object) -> Callable[..., Any] | None:
    """Called when a function is entered."""
    file = frame.f_code.co_filename
    if not is_core(file):
        return None
    outside = last = -frame.f_code.co_firstlineno

    def trace_frame(frame: FrameType, event: str, _arg: object) -> Callable[..., Any]:
        nonlocal last
        if event == "line":
            arcs[file].add((last, frame.f_lineno))
            last = frame.f_lineno
        elif event == "return":
            arcs[file].add((last, outside))
        return trace_frame

    return trace_frame


def main() -> int:
    data = coverage.Coverage().get_data()
    data.erase()
    threading.settrace(trace)
    sys.settrace(trace)
    status = pytest.main()
    if sys.gettrace() is not trace:
        sys.exit("a test has replaced the trace function")
    sys.settrace(None)
    data.add_arcs(arcs)
    data.write()
    return status


if __name__ == "__main__":
    sys.exit(main())
