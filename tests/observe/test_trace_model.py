"""The events that instruments get, and those in a trace file, equal the model's (model.py) for random commands.

`Machine` draws the commands. Here the model notes the events as well.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant
from random_runs.machine import MAX_CONTEXTS, Machine
from random_runs.model import MAIN, Model, World
from recorder import Event, Recorder
from trace_events import check_trace

from greenctx import Trace


class EventModel(Model):
    """Notes each event at the time at which the rule that leads to it says so."""

    def __init__(self, max_contexts: int) -> None:
        self.events: list[Event] = [("started", MAIN)]
        self.announced: set[int] = set()
        self.seen = MAIN
        self.passing = False
        super().__init__(max_contexts)

    @property
    def active(self) -> int:
        return self._active

    @active.setter
    def active(self, active: int) -> None:
        self._active = active
        if active != self.seen and not self.passing:
            self.events.append(("switched", self.seen, active))
            self.seen = active

    def create(self) -> None:
        new = self.next_id
        super().create()
        if self.next_id != new:
            self.events.append(("created", new))

    def end(self, error: str | None) -> None:
        self.events.append(("ended", self.active, error))
        super().end(error)

    def _resume(self, target: int) -> None:
        unstarted = target in self.unstarted
        # It only throws the cancellation again, and none of its code runs: it was never seen to be active.
        self.passing = self.destroys.get(target) in self.alive
        super()._resume(target)
        if unstarted:
            self.events.append(("started", target))

    def _destroy(self, victim: int) -> None:
        self.passing = False
        if victim in self.unstarted:
            self.events.append(("destroyed", victim))
        elif victim not in self.canceled:
            self.events.append(("canceled", victim))
            self.announced.add(victim)
        super()._destroy(victim)

    def destroy(self, target: int) -> None:
        if target not in (MAIN, self.active):
            self._notice_whether_gone(target)
        super().destroy(target)

    def _destroy_next(self) -> None:
        if self.to_destroy:
            self._notice_whether_gone(self.to_destroy[0])
        super()._destroy_next()

    def _interrupt_destroy(self) -> int | None:
        victim = super()._interrupt_destroy()
        self._notice_whether_gone(victim)
        return victim

    def _notice_whether_gone(self, victim: int | None) -> None:
        if victim in self.announced - self.alive:
            self.announced.remove(victim)
            self.events.append(("destroyed", victim))


def events_of(trace: list[dict[str, Any]]) -> list[Event]:
    """The events that a trace file tells of."""
    events: list[Event] = []
    for event in trace:
        context_id = event["tid"] - 1
        match event["ph"], event["name"]:
            case "s", _:
                events.append(("switched", context_id))
            case "f", _:
                assert events[-1][0] == "switched"
                events[-1] += (context_id,)
            case "i", "returned":
                events.append(("ended", context_id, None))
            case "i", "unwound":
                events.append(("ended", context_id, "unwound"))
            case "i", "failed":
                events.append(("ended", context_id, event["args"]["error"]))
            case "i", name:
                events.append((name, context_id))
    return events


def as_traced(event: Event) -> Event:
    """A trace calls it by another name when a context ends with its own cancellation."""
    return ("ended", event[1], "unwound") if event[2:] == (f"ContextCanceled({event[1]})",) else event


class EventMachine(Machine):
    """Compares the events after each command, and the file at the end of each environment."""

    model: EventModel

    def start(self) -> None:
        self.path = Path(tempfile.gettempdir()) / f"greenctx-test-{id(self)}.json"
        self.recorder, self.trace = Recorder(), Trace(self.path)
        self.model = EventModel(MAX_CONTEXTS)
        self.world = World(MAX_CONTEXTS, [self.recorder, self.trace])

    @invariant()
    def they_agree(self) -> None:
        assert self.recorder.events == self.model.events
        if self.model.result is not None:
            self.trace.close()
            assert events_of(check_trace(self.path)) == [as_traced(event) for event in self.model.events]
            self.path.unlink()
        super().they_agree()

    def teardown(self) -> None:
        super().teardown()
        self.trace.close()  # of the environment after the last one, which has not run
        self.path.unlink()


TestEvents = pytest.mark.both_forms(EventMachine.TestCase)
TestEvents.settings = settings(settings(), max_examples=settings().max_examples // 3)
