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

__version__ = "0.1.0"

__all__ = [
    "CancellationSwallowed",
    "ContextCanceled",
    "ContextEntrypointReturned",
    "ContextSwitchingEnvironment",
    "DestroyNotAllowed",
    "EnvironmentAlreadyUsed",
    "EnvironmentNotRunning",
    "GreenctxError",
    "NoEnvironment",
    "NotTheActiveContext",
    "SwitchTargetMissing",
    "TooManyContexts",
    "WrongThread",
    "current_environment",
]
