"""Reports of host calls to the instruments of the current environment."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from greenctx._core.scope import current

if TYPE_CHECKING:
    from collections.abc import Callable


def reporting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a host function that does the same, and reports each call."""
    from greenctx._reports.reporting_environment import (
        ReportingEnvironment,  # which takes long to import, and is seldom needed
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
