"""How several errors come out of one call: none of them is lost, and an interruption stays an interruption."""

from __future__ import annotations

import sys

_MESSAGE = "errors of contexts that were destroyed at the end of main"


def append_context(error: BaseException, context: BaseException | None) -> None:
    """Put ``context`` at the end of the ``__context__`` chain of ``error``, unless it is in there.

    Python does so for an exception that was raised in a function while its caller handled another one; but not where
    the function ran on another greenlet.
    """
    chain = _chain(error)
    if context is not None and not _holds(chain, context):
        _part(context, {id(link) for link in chain})
        chain[-1].__context__ = context


def chain_errors(error: BaseException, others: list[BaseException]) -> None:
    """Put the others, as a group, at the end of the ``__context__`` chain of ``error``, unless they are in there."""
    chain = _chain(error)
    members = [member for link in chain if isinstance(link, BaseExceptionGroup) for member in link.exceptions]
    known = {id(one) for one in (*chain, *members)}  # there may be thousands
    new = [other for other in others if id(other) not in known]
    if new:
        for other in new:  # which were raised while ``error`` was handled, perhaps
            _part(other, known)
        chain[-1].__context__ = BaseExceptionGroup(_MESSAGE, new)


def raise_errors(errors: list[BaseException]) -> None:
    """Raise one error as itself, several as a group, but an interruption as itself with the others in its context."""
    if errors:
        combined = _combine(errors)
        try:
            raise combined
        finally:
            del combined  # the traceback refers to this frame


def _combine(errors: list[BaseException]) -> BaseException:
    # An event loop looks for its own interruption, and not into groups.
    canceled = getattr(sys.modules.get("asyncio"), "CancelledError", SystemExit)
    for error in errors:
        if isinstance(error, (KeyboardInterrupt, SystemExit, canceled)):
            chain_errors(error, [other for other in errors if other is not error])
            return error
    # A copy: the group keeps what it was made from as its args, and the list is cleared.
    return errors[0] if len(errors) == 1 else BaseExceptionGroup(_MESSAGE, [*errors])


def _chain(error: BaseException) -> list[BaseException]:
    """The error, its context, the context of that and so on."""
    chain = [error]
    while (context := chain[-1].__context__) is not None and not _holds(chain, context):
        chain.append(context)
    return chain


def _part(error: BaseException, known: set[int]) -> None:
    """End the chain of ``error`` where it comes to a known error, by its id, to which it will be appended: no rings."""
    for link in _chain(error):
        if id(link.__context__) in known:
            link.__context__ = None
            return


def _holds(errors: list[BaseException], error: BaseException) -> bool:
    return any(error is one for one in errors)
