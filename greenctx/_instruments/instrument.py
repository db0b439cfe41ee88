"""Instrument: the base of objects that get the events of contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx._reports.reports import EVENTS, no_ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.environment import ContextSwitchingEnvironment


class Instrument:
    """Base of instruments: override the methods of the events that you need. Any object with some of them will do.

    The methods are called in the thread of the environment, soon after each event, in the order of the events. They
    must not call the environment (`NotTheActiveContext`), except ``contexts``, ``format_stacks`` and
    ``active_context_id``.

    An instrument that raises an `Exception` is removed. The logger ``greenctx`` reports that as an error, and the
    program goes on, even if the logger raises. Other exceptions (KeyboardInterrupt, for example) propagate from the
    call that the context is in. The instrument is then told the event once more. No event goes unreported.
    """

    def context_created(
        self, environment: ContextSwitchingEnvironment, context_id: int, entrypoint: Callable[[], object], /
    ) -> None:
        """The active context has created another one."""

    def context_started(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """A context, main (0) included, begins to run."""

    def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int, /) -> None:
        """Another context became active: by a switch, a destruction, an end, or because other code resumed it."""

    def context_canceled(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """The active context destroys a context that has started, which will get `ContextCanceled`."""

    def context_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, error: BaseException | None, /
    ) -> None:
        """A context's entrypoint, or main, has returned (None) or raised. A context that never started does not end."""

    def context_destroyed(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """A context is gone, because the active context or the end of main has destroyed it."""

    def host_call_started(self, environment: ContextSwitchingEnvironment, context_id: int, name: str, /) -> None:
        """A guest has called a host function "module.name", of a `greenctx.wasix.Linker` that reports."""

    def host_call_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, name: str, error: BaseException | None, /
    ) -> None:
        """The host function has returned (None) or raised. Calls of one context end in the reverse of their order."""

    def environment_ended(self, environment: ContextSwitchingEnvironment, /) -> None:
        """``run_main_context`` is about to return or to raise."""


no_ops.update(vars(Instrument)[event] for event in EVENTS)
