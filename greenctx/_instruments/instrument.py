"""Instrument: the base of objects that are told what the contexts of an environment do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from greenctx._reports.reports import EVENTS, no_ops

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.environment import ContextSwitchingEnvironment


class Instrument:
    """Base of instruments: override what you want to hear of. (Any object with some of these methods will do.)

    The methods are called in the thread of the environment, soon after what they tell of, and in its order. They must
    not call the environment back (`NotTheActiveContext`), but for ``contexts`` and ``format_stacks``.

    An instrument that raises an `Exception` is removed, which the logger ``greenctx`` reports as an error; the program
    goes on. Other exceptions, KeyboardInterrupt for one, are not the instrument's and come out of the call that the
    context is in; the instrument is then told once more of what it had not finished with. Nothing goes unreported.
    """

    def context_created(
        self, environment: ContextSwitchingEnvironment, context_id: int, entrypoint: Callable[[], object], /
    ) -> None:
        """The active context has created another one."""

    def context_started(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """A context, main (0) included, begins to run."""

    def context_switched(self, environment: ContextSwitchingEnvironment, from_id: int, to_id: int, /) -> None:
        """Another context is the active one: by a switch, a destruction, an end, or because somebody resumed it."""

    def context_canceled(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """The active context destroys one that has started, which will get `ContextCanceled`."""

    def context_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, error: BaseException | None, /
    ) -> None:
        """A context's entrypoint, or main, has returned (None) or raised. One that never started does not end."""

    def context_destroyed(self, environment: ContextSwitchingEnvironment, context_id: int, /) -> None:
        """A context is gone because the active one, or the end of main, has destroyed it."""

    def host_call_started(self, environment: ContextSwitchingEnvironment, context_id: int, name: str, /) -> None:
        """A guest has called a host function (of a `greenctx.wasix.Linker` that reports), "module.name"."""

    def host_call_ended(
        self, environment: ContextSwitchingEnvironment, context_id: int, name: str, error: BaseException | None, /
    ) -> None:
        """The host function has returned (None) or raised. Calls of one context end in the reverse of their order."""

    def environment_ended(self, environment: ContextSwitchingEnvironment, /) -> None:
        """``run_main_context`` is about to return or to raise."""


no_ops.update(vars(Instrument)[event] for event in EVENTS)
