"""Host functions: Python functions that guests call. They run on the greenlet of the context that calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wasmtime import FuncType, Linker, Store, Val

from greenctx._core.plain_functions import check_is_no_coroutine, check_is_plain
from greenctx._reports.frame_notes import notes
from greenctx.wasix._fibers.stores import Caller
from greenctx.wasix._fibers.values import argument_decoder, kind_of, result_encoder
from greenctx.wasix._native._fiber import DirectCall, callback_addresses, let_traps_through
from greenctx.wasix._native.capi import define_async_func, invalidate_caller

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from greenctx.wasix._fibers.values import ArgumentDecoder, ResultEncoder
    from greenctx.wasix._native._fiber import DirectLinker, Fiber


# Not after every call, because the check takes longer than a short function. It is also made when a call into a guest
# begins, and when an epoch ends.
FIRST_CALLS = 4
"""How many calls of a host function are followed by a check of the signal handlers, which it may have replaced."""


class HostFunction:
    """A Python function for guests to call, as `Fiber.poll` returns it."""

    __slots__ = ("__weakref__", "_unseen_calls", "access_caller", "decode", "encode", "function", "name", "reported")

    def __init__(
        self,
        name: str,
        decode: ArgumentDecoder,
        encode: ResultEncoder,
        function: Callable[..., Any],
        access_caller: bool,
    ) -> None:
        """``decode`` converts the arguments, ``encode`` what the function returns."""
        self.name = name
        self.reported: tuple[str, Callable[..., Any]] | None = None
        """If `function` reports each call to instruments: by which name, and the function that it then calls."""
        self.decode = decode
        self.encode = encode
        self.function = function
        self.access_caller = access_caller
        self._unseen_calls = FIRST_CALLS

    def serve(self, fiber: Fiber, store: Store) -> None:
        """Run the function on the current greenlet and hand its result to the guest."""
        arguments = self.decode(fiber.arguments, store)
        if self.access_caller:
            caller = Caller(fiber.caller, store)
            try:
                result = self.function(caller, *arguments)
            finally:
                # wasmtime frees its caller when the guest goes on. A Caller that the function kept would read freed
                # memory.
                invalidate_caller(caller)
        else:
            result = self.function(*arguments)
        if self._unseen_calls:
            self._unseen_calls -= 1
            let_traps_through()
        if isinstance(result, Val):  # wasmtime's own host functions may return one, too
            result = result.value
        try:
            results = self.encode(result, store)
        except (TypeError, ValueError, OverflowError) as error:  # other errors propagate unchanged
            check_is_no_coroutine(f"host function {self.name!r}", result)
            raise TypeError(f"host function {self.name!r} returned what its type does not allow: {error}") from error
        fiber.answer(results)


def _guest_below(frame: FrameType) -> str:
    """Return the line that stands for a guest's frames in a dump of stacks, below a host function that it called."""
    # The guest's own frames are not available: wasmtime walks stacks only when it makes a trap or an exception, and it
    # does not look at the stacks of suspended fibers.
    function = frame.f_locals.get("self")
    name = function.name if isinstance(function, HostFunction) else "a host function"
    return f"(a guest, which has called {name})"


notes[HostFunction.serve.__code__] = _guest_below


def define_func(
    linker: Linker,
    module: str,
    name: str,
    ty: FuncType,
    function: Callable[..., Any],
    access_caller: bool,
    is_switch: bool = False,
    unsigned: bool = False,
    direct: tuple[DirectLinker, str] | None = None,
) -> HostFunction:
    """Define, and return, a host function that runs on the greenlet of the context that calls it.

    ``is_switch``: the function is WASIX's context_switch, which `Fiber.poll` may do without calling the function.
    ``unsigned``: integer arguments are unsigned. ``direct``: the name of WASI's
    function that may be called directly in its place, by guests of that linker.
    """
    parameters, results = ty.params, ty.results
    parameter_kinds, result_kinds = ([kind_of(one) for one in types] for types in (parameters, results))
    if None in result_kinds:
        raise TypeError(f"Python has no value for the result of host function {f'{module}.{name}'!r}")
    decode, encode = argument_decoder(parameter_kinds, unsigned=unsigned), result_encoder(results, result_kinds)
    host_function = HostFunction(f"{module}.{name}", decode, encode, function, access_caller)
    # A type belongs to the engine that used it first, and wasmtime ends the process when another engine meets it. So a
    # fresh type is made, unless the package cannot make one: then the given type is used.
    if None not in parameter_kinds:
        ty = FuncType(parameters, results)
    addresses = (
        DirectCall(host_function, *direct).give_away() if direct else callback_addresses(host_function, is_switch)
    )
    define_async_func(linker, module, name, ty, *addresses)
    return host_function


def check_host_function(ty: object, function: object) -> None:
    """Raise TypeError unless the arguments are a type and a callable, but not a coroutine function."""
    if not isinstance(ty, FuncType):
        raise TypeError(f"the type of a host function must be a wasmtime.FuncType, not {ty!r}")
    if not callable(function):
        raise TypeError(f"a host function must be callable, not {function!r}")
    check_is_plain("a host function", function)
