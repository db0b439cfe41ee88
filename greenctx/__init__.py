"""WASIX context switching for Python hosts: several call stacks, one running at a time, each a greenlet."""

from typing import TYPE_CHECKING

from greenctx._core.aio import await_
from greenctx.environment import ContextSwitchingEnvironment, current_environment
from greenctx.errors import (
    AlreadyAwaiting,
    CancellationSwallowed,
    ContextCanceled,
    ContextEntrypointReturned,
    DestroyNotAllowed,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    GreenctxError,
    NoEnvironment,
    NotInAsyncRun,
    NotTheActiveContext,
    ResumedWhileAwaiting,
    SwitchTargetMissing,
    TooManyContexts,
    WrongThread,
)

if TYPE_CHECKING:
    from greenctx._instruments.instrument import Instrument
    from greenctx._instruments.statistics import Statistics
    from greenctx._instruments.trace import Trace
    from greenctx._reports.snapshot import ContextInfo

__version__ = "0.1.0"

__all__ = [
    "AlreadyAwaiting",
    "CancellationSwallowed",
    "ContextCanceled",
    "ContextEntrypointReturned",
    "ContextInfo",
    "ContextSwitchingEnvironment",
    "DestroyNotAllowed",
    "EnvironmentAlreadyUsed",
    "EnvironmentNotRunning",
    "GreenctxError",
    "Instrument",
    "NoEnvironment",
    "NotInAsyncRun",
    "NotTheActiveContext",
    "ResumedWhileAwaiting",
    "Statistics",
    "SwitchTargetMissing",
    "TooManyContexts",
    "Trace",
    "WrongThread",
    "await_",
    "current_environment",
]

_LATER = {
    "ContextInfo": "_reports.snapshot",
    "Instrument": "_instruments.instrument",
    "Statistics": "_instruments.statistics",
    "Trace": "_instruments.trace",
}
"""Names imported on first use, and their modules. Those import logging, json and dataclasses, which takes long."""


if not TYPE_CHECKING:  # pragma: no branch (type checkers would accept any name)

    def __getattr__(name: str) -> object:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"greenctx.{_LATER[name]}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_LATER})
