"""Trace: an instrument that writes the Trace Event format, which Perfetto and chrome://tracing open.

Each environment is a process, and each context a thread of it, a track. On a track are slices while the context is
active, inside of them slices of its host calls, an arrow from each switch to its target, and instants for other events.
The file is a JSON array, one event a line, in the order in which the events ended. If the process is killed, only the
closing bracket is missing, and viewers do without it.
"""

from __future__ import annotations

import json
from contextlib import suppress
from functools import lru_cache
from itertools import count
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from greenctx._core.context import MAIN, name_of
from greenctx._instruments.instrument import Instrument
from greenctx._instruments.trace_file import EventFile
from greenctx.errors import ContextCanceled, GuestExit

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from typing import Self

    from greenctx.environment import ContextSwitchingEnvironment

MAX_REPR = 300
"""How many characters of an error's repr are shown."""


class Trace(Instrument):
    """Writes a trace file while environments run; `close` it afterwards, or use it in a ``with`` statement.

    It may be an instrument of several environments, also in several threads. It keeps a few hundred events in memory,
    and a little for each context that lives.
    """

    def __init__(self, path: str | os.PathLike[str], name: str = "greenctx") -> None:
        """Create the file. Viewers show ``name`` as the name of the process. Raises OSError."""
        self._file = EventFile(path)
        self._name = name
        self._tracks: dict[ContextSwitchingEnvironment, _Tracks] = {}
        self._numbers = count(1)  # of environments; several threads may take one

    def close(self) -> None:
        """Write the rest; closing it again does nothing. Raises OSError."""
        with suppress(OSError):  # `EventFile.close` raises it again
            for environment in [*self._tracks]:
                self.environment_ended(environment)
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def context_created(
        self, environment: ContextSwitchingEnvironment, context_id: int, entrypoint: Callable[[], object]
    ) -> None:
        tracks = self._of(environment)
        name = name_of(entrypoint)
        self._file.write(
            *tracks.begin(context_id, name), tracks.instant(context_id, "created", {"by": tracks.active, "name": name})
        )

    def context_started(self, environment: ContextSwitchingEnvironment, context_id: int) -> None:
        self._file.write(self._of(environment).instant(context_id, "started"))

    def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
        tracks = self._of(environment)
        if tracks.active == to_id:  # told once more, because an interruption came at the end of the first time
            return
        now = tracks.now()
        lines = tracks.pieces(from_id, now)
        tracks.flows += 1
        flow = f'"name":"switch","cat":"switch","id":"{tracks.pid}.{tracks.flows}","pid":{tracks.pid}'
        lines.append(f'{{"ph":"s",{flow},"tid":{from_id + 1},"ts":{_microseconds(now - 1)}}}')
        lines.append(f'{{"ph":"f","bp":"e",{flow},"tid":{to_id + 1},"ts":{_microseconds(now + 1)}}}')
        buffer = self._file.lines
        # No call between these two: an interruption there would lose the lines, or let them be written twice. (`+=`,
        # not `extend`, because CPython looks for signals after a call.)
        tracks.since, tracks.active = now + 1, to_id
        buffer += lines
        self._file.write()

    def context_canceled(self, environment: ContextSwitchingEnvironment, context_id: int) -> None:
        tracks = self._of(environment)
        self._file.write(tracks.instant(context_id, "canceled", {"by": tracks.active}))

    def context_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, error: BaseException | None
    ) -> None:
        tracks = self._of(environment)
        if error is None:
            end = tracks.instant(context_id, "returned")
        elif isinstance(error, ContextCanceled) and error.context_id == context_id:
            end = tracks.instant(context_id, "unwound")
        elif isinstance(error, GuestExit):
            end = tracks.instant(context_id, "exited", {"status": error.status})
        else:
            end = tracks.instant(context_id, "failed", {"error": _describe(error)})
        self._file.write(end)
        tracks.calls.pop(context_id, None)

    def context_destroyed(self, environment: ContextSwitchingEnvironment, context_id: int) -> None:
        tracks = self._of(environment)
        self._file.write(tracks.instant(context_id, "destroyed", {"by": tracks.active}))

    def host_call_started(self, environment: ContextSwitchingEnvironment, context_id: int, name: str) -> None:
        tracks = self._of(environment)
        tracks.calls.setdefault(context_id, []).append((name, tracks.now()))

    def host_call_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, name: str, error: BaseException | None
    ) -> None:
        tracks = self._of(environment)
        calls = tracks.calls.get(context_id)
        if not calls:
            return
        failed = error is not None and not isinstance(error, (ContextCanceled, GuestExit))
        piece = tracks.call(context_id, name, calls[-1][1], len(calls), tracks.now())
        del calls[-1:]
        self._file.write(piece)
        if failed:
            self._file.write(tracks.instant(context_id, f"{name} failed", {"error": _describe(error)}))

    def environment_ended(self, environment: ContextSwitchingEnvironment) -> None:
        tracks = self._of(environment)
        self._file.write(*tracks.pieces(tracks.active, tracks.now()))
        self._tracks.pop(environment, None)

    def _of(self, environment: ContextSwitchingEnvironment) -> _Tracks:
        tracks = self._tracks.get(environment)
        if tracks is None:
            number = next(self._numbers)
            tracks = self._tracks[environment] = _Tracks(number, self._file.began)
            name = self._name if number == 1 else f"{self._name} ({number})"
            process = f'"pid":{tracks.pid},"tid":{MAIN + 1},"args":{{"name":{json.dumps(name)}}}'
            self._file.write(f'{{"ph":"M","name":"process_name",{process}}}', *tracks.begin(MAIN, "main"))
        return tracks


