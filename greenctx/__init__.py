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

__all__ = [
    "AlreadyAwaiting",
    "CancellationSwallowed",
    "ContextCanceled",
    "ContextEntrypointReturned",
    "ContextSwitchingEnvironment",
    "DestroyNotAllowed",
    "EnvironmentAlreadyUsed",
    "EnvironmentNotRunning",
    "GreenctxError",
    "NoEnvironment",
    "NotInAsyncRun",
    "NotTheActiveContext",
    "ResumedWhileAwaiting",
    "SwitchTargetMissing",
    "TooManyContexts",
    "WrongThread",
    "await_",
    "current_environment",
]
