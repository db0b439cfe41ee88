"""How several errors come out of one call: none of them is lost, and an interruption stays an interruption."""

from __future__ import annotations

_MESSAGE = "errors of contexts that were destroyed at the end of main"


def chain_errors(error: BaseException, others: list[BaseException]) -> None:
    """Put the others, as a group, at the end of the ``__context__`` chain of ``error``."""
    chain = [error]
    while (context := chain[-1].__context__) is not None and all(context is not link for link in chain):
        chain.append(context)
    new = [other for other in others if all(other is not link for link in chain)]
    if new:
        chain[-1].__context__ = BaseExceptionGroup(_MESSAGE, new)


def raise_errors(errors: list[BaseException]) -> None:
    """Raise one error as itself, several as a group, but an interruption as itself with the others in its context."""
    if not errors:
        return
    for error in errors:
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            chain_errors(error, [other for other in errors if other is not error])
            raise error
    if len(errors) == 1:
        raise errors[0]
    raise BaseExceptionGroup(_MESSAGE, errors)
