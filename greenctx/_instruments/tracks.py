"""The tracks of one environment in a trace: its current state, and the lines of the Trace Event format."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from functools import lru_cache
from threading import get_ident
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING, Any

from greenctx._core.context import MAIN
from greenctx._instruments.resident import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLED = 1_000_000
"""How long a reading of the memory holds, in nanoseconds."""

UNNAMED = '"?"'
"""The name of a slice whose context has no name any more, as JSON."""


class Activity:
    """Base of `Tracks`, which sets and explains these attributes: the active context, lines of switches and of calls.

    Times are in nanoseconds since the trace began, and never the same twice.
    """

    __slots__ = (
        "active",
        "began",
        "calls",
        "clock",
        "ended",
        "last",
        "names",
        "pid",
        "processor_clock",
        "processor_since",
        "sampled",
        "since",
    )

    def now(self) -> int:
        """Return the time, and note it as the last one."""
        now: int = self.clock() - self.began
        if now < self.last + 3:
            now = self.last + 3
        self.last = now
        return now

    def switch(self, from_id: int, to_id: int, flows: Iterator[int], lines: list[str]) -> bool:
        """Add a switch to the lines, with an arrow that takes its id from ``flows``.

        Return whether the counters are due again.
        """
        if self.active == to_id:  # told once more, because an interruption came at the end of the first time
            return False
        now, processor, flow = self.now(), self.processor_clock(), next(flows)
        added = self.pieces(from_id, now, processor)
        arrow = f'"name":"switch","cat":"switch","id":{flow},"pid":{self.pid}'
        added.append(f'{{"ph":"s",{arrow},"tid":{from_id + 1},"ts":{microseconds(now - 1)}}}')
        added.append(f'{{"ph":"f","bp":"e",{arrow},"tid":{to_id + 1},"ts":{microseconds(now + 1)}}}')
        text = ",\n".join(added)
        # No call between these two: an interruption there would lose the lines, or let them be written twice. (`+=`,
        # not `append`, because CPython looks for signals after a call.)
        self.since, self.processor_since, self.active = now + 1, processor, to_id
        lines += [text]
        if self.ended == from_id != MAIN:  # which destroys others when it has ended
            self.names.pop(from_id, None)
        return now >= self.sampled

    def cut_calls(self, context_id: int, end: int) -> list[str]:
        """Return the slices of the host calls that the context waits in, cut off here.

        (Slices of a track have to be nested: the rest of a call is a slice of its own, in the next piece of activity.)
        """
        calls = self.calls.get(context_id, ())
        return [self._call(context_id, name, start, depth, end) for depth, (name, start) in enumerate(calls, 1)]

    def begin_call(self, context_id: int, name: str) -> None:
        """Note that the context has called a host function."""
        self.calls.setdefault(context_id, []).append((name, self.now()))

    def end_call(self, context_id: int, lines: list[str]) -> bool:
        """Add the slice of the context's latest host call, which has ended, to the lines. Return whether it began."""
        calls = self.calls.get(context_id)
        if not calls:
            return False
        name, start = calls[-1]
        added = [self._call(context_id, name, start, len(calls), self.now())]
        del calls[-1:]  # no call between these two, either
        lines += added
        return True

    def _call(self, context_id: int, name: str, start: int, depth: int, end: int) -> str:
        """Return the slice of a host call, or of its rest since the context became active."""
        # Each begins after the slice around it, so that viewers see the nesting.
        piece: str = self.piece(context_id, _quoted(name), max(start, self.since + depth), end, "host call")
        return piece

    active: int
    began: int
    calls: dict[int, list[tuple[str, int]]]
    clock: Any
    ended: int | None
    last: int
    names: dict[int, str]
    pid: int
    processor_clock: Any
    processor_since: int
    sampled: int
    since: int
    piece: Any
    pieces: Any


