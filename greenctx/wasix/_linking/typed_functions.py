"""Host functions typed by their annotations, which may be ``async``.

``int`` is an i64 and `I32` an i32, ``float`` an f64 and `F32` an f32, ``bool`` an i32; a function returns one of these,
a tuple of them, or None. A first parameter of type `Caller` gets the guest's exports. An ``async def`` function is
awaited by `greenctx.await_`, so the program has to run by ``run_async`` (`NotInAsyncRun` otherwise).
"""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin, get_type_hints

from greenctx._core.aio import await_
from greenctx.wasix._fibers.stores import Caller
from greenctx.wasix._fibers.values import F32, I32, func_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import FuncType

F = TypeVar("F", bound="Callable[..., Any]")
_KINDS: Final[dict[object, str]] = {int: "i64", I32: "i32", float: "f64", F32: "f32", bool: "i32"}


def defining(define_func: Callable[..., None], module: str, name: str | None) -> Callable[[F], F]:
    """Return a decorator that defines a function, by `Linker.define_func` and by its own name if none is given."""

    def define(function: F) -> F:
        ty, adapted, access_caller = typed(function)
        define_func(module, name or function.__name__, ty, adapted, access_caller)
        return function

    return define


def typed(function: Callable[..., Any]) -> tuple[FuncType, Callable[..., Any], bool]:
    """Return the arguments of `Linker.define_func`: the type, the function, and whether it takes a `Caller`.

    Raises TypeError, which names the annotation, for a function without a type in WebAssembly.
    """
    name = getattr(function, "__qualname__", repr(function))
    hints = get_type_hints(function, include_extras=True)
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise TypeError(f"{name}: guests pass their arguments by position, which {str(parameter)!r} cannot be")
        parameters.append((parameter.name, hints.get(parameter.name)))
    has_caller = bool(parameters) and parameters[0][1] is Caller
    kinds = [_kind(name, *each) for each in parameters[has_caller:]]
    returned = hints.get("return", type(None))
    results = () if returned is type(None) else get_args(returned) if get_origin(returned) is tuple else (returned,)
    ty = func_type(f"{' '.join(kinds)} -> {' '.join(_kind(name, 'return', result) for result in results)}")
    booleans = [place + has_caller for place, (_, hint) in enumerate(parameters[has_caller:]) if hint is bool]
    return ty, _adapted(function, booleans), has_caller


def _kind(function: str, name: str, annotation: object) -> str:
    try:
        return _KINDS[annotation]
    except (KeyError, TypeError):
        known = "int, float, bool, greenctx.wasix.I32 or F32"
        raise TypeError(f"{function}: {name!r} must be annotated with {known}, not {annotation!r}") from None


def _adapted(function: Callable[..., Any], booleans: list[int]) -> Callable[..., Any]:
    """Return the function to call with a guest's arguments; those at some places become booleans."""
    is_async = inspect.iscoroutinefunction(function)
    if not is_async and not booleans:
        return function

    @wraps(function)
    def adapted(*arguments: Any) -> Any:
        given = [*arguments]
        for place in booleans:
            given[place] = bool(given[place])
        result = function(*given)
        return await_(result) if is_async else result

    return adapted
