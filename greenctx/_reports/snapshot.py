"""Snapshots: the contexts of an environment, and where each of them waits.

A snapshot can be taken from any thread, a signal handler or an instrument, because it changes nothing, takes no lock
and waits for nothing. The GIL keeps each copy of a table whole, and each step from a frame to its caller.
"""

from __future__ import annotations

import os
import sys
import traceback
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from greenlet import getcurrent

from greenctx._core.context import MAIN
from greenctx._reports.frame_notes import notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from greenctx._core.context import Context
    from greenctx._core.environment import Environment

_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
"""The prefix of the file names of this package."""

State = Literal["active", "suspended", "not started", "being destroyed", "destroying another"]


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """One context, as it was when the snapshot was taken."""

    id: int
    name: str
    """The name of its entrypoint, from the name section if the entrypoint is a guest's; "main" for main."""
    state: State
    """A context that unwinds is "active", too. One that waits in ``destroy_context`` is "destroying another"."""
    entrypoint: Callable[[], object] | None
    """None for main."""
    age: float
    """Seconds since it was created; for main, since it began."""
    switches: int | None
    """How often it became the active context. Counted only in an environment that has instruments."""

    def __str__(self) -> str:
        switches = "" if self.switches is None else f", {self.switches} switches"
        return f"context {self.id} ({self.name}), {self.state}, {self.age:.3f} s old{switches}"


def describe_contexts(environment: Environment) -> list[ContextInfo]:
    """Describe every context that has not ended, ascending by id."""
    return [info for info, _ in _look(environment)]


def format_stacks(environment: Environment, caller: FrameType, own_frames: bool) -> str:
    """Format every context and its Python stack; ``caller`` is the frame that asks.

    ``own_frames``: with the frames of this package.
    """
    me = getcurrent()
    found: list[tuple[ContextInfo, list[FrameType]]] = []
    active, running = environment._active, sys._current_frames().get(environment._thread_id)
    try:
        # All frames are collected first, because reading source files lets other threads run.
        for info, context in _look(environment):
            greenlet = context.greenlet
            frame = None if greenlet is None else caller if greenlet is me else greenlet.gr_frame
            if frame is None and context is active:
                frame = running  # in another thread
            found.append((info, [*_stack(frame)][::-1]))
        text = "".join(line for info, stack in found for line in _lines(info, stack, own_frames))
    finally:
        del caller, running, found, active, me  # their frames refer to this one: reference cycles
    return text or f"the environment {environment._phase.value}; it has no contexts\n"


def _look(environment: Environment) -> Iterator[tuple[ContextInfo, Context]]:
    main, active, now = environment._main, environment._active, monotonic()
    if main is None:
        return
    registry = environment._registry
    unstarted, unwinding = registry.unstarted.copy(), registry.unwinding.copy()
    destroyers = [victim.destroyer for victim in unwinding.values()]
    others: list[Any] = [
        *registry.started.copy().values(),
        *unstarted.values(),
        *unwinding.values(),
        *destroyers,
        active,
    ]
    there = [other for other in others if other is not None and not other.has_ended]
    known: dict[int, Context] = {other.context_id: other for other in there}
    known[MAIN] = main
    counted = hasattr(environment, "_reports")
    for context_id in sorted(known):
        context = known[context_id]
        state: State = "suspended"
        if context is active:
            state = "active"
        elif context_id in unstarted:
            state = "not started"
        elif context_id in unwinding:
            state = "being destroyed"
        elif context in destroyers:
            state = "destroying another"
        count = context.switches if counted else None
        entrypoint, age = environment._entrypoint_of(context), max(0.0, now - context.created_at)
        yield ContextInfo(context_id, context.name, state, entrypoint, age, count), context


def _stack(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and its callers."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _lines(info: ContextInfo, stack: list[FrameType], own_frames: bool) -> Iterator[str]:
    yield f"{info}:\n"
    shown: list[FrameType] = []
    for frame in stack:
        if frame.f_code in notes:
            yield from _formatted(shown)
            yield f"  {notes[frame.f_code](frame)}\n"
            shown = []
        if own_frames or not frame.f_code.co_filename.startswith(_PACKAGE):
            shown.append(frame)
    yield from _formatted(shown)


def _formatted(frames: list[FrameType]) -> list[str]:
    return traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames).format()