# As in switching.py: this is the specification, and its compiled twin is in `_tracks.pyx`.
if not TYPE_CHECKING and os.environ.get("GREENCTX_PURE", "0") in ("", "0"):  # pragma: no cover
    with suppress(ImportError):
        from greenctx._instruments._tracks import Activity


class Tracks(Activity):
    """The current state of one environment."""

    def __init__(self, pid: int, began: int) -> None:
        self.pid = pid
        self.active = MAIN
        self.live: set[int] = set()
        self.ended: int | None = None
        """A context that has ended, and is active until the next switch."""
        self.names: dict[int, str] = {}
        """The names of contexts that may be active again, as JSON."""
        self.calls: dict[int, list[tuple[str, int]]] = {}
        """By context: the host calls that it is in, and when they began."""
        self.clock, self.processor_clock = perf_counter_ns, thread_time_ns
        self.began = began
        """When the trace began, by the clock."""
        self.last = 0
        """The latest time."""
        self.since = self.now()
        """When the active context became active."""
        self.processor_since = self.processor_clock()
        """The processor time of the thread at that time."""
        self.sampled = 0
        """When to read the memory again."""
        self._thread = get_ident()

    def begin(self, context_id: int, name: str) -> tuple[str, str]:
        """Name a track, and put it in its place."""
        self.names[context_id] = json.dumps(name or "?")
        if context_id != MAIN:
            self.live.add(context_id)
        track = f'"pid":{self.pid},"tid":{context_id + 1}'
        title = json.dumps(f"{context_id} {name}")
        return (
            f'{{"ph":"M","name":"thread_name",{track},"args":{{"name":{title}}}}}',
            f'{{"ph":"M","name":"thread_sort_index",{track},"args":{{"sort_index":{context_id}}}}}',
        )

    def gone(self, context_id: int) -> None:
        """Forget a context; its name only after its last slice."""
        self.live.discard(context_id)
        if context_id == self.active:
            self.ended = context_id
        else:
            self.names.pop(context_id, None)

    def pieces(self, context_id: int, end: int, processor: int) -> list[str]:
        """Return the slice that ends with a switch from that context, and those of the calls that it waits in."""
        name = self.names.get(context_id, UNNAMED)
        # Not if another thread closes the trace, since its processor time is its own.
        used = processor - self.processor_since if get_ident() == self._thread else None
        return [*self.cut_calls(context_id, end), self.piece(context_id, name, self.since, end, "context", used)]

    def piece(
        self, context_id: int, name: str, start: int, end: int, category: str, processor: int | None = None
    ) -> str:
        used = ""
        if processor is not None:
            used = f',"tts":{microseconds(self.processor_since)},"tdur":{microseconds(processor)}'
        return (
            f'{{"ph":"X","name":{name},"cat":"{category}","pid":{self.pid},"tid":{context_id + 1},'
            f'"ts":{microseconds(start)},"dur":{microseconds(end - start if end > start else 0)}{used}}}'
        )

    def counters(self, now: int) -> list[str]:
        """Return the number of live contexts, without main; and now and then the memory of the process."""
        lines = [self._counter("live contexts", now, len(self.live))]
        if now >= self.sampled:
            self.sampled = now + SAMPLED
            resident = resident_bytes()
            if resident is not None:
                lines.append(self._counter("resident memory", now, resident))
        return lines

    def _counter(self, name: str, now: int, value: int) -> str:
        return (
            f'{{"ph":"C","name":"{name}","cat":"context","pid":{self.pid},"tid":{MAIN + 1},'
            f'"ts":{microseconds(now)},"args":{{"value":{value}}}}}'
        )

    def instant(self, context_id: int, name: str, args: dict[str, Any] | None = None) -> str:
        details = f',"args":{json.dumps(args)}' if args else ""
        return (
            f'{{"ph":"i","s":"t","name":{json.dumps(name)},"cat":"context","pid":{self.pid},"tid":{context_id + 1},'
            f'"ts":{microseconds(self.now())}{details}}}'
        )


_quoted = lru_cache(1024)(json.dumps)


def microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"
