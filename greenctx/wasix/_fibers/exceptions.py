"""WebAssembly exceptions that leave a guest: Python gets a `GuestException`, and guests get the exception again."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from wasmtime import Trap

from greenctx.errors import GuestException
from greenctx.wasix._fibers.backtraces import note_backtrace
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._native import capi_values

if TYPE_CHECKING:
    from wasmtime import Store

    from greenctx.wasix._native._fiber import Fiber


def throw_into_guest(error: BaseException, fiber: Fiber, store: Store) -> bool:
    """Throw the error into the guest that waits for a host function; return whether it is an exception of that store.

    Any other error ends the call with a trap, which the guest cannot catch.
    """
    if not isinstance(error, GuestException) or error.reference is None:
        return False
    # An exception belongs to its store. For guests of other stores it is a host error like any other.
    if capi_values.exception_store_id(error.reference.address) != state_of(store).store_id:
        return False
    if _loses_references():
        capi_values.add_reference(store, error.reference.address)
    fiber.throw(error, error.reference)
    return True


@cache
def _loses_references() -> bool:
    """Return whether wasmtime_context_set_exception counts a reference too few. (wasmtime 45's does.)

    Then a reference is added before and never given back: a small leak, instead of an exception freed too early.
    """
    from importlib.metadata import version  # takes long to import, and is seldom needed

    return version("wasmtime").startswith("45.")


def drop_frames(fiber: Fiber) -> None:
    """Replace the exception that was thrown into the guest by one without its traceback.

    The guest may have caught it, and run for long. The frames of the traceback would live until the guest's call ends.
    """
    delivered = fiber.delivered
    if delivered is not None and delivered.__traceback__ is not None:
        fiber.delivered = GuestException(delivered.payload, delivered.tag, delivered.reference)
        for note in getattr(delivered, "__notes__", []):
            fiber.delivered.add_note(note)


def take_uncaught(store: Store, fiber: Fiber, ended: Exception) -> GuestException | None:
    """Return the `GuestException` to raise for a call that an uncaught exception of the guest ended; else None.

    If that exception was thrown into the guest, this is the same object, with its traceback and notes.
    """
    reference, delivered = fiber.thrown, fiber.delivered
    fiber.delivered = None  # its traceback refers to frames that refer to the fiber: a reference cycle
    # A trap takes the place of an exception that the guest threw before.
    if reference is None or isinstance(ended, Trap):
        return None
    if delivered is None or not capi_values.are_same_exceptions(store, delivered.reference.address, reference.address):
        payload = capi_values.exception_payload(store, reference.address)
        delivered = GuestException(payload, capi_values.exception_tag(store, reference.address), reference)
    note_backtrace(delivered, ended)
    return delivered
