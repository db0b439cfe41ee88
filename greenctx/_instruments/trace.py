"""Trace: an instrument that writes the Trace Event format, which Perfetto and chrome://tracing open.

Each environment is a process, and each context a thread of it, a track. A track has a slice for each time of activity,
named by the entrypoint and with its processor time. Inside of it are slices of host calls. An arrow leads from each
switch to its target, and instants mark other events. Counters tell how many contexts live and how much memory the
process has. Each event is a line of the file, in the order in which the events ended.
"""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import count
from time import thread_time_ns
from typing import TYPE_CHECKING

from greenctx._core.context import MAIN, MAIN_NAME, name_of
from greenctx._instruments.instrument import Instrument
from greenctx._instruments.trace_file import MAX_LINES, EventFile
from greenctx._instruments.tracks import Tracks
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

    The file is complete whenever an environment has ended. An unclosed trace closes itself with a ResourceWarning. It
    belongs to the process that has made it: a child of a fork writes nothing into it.

    It may be an instrument of several environments, also in several threads. It keeps a few hundred events in memory,
    and a little for each context that lives.
    """

    def __init__(self, path: str | os.PathLike[str], name: str = "greenctx") -> None:
        """Create the file. Viewers show ``name`` as the name of the process. Raises OSError."""
        self._file = EventFile(path)
        self._name = name
        self._tracks: dict[ContextSwitchingEnvironment, Tracks] = {}
        self._numbers = count(1)  # of environments; several threads may take one
        self._flows = count(1)  # of arrows, in the whole file

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
            *tracks.begin(context_id, name),
            tracks.instant(context_id, "created", {"by": tracks.active, "name": name}),
            *tracks.counters(tracks.now()),
        )

    def context_started(self, environment: ContextSwitchingEnvironment, context_id: int) -> None:
        self._file.write(self._of(environment).instant(context_id, "started"))

    def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
        tracks, lines = self._tracks.get(environment) or self._of(environment), self._file.lines
        if tracks.switch(from_id, to_id, self._flows, lines):
            lines += tracks.counters(tracks.last)
        if len(lines) >= MAX_LINES:
            self._file.flush()

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
        tracks.gone(context_id)
        self._file.write(end, *tracks.counters(tracks.now()))
        tracks.calls.pop(context_id, None)

    def context_destroyed(self, environment: ContextSwitchingEnvironment, context_id: int) -> None:
        tracks = self._of(environment)
        tracks.gone(context_id)
        self._file.write(tracks.instant(context_id, "destroyed", {"by": tracks.active}), *tracks.counters(tracks.now()))

    def host_call_started(self, environment: ContextSwitchingEnvironment, context_id: int, name: str) -> None:
        tracks = self._tracks.get(environment) or self._of(environment)
        tracks.begin_call(context_id, name)

    def host_call_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, name: str, error: BaseException | None
    ) -> None:
        tracks, lines = self._tracks.get(environment) or self._of(environment), self._file.lines
        if not tracks.end_call(context_id, lines):
            return
        if len(lines) >= MAX_LINES:
            self._file.flush()
        if error is not None and not isinstance(error, (ContextCanceled, GuestExit)):
            self._file.write(tracks.instant(context_id, f"{name} failed", {"error": _describe(error)}))

    def environment_ended(self, environment: ContextSwitchingEnvironment) -> None:
        tracks = self._of(environment)
        now = tracks.now()
        self._file.write(*tracks.pieces(tracks.active, now, thread_time_ns()), *tracks.counters(now))
        self._tracks.pop(environment, None)
        with suppress(OSError):  # which `close` raises
            self._file.flush()

    def _of(self, environment: ContextSwitchingEnvironment) -> Tracks:
        tracks = self._tracks.get(environment)
        if tracks is None:
            number = next(self._numbers)
            tracks = self._tracks[environment] = Tracks(number, self._file.began)
            name = self._name if number == 1 else f"{self._name} ({number})"
            process = f'"pid":{tracks.pid},"tid":{MAIN + 1},"args":{{"name":{json.dumps(name)}}}'
            self._file.write(f'{{"ph":"M","name":"process_name",{process}}}', *tracks.begin(MAIN, MAIN_NAME))
        return tracks


def _describe(error: BaseException | None) -> str:
    try:
        text = repr(error)
    except Exception:  # raised by a `__repr__` of the program
        text = f"a {type(error).__name__}"
    return text if len(text) <= MAX_REPR else f"{text[:MAX_REPR]}..."
