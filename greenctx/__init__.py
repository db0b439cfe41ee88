"""greenctx: WASIX context switching for Python hosts. Several call stacks, one running at a time, each a greenlet."""

from greenctx.current import current_environment
from greenctx.environment import ContextSwitchingEnvironment
from greenctx.errors import (
    CancellationSwallowed,
    ContextCanceled,
    ContextEntrypointReturned,
    DestroyNotAllowed,
    EnvironmentAlreadyUsed,
    EnvironmentNotRunning,
    GreenctxError,
    NoEnvironment,
    NotTheActiveContext,
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
    "NotTheActiveContext",
    "Statistics",
    "SwitchTargetMissing",
    "TooManyContexts",
    "Trace",
    "WrongThread",
    "current_environment",
]
