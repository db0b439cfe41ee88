"""Reports of host calls to the instruments of the current environment."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any
from weakref import ref

from greenctx._core.scope import current

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix._fibers.host_functions import HostFunction


class CallReports:
    """Makes all host functions of a linker report their calls, from the first or from `begin` on."""

    def __init__(self, *, begun: bool) -> None:
        self._begun = begun
        self._silent: list[ref[HostFunction]] = []
        """The functions that do not report yet. Weak references, because a host function may refer to the linker."""

    def add(self, host_function: HostFunction) -> None:
        if self._begun:
            _report(host_function)
        else:
            self._silent += [ref(host_function)]

    def begin(self) -> None:
        """From now on, report all calls, also of host functions added before."""
        self._begun = True
        while self._silent:
            host_function = self._silent.pop()()
            if host_function is not None:
                _report(host_function)


def _report(host_function: HostFunction) -> None:
    host_function.reported = host_function.name, host_function.function
    host_function.function = reporting(*host_function.reported)


def reporting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a host function that does the same, and reports each call."""
    from greenctx._reports.reporting_environment import (
        ReportingEnvironment,  # takes long to import, and is seldom needed
    )

    @wraps(function)
    def report_and_call(*args: Any) -> Any:
        environment = current.get()
        if not isinstance(environment, ReportingEnvironment):
            return function(*args)
        environment.report_host_call("host_call_started", name)
        try:
            result = function(*args)
        except BaseException as error:
            environment.report_host_call("host_call_ended", name, error)
            raise
        environment.report_host_call("host_call_ended", name, None)
        return result

    return report_and_call
