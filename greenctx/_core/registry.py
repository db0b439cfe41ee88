"""Where each context of an environment is: the ids, and the contexts behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from greenlet import greenlet

    from greenctx._core.context import Context

MAIN = 0


class Registry:
    """Maps ids to contexts. It holds them strongly: none is ever unwound by the garbage collector.

    A context is in exactly one of the first three, or in none while it waits in ``destroy_context`` for another's end
    (it would be wrong to resume it then).
    """

    __slots__ = ("by_greenlet", "next_id", "started", "unstarted", "unwinding")

    def __init__(self) -> None:
        self.next_id = 1
        self.started: dict[int, Context] = {}
        """What a plain switch may resume. Main and the active context are here, too: a switch need not touch it."""
        self.unstarted: dict[int, Context] = {}
        self.unwinding: dict[int, Context] = {}
        """Contexts that are being destroyed."""
        self.by_greenlet: dict[greenlet, Context] = {}
        """Every context that has not ended, but main, whose greenlet may be of any class."""

    def is_destroying(self, of: Context) -> bool:
        """Whether that context waits in ``destroy_context``."""
        return any(victim.destroyer is of for victim in self.unwinding.values())

    def count_live(self, main: Context) -> int:
        """How many contexts there are besides main."""
        registered = len(self.started) + len(self.unstarted) + len(self.unwinding) - (MAIN in self.started)
        destroyers = {victim.destroyer for victim in self.unwinding.values()}
        destroyers -= {None, main, *self.unwinding.values()}
        return registered + len(destroyers)

    def ids(self) -> list[int]:
        """The ids of every context but main and those that wait in ``destroy_context``, ascending."""
        return sorted((self.started.keys() | self.unstarted.keys() | self.unwinding.keys()) - {MAIN})

    def suspended_ids(self, active_id: int) -> list[int]:
        """The ids of the suspended contexts, main included, ascending."""
        unwinding = {key for key, context in self.unwinding.items() if not self.is_destroying(context)}
        return sorted((self.started.keys() | self.unstarted.keys() | unwinding) - {active_id})

    def describe(self, context_id: int) -> str:
        """The state of a context that nobody can switch to, as a phrase for an error message."""
        if context_id in self.unwinding:
            return "is being destroyed"
        for victim in self.unwinding.values():
            if victim.destroyer is not None and victim.destroyer.context_id == context_id:
                return f"waits in destroy_context for context {victim.context_id} to end"
        return "has ended or was destroyed" if context_id in range(self.next_id) else "was never created"
