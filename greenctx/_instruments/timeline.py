"""Timelines: read a trace file, and draw it as a page that needs no viewer.

The page is one file, without a network connection. It is a canvas and 200 lines of script (timeline.html). Plotting
libraries were rejected: those that draw thousands of bars take megabytes, and none draws arrows between rows.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greenctx._core.context import MAIN
from greenctx._instruments.trace_events import matters
from greenctx._instruments.trace_file import HEAD
from greenctx._reports.foreign import read_file, reason_of
from greenctx.errors import InvalidTrace

if TYPE_CHECKING:
    import os

MAX_BYTES = 2**30
"""The size of the largest trace to read, in bytes."""

Track = tuple[int, int]
"""A process and a thread, as traces name them."""


@dataclass
class Row:
    """One context. Times are in microseconds since the beginning."""

    name: str
    active: list[tuple[float, float]] = field(default_factory=list)
    """When it became the active context, and until when; ascending."""
    calls: list[tuple[float, float, str, int]] = field(default_factory=list)
    """Beginnings, ends, names and depths of nesting of host calls or their parts; ascending."""
    processor: float | None = None
    """The processor time of the context, if the trace has it."""
    marks: list[tuple[float, str]] = field(default_factory=list)
    """The times and names of its other events."""


@dataclass
class Timeline:
    """The contents of a drawing."""

    title: str
    rows: list[Row]
    switches: list[tuple[float, int, int]]
    """Times, and the rows that they lead from and to; ascending."""
    duration: float

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Timeline:
        """Read a trace file; its end may be missing. Raises `InvalidTrace`."""
        events = _read_events(Path(path))
        try:
            return cls._of(events)
        except ValueError as error:
            raise InvalidTrace(str(path), f"it is not a trace of contexts: {error}") from error

    @classmethod
    def _of(cls, events: list[dict[str, Any]]) -> Timeline:
        rows: defaultdict[Track, Row] = defaultdict(lambda: Row("?"))
        order: dict[Track, int] = {}
        processes: dict[int, str] = {}
        switches: dict[Any, list[tuple[float, Track]]] = defaultdict(list)
        for event in filter(matters, events):
            track, phase, name = (int(event["pid"]), int(event["tid"])), event["ph"], str(event["name"])
            if phase == "M":
                if name == "process_name":
                    processes[track[0]] = str(event["args"]["name"])
                elif name == "thread_name":
                    rows[track].name = str(event["args"]["name"])
                elif name == "thread_sort_index":
                    order[track] = int(event["args"]["sort_index"])
                continue
            time = float(event["ts"])
            if phase == "X":
                end = time + float(event["dur"])
                if event["cat"] == "context":
                    rows[track].active.append((time, end))
                    if "tdur" in event:
                        rows[track].processor = (rows[track].processor or 0.0) + float(event["tdur"])
                else:
                    rows[track].calls.append((time, end, name, 0))
            elif phase == "i":
                # Main may return. Other contexts must not, so the mark shows that they did.
                name = "ended" if name == "returned" and track[1] == MAIN + 1 else name
                rows[track].marks.append((time, _mark(name, event.get("args", {}))))
            elif phase in ("s", "f"):
                switches[event["id"]].append((time, track))
        if events and not any(row.active for row in rows.values()):  # a program that was killed at once has no events
            raise ValueError("nothing in it is active")
        begin = min((start for row in rows.values() for start, _ in row.active), default=0.0)
        tracks = sorted(rows, key=lambda track: (track[0], order.get(track, track[1])))
        index = {track: number for number, track in enumerate(tracks)}
        arrows = [
            (out[0] - begin, index[out[1]], index[into[1]])
            for out, into in _pairs(switches)
            if out[1] in index and into[1] in index
        ]
        for (process, _), row in rows.items():
            _arrange(row, begin, f"{processes.get(process, process)}: " if len(processes) > 1 else "")
        duration = max((end for row in rows.values() for _, end in row.active), default=1.0)
        title = ", ".join(processes[process] for process in sorted(processes)) or "contexts"
        return cls(title, [rows[track] for track in tracks], sorted(arrows), duration)

    def as_html(self) -> str:
        """Return a page that shows the timeline."""
        names: dict[str, int] = {}
        rows = [
            {
                "name": row.name,
                "processor": row.processor,
                "active": [_rounded(start, end) for start, end in row.active],
                "calls": [
                    [*_rounded(start, end), names.setdefault(name, len(names)), depth]
                    for start, end, name, depth in row.calls
                ],
                "marks": [[*_rounded(time), text] for time, text in row.marks],
            }
            for row in self.rows
        ]
        data = {
            "title": self.title,
            "duration": self.duration,
            "rows": rows,
            "switches": [[*_rounded(time), out, into] for time, out, into in self.switches],
            "names": [*names],
        }
        page = (files("greenctx") / "_instruments" / "timeline.html").read_text(encoding="utf-8")
        # Only that character can end a script element.
        return page.replace("/*DATA*/", json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def _read_events(path: Path) -> list[dict[str, Any]]:
    try:
        text = read_file(str(path), MAX_BYTES, lambda head: b"\0" not in head).decode()
    except UnicodeDecodeError as error:
        raise InvalidTrace(str(path), "it is not text") from error
    except (OSError, ValueError) as error:
        raise InvalidTrace(str(path), reason_of(error)) from error
    try:
        events = _parse(text)
    except RecursionError as error:
        raise InvalidTrace(str(path), "it is not in the Trace Event format") from error
    if isinstance(events, dict):
        events = events.get("traceEvents")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise InvalidTrace(str(path), "it is not in the Trace Event format")
    return events


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return _whole_lines(text)


def _whole_lines(text: str) -> list[Any] | None:
    """Return the events of a file of `Trace` that was not closed, because its process was killed."""
    first, *lines = text.split("\n")  # the head alone has no event
    events = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(json.loads(line.removesuffix(",")))
        except ValueError:
            # Killed in the middle of a write. The half of a line may be followed by the last byte of the old end.
            if lines[number:] not in ([], [""]):
                return None
            break
    return events if first in (HEAD, "[") else None


def _mark(name: str, args: dict[str, Any]) -> str:
    return " ".join([name, *(f"{key} {value}" for key, value in args.items() if key != "name")])


def _pairs(switches: dict[Any, list[tuple[float, Track]]]) -> list[tuple[tuple[float, Track], tuple[float, Track]]]:
    return [(min(ends), max(ends)) for ends in switches.values() if len(ends) == 2]


def _arrange(row: Row, begin: float, prefix: str) -> None:
    """Sort a row, and find the nesting of its calls."""
    row.name = prefix + row.name
    row.active = sorted((start - begin, end - begin) for start, end in row.active)
    row.marks = sorted((max(0.0, time - begin), text) for time, text in row.marks)
    calls = sorted((start - begin, begin - end, name) for start, end, name, _ in row.calls)
    row.calls = []
    around: list[float] = []
    for start, minus_end, name in calls:
        end = -minus_end  # sorted by it, calls that begin together go from the outside inwards
        while around and around[-1] <= start:
            around.pop()
        row.calls.append((start, end, name, len(around)))
        around.append(end)


def _rounded(*times: float) -> list[float]:
    return [round(time, 3) for time in times]
