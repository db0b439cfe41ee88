"""WebAssembly exceptions that leave a guest: as Python exceptions, and back into a guest as what they were."""

from __future__ import annotations

from ctypes import byref
from functools import cache
from typing import TYPE_CHECKING, Any

from wasmtime import Tag, Trap, Val, WasmtimeError
from wasmtime import _bindings as ffi

from greenctx.errors import GuestException
from greenctx.wasix._fibers.stores import state_of

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._native._fiber import Fiber, ThrownException


def give(error: BaseException, fiber: Fiber, store: Store) -> bool:
    """Throw the error in the guest that waits for a host function, if it is an exception of a guest's of that store."""
    if not isinstance(error, GuestException) or error.reference is None:
        return False
    if _exnref(error.reference).store_id != state_of(store).store_id:
        return False
    if _loses_references():  # so there has to be one more
        context = store._context()
        raw = ffi.wasmtime_exnref_to_raw(context, _pointer(error.reference))
        ffi.wasmtime_exnref_from_raw(context, raw, byref(ffi.wasmtime_exnref_t()))
    fiber.throw(error, error.reference)
    return True


@cache
def _loses_references() -> bool:
    """Whether it is wasmtime 45, whose set_exception counts one too few. (One is added then, and never given back.)"""
    from importlib.metadata import version  # which takes long to import, and is seldom needed

    return version("wasmtime").startswith("45.")


def lighten(fiber: Fiber) -> None:
    """Let go of the frames that the exception refers to which the guest was given: it may go on for long."""
    given = fiber.given
    if given is not None and given.__traceback__ is not None:
        fiber.given = GuestException(given.payload, given.tag, given.reference)
        for note in getattr(given, "__notes__", []):
            fiber.given.add_note(note)


def caught(store: Store, fiber: Fiber, ended: Exception) -> GuestException | None:
    """What to raise for a call that has ended with an exception of the guest's, if it has.

    That is the one that the guest was given last, if it has let it through; so nothing of that is lost.
    """
    reference, given = fiber.thrown, fiber.given
    fiber.given = None  # for its traceback refers to the frames that refer to the fiber
    if reference is None or isinstance(ended, Trap):
        return None
    if given is None or not _are_same(store, given.reference, reference):
        given = GuestException(_payload(store, reference), _tag(store, reference), reference)
    note_backtrace(given, ended)
    return given


def note_backtrace(error: BaseException, ended: object) -> None:
    """Note on the error where in the guest the call was that has ended so."""
    backtrace, separator, _ = str(ended).partition("\n\nCaused by:")
    if separator:  # wasmtime 45 has none for an exception
        error.add_note(backtrace)


def _are_same(store: Store, one: ThrownException, other: ThrownException) -> bool:
    context = store._context()
    first, second = (ffi.wasmtime_exnref_to_raw(context, _pointer(reference)) for reference in (one, other))
    return bool(first == second)


def _tag(store: Store, reference: ThrownException) -> Tag:
    tag = ffi.wasmtime_tag_t()
    error = ffi.wasmtime_exnref_tag(store._context(), _pointer(reference), byref(tag))
    if error:
        raise WasmtimeError._from_ptr(error)
    return Tag._from_raw(tag)


def _payload(store: Store, reference: ThrownException) -> tuple[Any, ...]:
    count = ffi.wasmtime_exnref_field_count(store._context(), _pointer(reference))
    return tuple(_field(store, reference, index) for index in range(count))


def _field(store: Store, reference: ThrownException, index: int) -> Any:
    value = ffi.wasmtime_val_t()
    error = ffi.wasmtime_exnref_field(store._context(), _pointer(reference), index, byref(value))
    if error:
        raise WasmtimeError._from_ptr(error)
    try:
        return Val._from_raw(store, value, owned=False).value
    except WasmtimeError:  # the package has no such kind of value
        return NotImplemented
    finally:
        ffi.wasmtime_val_unroot(byref(value))


def _pointer(reference: ThrownException) -> Any:
    return byref(_exnref(reference))


def _exnref(reference: ThrownException) -> Any:
    return ffi.wasmtime_exnref_t.from_address(reference.address)
