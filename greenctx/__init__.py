"""greenctx: WASIX context switching for Python hosts. Several call stacks, one running at a time, each a greenlet."""

from greenctx.aio import await_
from greenctx.current import current_environment
from greenctx.environment import ContextSwitchingEnvironment
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
from greenctx.instruments import Instrument
from greenctx.stacks import ContextInfo
from greenctx.statistics import Statistics
from greenctx.trace import Trace

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
