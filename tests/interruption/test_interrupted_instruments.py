"""Interruptions of an environment with instruments: at every point, as test_interruption.py has it of the others."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN
from interruptions import Book, run_script, script
from recorder import Recorder

from greenctx import ContextSwitchingEnvironment, Trace

if TYPE_CHECKING:
    from pathlib import Path


class Consistent(Recorder):
    """Checks by itself that the events make sense one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.active = MAIN

    def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
        # An interruption between the end of this method and the note of that lets it be told again.
        if self.events[-1:] != [("switched", from_id, to_id)]:
            assert from_id == self.active
            super().context_switched(environment, from_id, to_id)
        self.active = to_id


@pytest.mark.parametrize("offset", [0, *(pytest.param(offset, marks=pytest.mark.long) for offset in range(1, 4))])
def test_interrupted_anywhere(offset: int, caplog: pytest.LogCaptureFixture) -> None:
    """Wherever an interruption arrives, in the reports too, no context is lost, and the events agree with the book."""
    runs = 0
    for n in range(1 + offset * 7, 100_000, 29):
        consistent = Consistent()
        observed = ContextSwitchingEnvironment(instruments=[consistent])
        try:
            book, rest = run_script(script, [n], make_book=partial(Book, observed))
            started = {event[1] for event in consistent.events if event[0] == "started"}
            ended = {event[1] for event in consistent.events if event[0] == "ended"}
            entered = {context_id for context_id, count in enumerate(book.entered) if count}
            assert started >= entered
            assert ended >= started | entered
            assert not caplog.records, caplog.text
        except BaseException as error:
            error.add_note(f"with a signal before point {n}")
            raise
        if rest:
            break
        runs += 1
    assert runs > 50


def few_switches(book: Book) -> None:
    """Main of a scenario in which switches between two contexts are all that matters."""
    book.attempt(lambda: book.switch(book.create(book.sleep)))
    for _ in range(2):
        book.attempt(book.switch, 1)


def switches_in(path: Path) -> list[tuple[str, int, int]]:
    """The switches that a trace tells of, in its order."""
    events = json.loads(path.read_text())["traceEvents"]
    ends = [[event["tid"] - 1 for event in events if event["ph"] == phase] for phase in "sf"]
    return [("switched", from_id, to_id) for from_id, to_id in zip(*ends, strict=True)]


def test_a_trace_that_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever an interruption arrives, each switch is in the trace once, and in its order."""
    # Which opens a file: an interruption between that and the `with` leaves it to the collector.
    monkeypatch.setattr("greenctx._instruments.tracks.resident_bytes", lambda: None)
    for n in range(1, 100_000, 3):
        consistent, trace = Consistent(), Trace(tmp_path / "trace.json")
        observed = ContextSwitchingEnvironment(instruments=[consistent, trace])
        _, rest = run_script(few_switches, [n], make_book=partial(Book, observed))
        trace.close()
        told = [event for event in consistent.events if event[0] == "switched"]
        assert switches_in(tmp_path / "trace.json") == told, f"with a signal before point {n}"
        if rest:
            break
    assert n > 200
