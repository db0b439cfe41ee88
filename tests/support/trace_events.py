"""Reads a trace file, and checks it: against a schema of the Trace Event format, and for what viewers rely on."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contexts import MAIN
from jsonschema import Draft202012Validator

from greenctx import ContextSwitchingEnvironment, Trace

if TYPE_CHECKING:
    import os

_TEXT = {"type": "string", "minLength": 1}
_NUMBER = {"type": "integer", "minimum": 1}
_TIME = {"type": "number", "minimum": 0}
_PLACE = {"ph": _TEXT, "name": _TEXT, "pid": _NUMBER, "tid": _NUMBER}


def _event(phase: str, required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = _PLACE | {"ph": {"const": phase}} | required
    return {
        "type": "object",
        "properties": properties | (optional or {}),
        "required": [*properties],
        "additionalProperties": False,
    }


def _metadata(name: str, args: dict[str, Any]) -> dict[str, Any]:
    arguments = {"type": "object", "properties": args, "required": [*args], "additionalProperties": False}
    return _event("M", {"name": {"const": name}, "args": arguments})


_TIMED = {"ts": _TIME, "cat": _TEXT}
_FLOW = _TIMED | {"id": _NUMBER}  # Perfetto draws no arrow whose id is a string
_COUNTED = {
    "type": "object",
    "properties": {"value": {"type": "integer", "minimum": 0}},
    "required": ["value"],
    "additionalProperties": False,
}
EVENTS = {
    "M": {
        "oneOf": [
            _metadata("process_name", {"name": _TEXT}),
            _metadata("thread_name", {"name": _TEXT}),
            _metadata("thread_sort_index", {"sort_index": {"type": "integer", "minimum": 0}}),
        ]
    },
    "X": _event("X", _TIMED | {"dur": _TIME}, {"args": {"type": "object"}, "tts": _TIME, "tdur": _TIME}),
    "C": _event("C", _TIMED | {"args": _COUNTED}),
    "i": _event("i", _TIMED | {"s": {"enum": ["t", "p", "g"]}}, {"args": {"type": "object"}}),
    "s": _event("s", _FLOW),
    "f": _event("f", _FLOW | {"bp": {"const": "e"}}),
}
"""The part of the Trace Event format that greenctx writes: a schema for the events of each phase.

(One schema of them all would hold each event against all of them.)
"""

for _schema in EVENTS.values():
    Draft202012Validator.check_schema(_schema)
_validators = {phase: Draft202012Validator(schema) for phase, schema in EVENTS.items()}
CLOCKS = 1000
"""Microseconds by which a thread's processor time may seem longer than the time on the clock, which is read apart."""
MOST_CHECKED = 2000
"""How many events of a long trace are checked against the schema, which takes a while."""


def check_trace(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The events of a file, in its order.

    It must be valid; the slices of each track nested; each arrow's ends within slices that are active then; and on each
    process only one context active at a time.
    """
    trace = json.loads(Path(path).read_text())
    assert [*trace] == ["traceEvents"]
    events: list[dict[str, Any]] = trace["traceEvents"]
    for event in events[:MOST_CHECKED] + events[-MOST_CHECKED:]:
        error = next(_validators[event["ph"]].iter_errors(event), None)
        assert error is None, error
    slices, flows = defaultdict(list), defaultdict(list)
    active = defaultdict(list)
    for event in events:
        track = event["pid"], event["tid"]
        match event["ph"]:
            case "X":
                start = round(event["ts"] * 1000)
                piece = start, start + round(event["dur"] * 1000)
                slices[track].append(piece)
                if event["cat"] == "context":
                    assert 0 <= event.get("tdur", 0) <= event["dur"] + CLOCKS
                    active[event["pid"]].append((*piece, event["tid"]))
            case "s" | "f":
                flows[event["id"]].append(event)
    for track, pieces in slices.items():
        _check_nested(track, pieces)
    for process in active.values():
        process.sort()
        assert all(one[1] < other[0] for one, other in pairwise(process))
    assert sorted(flows) == [*range(1, len(flows) + 1)]
    for out, into in flows.values():
        assert (out["ph"], into["ph"]) == ("s", "f")
        assert out["ts"] < into["ts"]
        for event in (out, into):
            ts, process = round(event["ts"] * 1000), active[event["pid"]]
            start, end, tid = process[bisect_right(process, ts, key=itemgetter(0)) - 1]
            assert start <= ts < end, f"{event} hangs in the air"
            assert tid == event["tid"], f"{event} is not where the context is active"
    return events


def _check_nested(track: tuple[int, int], pieces: list[tuple[int, int]]) -> None:
    open_ends: list[int] = []
    for start, end in sorted(pieces, key=lambda piece: (piece[0], -piece[1])):
        while open_ends and open_ends[-1] <= start:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1], f"slices of track {track} cross at {start}"
        open_ends.append(end)


def trace_of(path: Path, contexts: int, switches: int) -> Path:
    """A trace of so many contexts that take turns with main, until there were so many switches."""
    with Trace(path, "a <program>") as trace:
        env = ContextSwitchingEnvironment(instruments=[trace])

        def worker() -> None:
            while True:
                env.switch_context(MAIN)

        def main() -> None:
            ids = [env.create_context(worker) for _ in range(contexts)]
            for turn in range(switches // 2):
                env.switch_context(ids[turn % contexts])

        env.run_main_context(main)
    return path
