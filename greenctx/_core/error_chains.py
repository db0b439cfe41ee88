"""Several errors of one call: all of them are raised together, and an interruption is raised as itself."""

from __future__ import annotations

import sys

_MESSAGE = "errors of contexts that were destroyed at the end of main"


def append_context(error: BaseException, context: BaseException | None) -> None:
    """Put ``context`` at the end of the ``__context__`` chain of ``error``, unless the chain has it.

    Python does so for an exception that a function raises while its caller handles another one. It does not if the
    function runs on another greenlet, because each greenlet has its own stack of handled exceptions.
    """
    chain = _chain(error)
    if context is not None and not _holds(chain, context):
        _part(context, {id(link) for link in chain})
        chain[-1].__context__ = context


def chain_errors(error: BaseException, others: list[BaseException]) -> None:
    """Put the others, as a group, at the end of the ``__context__`` chain of ``error``, unless the chain has them."""
    chain = _chain(error)
    members = [member for link in chain if isinstance(link, BaseExceptionGroup) for member in link.exceptions]
    known = {id(one) for one in (*chain, *members)}  # a set, because there may be thousands
    new = [other for other in others if id(other) not in known]
    if new:
        for other in new:  # it may have been raised while ``error`` was handled
            _part(other, known)
        chain[-1].__context__ = BaseExceptionGroup(_MESSAGE, new)


def raise_errors(errors: list[BaseException]) -> None:
    """Raise a single error unchanged, or several as a group. An interruption is raised with the rest in its context."""
    if errors:
        combined = _combine(errors)
        try:
            raise combined
        finally:
            del combined  # its traceback refers to this frame: a reference cycle


def _combine(errors: list[BaseException]) -> BaseException:
    # asyncio cancels by its own exception, and does not look for it in groups. This must not import asyncio.
    canceled = getattr(sys.modules.get("asyncio"), "CancelledError", SystemExit)
    for error in errors:
        if isinstance(error, (KeyboardInterrupt, SystemExit, canceled)):
            chain_errors(error, [other for other in errors if other is not error])
            return error
    # A copy, because the group keeps its list in its args, and the caller clears the list.
    return errors[0] if len(errors) == 1 else BaseExceptionGroup(_MESSAGE, [*errors])


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error, its context, the context of that, and so on."""
    chain = [error]
    while (context := chain[-1].__context__) is not None and not _holds(chain, context):
        chain.append(context)
    return chain


def _part(error: BaseException, known: set[int]) -> None:
    """End the chain of ``error`` before an error whose id is known, so that appending the chain makes no ring."""
    for link in _chain(error):
        if id(link.__context__) in known:
            link.__context__ = None
            return


def _holds(errors: list[BaseException], error: BaseException) -> bool:
    return any(error is one for one in errors)