class _Tracks:
    """The tracks of one environment. Times are in nanoseconds since the trace began, and no two are the same."""

    def __init__(self, pid: int, began: int) -> None:
        self.pid = pid
        self.active = MAIN
        self.flows = 0
        self.calls: dict[int, list[tuple[str, int]]] = {}
        """By context: the host calls that it is inside of, and when they began."""
        self._began = began
        self._last = 0
        self.since = self.now()
        """When the active context became active."""

    def now(self) -> int:
        now = perf_counter_ns() - self._began
        if now < self._last + 3:
            now = self._last + 3
        self._last = now
        return now

    def begin(self, context_id: int, name: str) -> tuple[str, str]:
        """Return the events that name a track and give it its place."""
        track = f'"pid":{self.pid},"tid":{context_id + 1}'
        title = json.dumps(f"{context_id} {name}")
        return (
            f'{{"ph":"M","name":"thread_name",{track},"args":{{"name":{title}}}}}',
            f'{{"ph":"M","name":"thread_sort_index",{track},"args":{{"sort_index":{context_id}}}}}',
        )

    def pieces(self, context_id: int, end: int) -> list[str]:
        """Return the slice that ends with a switch from that context, and slices of its host calls, cut off here.

        Slices of a track must be nested. So the rest of a call is another slice, in the next slice of activity.
        """
        calls = self.calls.get(context_id, ())
        pieces = [self.piece(context_id, "active", self.since, end, "context")]
        for depth, (name, start) in enumerate(calls, 1):
            pieces.append(self.call(context_id, name, start, depth, end))
        return pieces

    def call(self, context_id: int, name: str, start: int, depth: int, end: int) -> str:
        """Return the slice of a host call, or of the part since the context became active."""
        # Each begins later than the call around it, so that viewers nest them in that order.
        return self.piece(context_id, name, max(start, self.since + depth), end, "host call")

    def piece(self, context_id: int, name: str, start: int, end: int, category: str) -> str:
        return (
            f'{{"ph":"X","name":{_quoted(name)},"cat":"{category}","pid":{self.pid},"tid":{context_id + 1},'
            f'"ts":{_microseconds(start)},"dur":{_microseconds(end - start if end > start else 0)}}}'
        )

    def instant(self, context_id: int, name: str, args: dict[str, Any] | None = None) -> str:
        details = f',"args":{json.dumps(args)}' if args else ""
        return (
            f'{{"ph":"i","s":"t","name":{json.dumps(name)},"cat":"context","pid":{self.pid},"tid":{context_id + 1},'
            f'"ts":{_microseconds(self.now())}{details}}}'
        )


_quoted = lru_cache(1024)(json.dumps)


def _microseconds(nanoseconds: int) -> str:
    return f"{nanoseconds // 1000}.{nanoseconds % 1000:03}"


def _describe(error: BaseException | None) -> str:
    try:
        text = repr(error)
    except Exception:  # raised by a `__repr__` of the program
        text = f"a {type(error).__name__}"
    return text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]}..."
