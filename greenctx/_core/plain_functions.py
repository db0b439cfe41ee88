"""Tell plain functions from coroutine functions, whose call runs nothing."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

_ASYNC: Final = 0x80 | 0x200
"""CO_COROUTINE and CO_ASYNC_GENERATOR of `inspect`, which takes long to import."""


def is_plain(function: Any) -> bool:
    """Return whether calling the function runs it, as it does not if ``async def`` made it."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(function, "__code__", None)
    if code is None:  # an object with a method
        code = getattr(getattr(type(function), "__call__", None), "__code__", None)  # noqa: B004  (not whether there is)
    return code is None or not code.co_flags & _ASYNC


def check_is_no_coroutine(role: str, result: object) -> None:
    """Raise TypeError for a coroutine that a function returned: none of its code has run."""
    if isinstance(result, Coroutine):
        result.close()
        raise TypeError(_said(role, result))


def check_is_plain(role: str, function: Any) -> None:
    """Raise TypeError for a coroutine function."""
    if not is_plain(function):
        raise TypeError(_said(role, function))


def _said(role: str, found: object) -> str:
    return (
        f"{role} must be a plain function, not a coroutine function ({found!r:.200}); to await it calls "
        "greenctx.await_, in a run by run_main_context_async or Program.run_async"
    )
