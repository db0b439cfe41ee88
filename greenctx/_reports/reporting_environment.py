"""Environments with instruments: each operation of an environment, with reports around it.

An environment without instruments has another class, which knows nothing of this module, and pays nothing for it.

A context does not report its switch before it switches, because the switch may fail. Instead the context that runs next
compares the state of the environment with what was reported last (`_report_changes`): in its first call, and as soon as
it is resumed. So no change goes unreported: errors raised in main, cancellation, starts by way of main, contexts that
gevent resumes, interruptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

from greenlet import getcurrent

from greenctx._core.admission import Phase
from greenctx._core.context import MAIN, bind
from greenctx._core.environment import Environment
from greenctx._core.plain_functions import check_is_plain, is_plain
from greenctx._core.switching import Switching
from greenctx._reports.delivery import serve_guests, switch_context
from greenctx._reports.reports import Reports
from greenctx.errors import NotTheActiveContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from greenctx._core.context import Context

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def report_to(environment: Environment, instruments: Iterable[object]) -> None:
    """Give instruments to an environment that has not run: its class becomes one that reports to them."""
    reports = Reports(instruments)
    cls = type(environment)
    reporting = cls if issubclass(cls, ReportingEnvironment) else cls.__dict__.get("_reporting_class")
    if reporting is None:
        own: dict[str, Any] = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")}
        # The short cut does what the core's switch does, so it must not replace another switch.
        if switch_context is not None and cls.switch_context is Switching.switch_context:
            own["switch_context"] = switch_context
        reporting = type(cls.__name__, (ReportingEnvironment, cls), own)
        cls._reporting_class = reporting  # type: ignore[attr-defined]
    environment.__class__ = reporting
    cast("ReportingEnvironment", environment)._begin_reports(reports)


class ReportingEnvironment(Environment):
    """Mixed into the class of an environment that has instruments, before the environment's own class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self, "_reports"):  # set by the class of an environment that has instruments
            self._begin_reports(Reports([]))

    def _begin_reports(self, reports: Reports) -> None:
        self._reports = reports
        serve_guests(self)
        reports.next_id = self._registry.next_id
        # The reported state that `reports` does not have: the contexts alive, and those under destruction.
        self._alive: dict[int, Context] = {}
        self._canceled: dict[int, Context] = {}

    def run_main_context(self, main: Callable[[*Ts], T], *args: *Ts) -> T:
        if self._phase is not Phase.UNUSED:
            return super().run_main_context(main, *args)
        check_is_plain("main", main)
        try:
            return super().run_main_context(self._run_main, main, args)
        finally:
            self._end_reports()

    def _entrypoint_of(self, context: Context) -> Callable[[], Any] | None:
        entrypoint = context.entrypoint
        return entrypoint.__wrapped__ if isinstance(entrypoint, _Observed) else entrypoint

    def create_context(self, entrypoint: Callable[[*Ts], object], *args: *Ts, name: str | None = None) -> int:
        self._report_changes()
        if callable(entrypoint) and is_plain(entrypoint):
            context_id = super().create_context(_Observed(self, bind(entrypoint, args, name)))
        else:
            context_id = super().create_context(entrypoint, *args, name=name)  # raises the TypeError
        self._report_changes()
        return context_id

    def switch_context(self, context_id: int) -> None:
        me, reports = getcurrent(), self._reports
        # Usually there is nothing to report, and seeing that takes no call.
        settled = me is self._admitted and self._active is reports.seen and reports.next_id == self._registry.next_id
        if not settled or reports.pending:
            self._report_changes()
        reports.target = context_id
        try:
            super().switch_context(context_id)
        except BaseException as error:
            self._report_changes(error)
            raise
        self._report_changes()

    _switch_and_report = switch_context  # the long way, where the short cut has the name

    def destroy_context(self, context_id: int) -> bool:
        active_id = self._report_changes()
        registry = self._registry
        victim = self._alive.get(context_id)
        if victim is not None and context_id not in (MAIN, active_id):
            if context_id in registry.unstarted:
                self._canceled[context_id] = victim
            elif context_id in registry.started and context_id not in self._canceled:
                self._reports.pending += [("context_canceled", context_id)]
                self._canceled[context_id] = victim
                self._reports.deliver(self)
        try:
            destroyed = super().destroy_context(context_id)
        except BaseException as error:
            self._report_changes(error)
            self._report_destroyed(context_id)
            raise
        self._report_changes()
        self._report_destroyed(context_id)
        return destroyed

    @property
    def active_context_id(self) -> int:
        if self._reports.deliverer is getcurrent():
            return self.active_id()  # called by an instrument, or a filter of its log: changes nothing
        return self._report_changes()

    def _report_changes(self, error: BaseException | None = None) -> int:
        """Report all changes; return the id of the active context, which is the caller.

        ``error`` is the exception of the call that made the changes. Refuses a caller as every operation does.
        """
        reports, me = self._reports, getcurrent()
        if reports.deliverer is me:
            raise NotTheActiveContext(self.active_id(), "an instrument")
        if me is not self._admitted:
            self.admit(me)
        active = self._active
        assert active is not None
        if reports.next_id != self._registry.next_id:
            self._report_created()
        if error is not None:
            self._report_end_of(reports.target, error)
        seen = reports.seen
        if active is not seen:
            if seen is not None:
                self._report_end_of(seen.context_id, error)
                # From here on nothing is called.
                active.switches += 1
                if reports.wants_switches:
                    reports.pending += [("context_switched", seen.context_id, active.context_id)]
            reports.seen = active
        if reports.pending:
            reports.deliver(self)
        return active.context_id

    def _report_created(self) -> None:
        reports, registry = self._reports, self._registry
        while reports.next_id < registry.next_id:
            context_id = reports.next_id
            context = registry.unstarted.get(context_id)
            entrypoint = None if context is None else self._entrypoint_of(context)
            reports.next_id = context_id + 1  # from here on nothing is called
            if context is not None:
                reports.pending += [("context_created", context_id, entrypoint)]
                self._alive[context_id] = context

    def _report_end_of(self, context_id: object, error: BaseException | None) -> None:
        """Report the end of a context whose own report is missing, because an interruption took its place."""
        if isinstance(context_id, int) and context_id in self._alive and self._alive[context_id].has_ended:
            self._report_ended(context_id, error)

    def _report_ended(self, context_id: int, error: BaseException | None) -> None:
        if context_id in self._alive:
            self._reports.pending += [("context_ended", context_id, error)]
            del self._alive[context_id]

    def _report_destroyed(self, context_id: int) -> None:
        """Report, once, that a context is gone, if its destruction was noticed."""
        victim = self._canceled.get(context_id)
        unstarted = context_id in self._registry.unstarted
        if victim is not None and not unstarted and (victim.has_ended or not victim.has_started):
            self._reports.pending += [("context_destroyed", context_id)]
            del self._canceled[context_id]
            if context_id in self._alive:
                del self._alive[context_id]
            self._reports.deliver(self)

    def _run_main(self, main: Callable[[*Ts], T], args: tuple[*Ts]) -> T:
        assert self._main is not None
        self._alive[MAIN] = self._main
        self._reports.pending += [("context_started", MAIN)]
        try:
            self._report_changes()
            result = main(*args)
            self._report_end(MAIN, None)
        except BaseException as error:
            self._report_end(MAIN, error)
            raise
        return result

    def report_host_call(self, event: str, *facts: object) -> None:
        """Report that the calling context has called a host function, or that the call has ended."""
        if self._reports.wants_host_calls:
            context_id = self._report_changes()
            self._reports.pending += [(event, context_id, *facts)]
            self._reports.deliver(self)

    def _report_end(self, context_id: int, error: BaseException | None) -> None:
        """Report the end of the calling context, once. An interruption here may become the context's end instead."""
        self._report_changes(error)
        self._report_ended(context_id, error)
        self._reports.deliver(self)

    def _end_reports(self) -> None:
        for context_id in sorted(self._alive):
            self._report_ended(context_id, None)
        self._canceled = {}
        self._reports.seen = None
        self._reports.pending += [("environment_ended",)]
        self._reports.deliver(self)


class _Observed:
    """An entrypoint that reports its beginning and its end."""

    __slots__ = ("__wrapped__", "_environment")

    def __init__(self, environment: ReportingEnvironment, entrypoint: Callable[[], Any]) -> None:
        self.__wrapped__ = entrypoint
        self._environment = environment

    def __call__(self) -> None:
        environment = self._environment
        try:
            context_id = environment._report_changes()
            environment._reports.pending += [("context_started", context_id)]
            environment._reports.deliver(environment)
            self.__wrapped__()
            environment._report_end(context_id, None)
        except BaseException as error:
            environment._report_end(environment._registry.by_greenlet[getcurrent()].context_id, error)
            raise
