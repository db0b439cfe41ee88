"""An instrument that keeps what it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greenctx import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx import ContextSwitchingEnvironment

Event = tuple[Any, ...]


class Recorder(Instrument):
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def context_created(
        self, _: ContextSwitchingEnvironment, context_id: int, _entrypoint: Callable[[], object]
    ) -> None:
        self.events.append(("created", context_id))

    def context_started(self, _: ContextSwitchingEnvironment, context_id: int) -> None:
        self.events.append(("started", context_id))

    def context_switched(self, _: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
        self.events.append(("switched", from_id, to_id))

    def context_canceled(self, _: ContextSwitchingEnvironment, context_id: int) -> None:
        self.events.append(("canceled", context_id))

    def context_ended(self, _: ContextSwitchingEnvironment, context_id: int, error: BaseException | None) -> None:
        self.events.append(("ended", context_id, None if error is None else repr(error)))

    def context_destroyed(self, _: ContextSwitchingEnvironment, context_id: int) -> None:
        self.events.append(("destroyed", context_id))
