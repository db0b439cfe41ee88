"""Backtraces of guests, without the frames of other calls: in the traps that end calls, and in notes on exceptions.

Where guests hold references, the calls of a store stand on one another, on top of a call that never ends (see
`gc_anchor`). wasmtime walks through all of them. A call's own frames end where those of the anchor begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Trap, WasmtimeError

from greenctx.wasix._native.capi import move_pointer

if TYPE_CHECKING:
    from wasmtime import Frame

    from greenctx.wasix._native.capi import Outcome

# wasmtime shows a frame as "<index>: <offset> - <module>!<function>", by the names of the module's name section.
ANCHOR_MODULE, ANCHOR_FUNCTION = "greenctx", "gc_anchor"
_ANCHOR = f"{ANCHOR_MODULE}!{ANCHOR_FUNCTION}"


def take(outcome: Outcome) -> Trap | WasmtimeError | None:
    """Take the trap or the error that ended a call, if any. The next time, return None."""
    ended = outcome.take()
    if ended is None:
        return None
    message = str(ended)
    if _ANCHOR not in message:
        return ended
    # An error's message can only be replaced. A trap keeps its pointer, and with it its code.
    return move_pointer(ended, _OwnTrap) if isinstance(ended, Trap) else WasmtimeError(_own_part(message))


def note_backtrace(error: BaseException, ended: object) -> None:
    """Add a note to the error: the backtrace in ``ended``, which ended the guest's call."""
    backtrace, separator, _ = str(ended).partition("\n\nCaused by:")
    if separator:  # wasmtime 45 has no backtrace for an exception
        error.add_note(backtrace)


class _OwnTrap(Trap):
    """A trap with only the frames of the call that trapped."""

    @property
    def message(self) -> str:
        return _own_part(super().message)

    @property
    def frames(self) -> list[Frame]:
        frames = super().frames
        names = [f"{frame.module_name}!{frame.func_name}" for frame in frames]
        return frames[: names.index(_ANCHOR)] if _ANCHOR in names else frames


def _own_part(message: str) -> str:
    """Return the message without the anchor's frame and those below it."""
    anchor = message.find(f" - {_ANCHOR}")
    if anchor < 0:
        return message
    # The message is the backtrace, a blank line, and "Caused by:" with the cause, which is kept.
    cause = message.find("\n\nCaused by:", anchor)
    return message[: message.rfind("\n", 0, anchor)] + (message[cause:] if cause >= 0 else "")
