"""The tracks of one environment in a trace: its current state, and the lines of the Trace Event format."""

from __future__ import annotations

import json
from functools import lru_cache
from threading import get_ident
from time import perf_counter_ns, thread_time_ns
from typing import Any

from greenctx._core.context import MAIN
from greenctx._instruments.resident import resident_bytes

SAMPLED = 1_000_000
"""How long a reading of the memory holds, in nanoseconds."""


class Tracks:
    """What is going on in one environment. Times are in nanoseconds since the trace began, and never the same twice."""

    def __init__(self, pid: int, began: int) -> None:
        self.pid = pid
        self.active = MAIN
        self.live: set[int] = set()
        self.ended: int | None = None
        """A context that has ended, and is active until the next switch."""
        self.names: dict[int, str] = {}
        """Of contexts that may be active again."""
        self.calls: dict[int, list[tuple[str, int]]] = {}
        """By context: the host calls that it is in, and when they began."""
        self._began = began
        self._last = 0
        self.since = self.now()
        """When the active context became active."""
        self.processor_since = thread_time_ns()
        """The processor time of the thread at that time."""
        self.sampled = 0
        """When to read the memory again."""
        self._thread = get_ident()

    def now(self) -> int:
        now = perf_counter_ns() - self._began
        if now < self._last + 3:
            now = self._last + 3
        self._last = now
        return now

    def begin(self, context_id: int, name: str) -> tuple[str, str]:
        """Name a track, and put it in its place."""
        self.names[context_id] = name
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
        """The slice that ends with a switch from that context, and those of the calls that it waits in, cut off here.

        (Slices of a track have to be nested: the rest of a call is a slice of its own, in the next piece of activity.)
        """
        calls = self.calls.get(context_id, ())
        name = self.names.get(context_id) or "?"
        # Not if another thread closes the trace, since its processor time is its own.
        used = processor - self.processor_since if get_ident() == self._thread else None
        pieces = [self.piece(context_id, name, self.since, end, "context", used)]
        for depth, (name, start) in enumerate(calls, 1):
            pieces.append(self.call(context_id, name, start, depth, end))
        return pieces

    def call(self, context_id: int, name: str, start: int, depth: int, end: int) -> str:
        """The slice of a host call, or of what is left of it since the context became active."""
        # Each begins after the one around it, for viewers to see which is which.
        return self.piece(context_id, name, max(start, self.since + depth), end, "host call")

    def piece(
        self, context_id: int, name: str, start: int, end: int, category: str, processor: int | None = None
    ) -> str:
        used = ""
        if processor is not None:
            used = f',"tts":{microseconds(self.processor_since)},"tdur":{microseconds(processor)}'
        return (
            f'{{"ph":"X","name":{_quoted(name)},"cat":"{category}","pid":{self.pid},"tid":{context_id + 1},'
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
