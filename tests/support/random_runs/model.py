"""The rules of an environment told twice: as tables without any call stack, and as contexts that do as they are told.

`Model` has the outcome of each command. `World` gives the same commands to a real environment, each of whose contexts
runs `World.obey`. Both keep a log of what the contexts saw. Exceptions appear in it by their ``repr``: those that code
raises by hand are each made with a number of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from greenctx import ContextCanceled, ContextSwitchingEnvironment
from greenctx.errors import ExitCarrier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAIN = 0
INTERRUPTIONS = ("KeyboardInterrupt", "SystemExit", "CancelledError")


class Model:
    """The rules of the environment. Nothing here waits: which context waits for which is a row in a table."""

    def __init__(self, max_contexts: int) -> None:
        self.max_contexts = max_contexts
        self.next_id = 1
        self.active = MAIN
        self.alive = {MAIN}
        self.unstarted: set[int] = set()
        self.canceled: set[int] = set()
        self.defused: set[int] = set()
        self.destroys: dict[int, int] = {}  # by context: the one it is inside destroy_context for
        self.destroyer: dict[int, int] = {}  # by victim: the context that resumes when the victim ends
        self.errors: dict[int, str] = {}  # by context: the last error that it caught
        self.main_ended_with: str | None = None
        self.to_destroy: list[int] = []  # what is left of main's present round at its end
        self.cleanup_errors: list[str] = []
        self.result: str | None = None
        self.log = ["0 starts"]

    @property
    def suspended(self) -> set[int]:
        return self.alive - {self.active} - set(self.destroyer.values())

    def can_switch_to(self, target: int) -> bool:
        """Whether a switch is not refused (but canceled, perhaps)."""
        return self.active in self.canceled or target in {self.active, *self.suspended} - self.canceled

    @property
    def holds_cancellation(self) -> bool:
        """Whether the error that the active context caught last is its own cancellation."""
        return self.errors.get(self.active) == f"ContextCanceled({self.active})"

    # The commands. The active context obeys them.

    def ask_id(self) -> None:
        self.returned(self.active)

    def create(self) -> None:
        if self.main_ended_with is not None:
            self.raised("EnvironmentNotRunning('is being torn down')")
        elif len(self.alive - {MAIN}) >= self.max_contexts:
            self.raised(f"TooManyContexts({self.max_contexts})")
        else:
            self.alive.add(self.next_id)
            self.unstarted.add(self.next_id)
            self.returned(self.next_id)
            self.next_id += 1

    def switch(self, target: int) -> None:
        if not self.can_switch_to(target):
            self.raised(f"SwitchTargetMissing({target}, {self._state_of(target)!r})")
        elif self.active in self.canceled:
            self.raised(f"ContextCanceled({self.active})")
        elif target == self.active:
            self.returned(None)
        else:
            self._resume(target)

    def destroy(self, target: int) -> None:
        if target in (MAIN, self.active):
            self.raised(f"DestroyNotAllowed({target})")
        elif target in self.suspended:
            self._destroy(target)
        else:
            self.returned(False)

    def defuse(self) -> None:
        self.defused.add(self.active)
        self.returned(None)

    def end(self, error: str | None) -> None:
        """The active context returns (None) or raises."""
        ended = self.active
        self.log.append(f"{ended} ends")
        if ended == MAIN:
            self.main_ended_with = error or "returned"
            self._destroy_next()
            return
        self.alive.remove(ended)
        if error is None:
            if ended not in self.canceled:
                error = f"ContextEntrypointReturned({ended})"
            elif ended not in self.defused:
                error = f"CancellationSwallowed({ended})"
        elif ended in self.canceled and error == f"ContextCanceled({ended})":
            error = None
        heir = self.destroyer.pop(ended, MAIN)
        if error is None:
            self._resume(heir)
        else:
            self.active = heir
            self._interrupt_destroy()
            self.raised(error)

    def preempt(self, target: int) -> None:
        """Other code than the environment resumes a started context."""
        self._resume(target)

    # The common part of the commands.

    def returned(self, value: object) -> None:
        """The call that the active context is in returns."""
        if self.active == MAIN and self.main_ended_with is not None:
            self._destroy_next()
        else:
            self.log.append(f"{self.active} got {value!r}")

    def raised(self, error: str) -> None:
        """The call that the active context is in raises, and the context catches it."""
        if self.active == MAIN and self.main_ended_with is not None:
            self.cleanup_errors.append(error)
            self._destroy_next()
        else:
            self.errors[self.active] = error
            self.log.append(f"{self.active} got {error}")

    def _resume(self, target: int) -> None:
        self.active = target
        victim = self._interrupt_destroy()
        if target in self.unstarted:
            self.unstarted.remove(target)
            self.log.append(f"{target} starts")
        elif victim is None:
            self.returned(None)
        elif victim in self.alive:  # destroy_context goes on until the victim has ended
            self._destroy(victim)
        else:
            self.returned(True)

    def _destroy(self, victim: int) -> None:
        if victim in self.unstarted:
            self.unstarted.remove(victim)
            self.alive.remove(victim)
            self.returned(True)
            return
        self.canceled.add(victim)
        self.destroys[self.active] = victim
        self.destroyer[victim] = self.active
        self.active = victim
        self._interrupt_destroy()
        self.raised(f"ContextCanceled({victim})")

    def _interrupt_destroy(self) -> int | None:
        """The active context no longer waits inside destroy_context, if it did. Return its victim."""
        victim = self.destroys.pop(self.active, None)
        if victim is not None and self.destroyer.get(victim) == self.active:
            del self.destroyer[victim]
        return victim

    def _destroy_next(self) -> None:
        """Main has ended: destroy the others in rounds of ascending ids."""
        if not self.to_destroy:
            self.to_destroy = sorted(self.suspended | (self.canceled & self.alive))
        if not self.to_destroy:
            self._finish()
            return
        victim = self.to_destroy.pop(0)
        if victim in self.suspended:
            self._destroy(victim)
        else:
            self._destroy_next()

    def _finish(self) -> None:
        assert self.alive == {MAIN}
        errors = self.cleanup_errors
        interruptions = [error for error in errors if error.startswith(INTERRUPTIONS)]
        if self.main_ended_with != "returned":
            first, others = self.main_ended_with, errors
        elif interruptions:
            first, others = interruptions[0], [error for error in errors if error != interruptions[0]]
        elif len(errors) > 1:
            first, others = f"[{', '.join(errors)}]", []
        else:
            first, others = (errors or ["returned"])[0], []
        self.result = f"{first} during [{', '.join(others)}]" if others else first

    def _state_of(self, missing: int) -> str:
        if missing in self.alive & self.canceled:
            return "is being destroyed"
        if missing in self.destroyer.values():
            return f"waits in destroy_context for context {self.destroys[missing]} to end"
        return "has ended or was destroyed" if 0 <= missing < self.next_id else "was never created"


@dataclass
class End:
    """The command to return, or to raise."""

    error: BaseException | None


class World:
    """A real environment. Its contexts take commands from outside, by greenlet switches that it knows nothing of."""

    def __init__(self, max_contexts: int, instruments: Iterable[object] = ()) -> None:
        self.env = ContextSwitchingEnvironment(max_contexts=max_contexts, instruments=instruments)
        self.log: list[str] = []
        self.errors: dict[int, BaseException] = {}
        self.result: str | None = None
        self.greenlets: dict[int, greenlet] = {}
        self.start()

    def start(self) -> None:
        """Run main until it wants a command."""
        self._outside = getcurrent()
        self._listener: greenlet
        greenlet(self._run).switch()

    def command(self, command: Callable[[], object] | End) -> None:
        """Let the active context obey; return when a context, the same or another, wants its next command."""
        self._listener.switch(command)

    def create(self) -> int:
        """A command."""
        context_id = self.env._registry.next_id
        return self.env.create_context(lambda: self.obey(context_id))

    def preempt(self, context_id: int) -> None:
        self.greenlets[context_id].switch()

    def close(self) -> None:
        """Do the remaining actions after its end."""

    def end(self) -> None:
        """End every context, whatever state they are in."""
        for _ in range(1000):
            if self.result is not None:
                return
            self.command(End(None))
        raise AssertionError(f"does not end: {self.env!r}")

    def obey(self, context_id: int) -> None:
        """The code of every context."""
        self.greenlets[context_id] = getcurrent()
        self.log.append(f"{context_id} starts")
        try:
            while True:
                try:
                    command = self._next_command()
                    if isinstance(command, End):
                        break
                    self.log.append(f"{context_id} got {command()!r}")
                except BaseException as error:
                    self.errors[context_id] = error
                    self.log.append(f"{context_id} got {error!r}")
            if command.error is not None:
                raise command.error
        finally:
            self.log.append(f"{context_id} ends")

    def _next_command(self) -> Any:
        self._listener = getcurrent()
        try:
            command = self._outside.switch()
        except BaseException as caught:
            self.let_it_notice()
            error = unwrapped(caught)
            return lambda: throw(error)
        if command:
            return command
        self.let_it_notice()
        return lambda: None

    def let_it_notice(self) -> None:
        """A context was resumed while it waited for a command. The environment learns of it by the next call."""
        assert self.env.active_context_id in self.greenlets

    def _run(self) -> None:
        try:
            self.env.run_main_context(self.obey, MAIN)
        except BaseException as error:
            self.result = tell(error)
        else:
            self.result = "returned"
        # The collector does not track a dict into which only running greenlets were put: a cycle that it cannot free.
        self.greenlets.clear()


def unwrapped(caught: BaseException) -> BaseException:
    """Return the error, or the exit that it carries."""
    return caught.exit if isinstance(caught, ExitCarrier) else caught


def throw(error: BaseException) -> None:
    raise error


def tell(error: BaseException) -> str:
    """An exception with its group's members and its context."""
    if isinstance(error, BaseExceptionGroup):
        text = f"[{', '.join(tell(member) for member in error.exceptions)}]"
    else:
        text = repr(error)
    return text if error.__context__ is None else f"{text} during {tell(error.__context__)}"


def hand_made(serial: int) -> list[BaseException]:
    """An exception of each kind that code may raise, told apart from all others by the number."""
    return [
        ValueError(serial),
        KeyboardInterrupt(serial),
        SystemExit(serial),
        GeneratorExit(serial),
        GreenletExit(serial),
        ContextCanceled(serial),
    ]
