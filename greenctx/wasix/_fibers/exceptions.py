"""WebAssembly exceptions that leave a guest: as Python exceptions, and back into a guest as what they were."""

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
    """Throw the error in the guest that waits for a host function, if it is an exception of a guest's of that store."""
    if not isinstance(error, GuestException) or error.reference is None:
        return False
    if capi_values.exception_store_id(error.reference.address) != state_of(store).store_id:
        return False
    if _loses_references():  # so there has to be one more
        capi_values.add_reference(store, error.reference.address)
    fiber.throw(error, error.reference)
    return True


@cache
def _loses_references() -> bool:
    """Whether it is wasmtime 45, whose set_exception counts one too few. (One is added then, and never given back.)"""
    from importlib.metadata import version  # which takes long to import, and is seldom needed

    return version("wasmtime").startswith("45.")


def drop_frames(fiber: Fiber) -> None:
    """Let go of the frames that the exception refers to which the guest was delivered: it may go on for long."""
    delivered = fiber.delivered
    if delivered is not None and delivered.__traceback__ is not None:
        fiber.delivered = GuestException(delivered.payload, delivered.tag, delivered.reference)
        for note in getattr(delivered, "__notes__", []):
            fiber.delivered.add_note(note)


def take_uncaught(store: Store, fiber: Fiber, ended: Exception) -> GuestException | None:
    """What to raise for a call that has ended with an exception of the guest's, if it has.

    That is the one that the guest was given last, if it has let it through; so nothing of that is lost.
    """
    reference, delivered = fiber.thrown, fiber.delivered
    fiber.delivered = None  # for its traceback refers to the frames that refer to the fiber
    if reference is None or isinstance(ended, Trap):
        return None
    if delivered is None or not capi_values.are_same_exceptions(store, delivered.reference.address, reference.address):
        payload = capi_values.exception_payload(store, reference.address)
        delivered = GuestException(payload, capi_values.exception_tag(store, reference.address), reference)
    note_backtrace(delivered, ended)
    return delivered
