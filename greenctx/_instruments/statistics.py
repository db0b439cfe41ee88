"""Statistics: an instrument that counts and adds up."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter_ns, thread_time_ns
from typing import TYPE_CHECKING

from greenctx._core.context import MAIN, MAIN_NAME, name_of
from greenctx._instruments.instrument import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.environment import ContextSwitchingEnvironment

MAX_ROWS = 20
"""How many contexts the table shows."""


@dataclass(slots=True)
class ContextStatistics:
    """The counts of one context."""

    id: int
    name: str
    switches: int = 0
    """How often it became the active context."""
    host_calls: int = 0
    seconds: float = 0.0
    """How long it was the active context."""
    processor_seconds: float = 0.0
    """How much of that time its thread was on a processor."""


class Statistics(Instrument):
    """Counts the events of one environment, to be read while it runs and afterwards. ``str()`` returns a table.

    It keeps about 200 bytes for each context that was ever created.
    """

    def __init__(self) -> None:
        self.destroyed = 0
        self.peak = 0
        """The largest number of contexts at any one time."""
        self.switches = 0
        self.host_calls = 0
        """How often guests called host functions of linkers that report."""
        self.contexts = {MAIN: ContextStatistics(MAIN, MAIN_NAME)}
        """The counts by id, with main and the ended contexts."""
        self._live: set[int] = set()
        self._began, self._processor_began = perf_counter_ns(), thread_time_ns()

    @property
    def created(self) -> int:
        """How many contexts were created, without main."""
        return len(self.contexts) - 1

    @property
    def live(self) -> int:
        """How many contexts there are now."""
        return len(self._live)

    @property
    def seconds(self) -> float:
        """How long all contexts together were active."""
        return sum(one.seconds for one in self.contexts.values())

    @property
    def processor_seconds(self) -> float:
        """How much processor time all the contexts used."""
        return sum(one.processor_seconds for one in self.contexts.values())

    def context_created(
        self, _environment: ContextSwitchingEnvironment, context_id: int, entrypoint: Callable[[], object]
    ) -> None:
        self.contexts[context_id] = ContextStatistics(context_id, name_of(entrypoint))
        self._live.add(context_id)
        self.peak = max(self.peak, self.live)

    def context_started(self, _environment: ContextSwitchingEnvironment, context_id: int) -> None:
        if context_id == MAIN:
            self._began, self._processor_began = perf_counter_ns(), thread_time_ns()

    def context_switched(self, _environment: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
        self._stop(from_id)
        self.switches += 1
        self.contexts[to_id].switches += 1

    def context_ended(
        self, _environment: ContextSwitchingEnvironment, context_id: int, _: BaseException | None
    ) -> None:
        self._live.discard(context_id)

    def context_destroyed(self, _environment: ContextSwitchingEnvironment, context_id: int) -> None:
        self.destroyed += 1
        self._live.discard(context_id)

    def host_call_started(self, _environment: ContextSwitchingEnvironment, context_id: int, _: str) -> None:
        self.host_calls += 1
        self.contexts[context_id].host_calls += 1

    def environment_ended(self, _environment: ContextSwitchingEnvironment) -> None:
        self._stop(MAIN)

    def __str__(self) -> str:
        lines = [
            f"contexts: {self.created} created, {self.peak} at most at a time, {self.destroyed} destroyed",
            f"switches: {self.switches}",
            f"host calls: {self.host_calls}",
            f"{'context':>9}  {'switches':>9}  {'host calls':>10}  {'active ms':>10}  {'processor ms':>12}  entrypoint",
        ]
        rows = sorted(self.contexts.values(), key=lambda one: -one.seconds)
        for one in sorted(rows[:MAX_ROWS], key=lambda one: one.id):
            lines.append(f"{one.id:>9}  {_figures([one])}  {one.name}")
        if rest := rows[MAX_ROWS:]:
            lines.append(f"{'':>9}  {_figures(rest)}  ({len(rest)} others)")
        return "\n".join(lines)

    def _stop(self, context_id: int) -> None:
        now, processor = perf_counter_ns(), thread_time_ns()
        self.contexts[context_id].seconds += (now - self._began) / 1e9
        self.contexts[context_id].processor_seconds += (processor - self._processor_began) / 1e9
        self._began, self._processor_began = now, processor


def _figures(rows: list[ContextStatistics]) -> str:
    switches, calls = sum(one.switches for one in rows), sum(one.host_calls for one in rows)
    active, processor = sum(one.seconds for one in rows) * 1e3, sum(one.processor_seconds for one in rows) * 1e3
    return f"{switches:>9}  {calls:>10}  {active:>10.3f}  {processor:>12.3f}"
