"""Scripts of context operations, obeyed three times: by a guest in C, by Python functions, and by tables alone.

Operations are handed out one by one to whichever context is active. Each of the three keeps a log of what each call led
to, in which context, and how deep in that context's stack; and says how the program ended.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from guests.compile import compile_guest
from guests.embedding import signature
from wasmtime import Trap, TrapCode

from greenctx import (
    ContextEntrypointReturned,
    ContextSwitchingEnvironment,
    DestroyNotAllowed,
    SwitchTargetMissing,
    TooManyContexts,
)
from greenctx.wasix import Limits, Program
from greenctx.wasix._modules.abi import AGAIN, INVAL, MEMVIOLATION, SUCCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAIN = 0
MAX_CONTEXTS = 4


class Do(IntEnum):
    """The kinds of operations, numbered as in guests/c/script.c."""

    CREATE = 0
    SWITCH = 1
    DESTROY = 2
    ENTER = 3
    LEAVE = 4
    RETURN = 5
    EXIT = 6
    TRAP = 7


STARTED, AT_EXIT = -1, -2
U64_MASK = 2**64 - 1

ERROR_OF_MISTAKE = [SUCCESS, INVAL, INVAL, INVAL, MEMVIOLATION, MEMVIOLATION, INVAL]
"""By CREATE's argument: what is wrong about the call."""


class Operation(NamedTuple):
    """Its repr, and that of a list of them, is Python that can be pasted."""

    do: Do
    argument: int = 0

    def __repr__(self) -> str:
        return f"Operation(Do.{self.do.name}, {self.argument})"


class Entry(NamedTuple):
    """The facts that a context's code has after a call has returned."""

    context: int
    depth: int
    error: int
    created: int = 0


class Script:
    """Hands out operations, the last of which ends the program; keeps the log."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self._operations = iter(operations)
        self.log: list[Entry] = []

    def next(self) -> Operation:
        return next(self._operations)


class Rules(NamedTuple):
    """Where hosts of WASIX programs differ."""

    max_contexts: float
    bad_pointer_creates: bool
    tells_which_context_returned: bool


RULES = Rules(
    max_contexts=MAX_CONTEXTS,
    bad_pointer_creates=False,
    tells_which_context_returned=True,
)
"""Those of greenctx, within the limit that these tests set."""


class Model:
    """Works out what operations lead to. There are no stacks here but numbers that say how deep they are."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules = rules
        self.active = MAIN
        self.next_id = 1
        self.depths = {MAIN: 0}  # of each living context
        self.unstarted: set[int] = set()
        self.log: list[Entry] = []
        self.end: str | None = None

    def obey(self, operation: Operation) -> None:
        match operation:
            case Do.CREATE, mistake:
                self._create(mistake)
            case Do.SWITCH, target:
                self._switch(target)
            case Do.DESTROY, target:
                self._destroy(target)
            case Do.ENTER, _:
                self.depths[self.active] += 1
            case Do.LEAVE, _:
                self.depths[self.active] = max(0, self.depths[self.active] - 1)
                self._log()
            case Do.RETURN, _ if self.active != MAIN:
                self.end = f"context {self.active if self.rules.tells_which_context_returned else '?'} returned"
            case ((Do.RETURN | Do.EXIT), status):
                self.log.append(Entry(MAIN, 0, AT_EXIT))
                self.end = f"status {status}"
            case Do.TRAP, _:
                self.end = "trap"

    def _create(self, mistake: int) -> None:
        error = ERROR_OF_MISTAKE[mistake]
        if error:
            if error == MEMVIOLATION and self.rules.bad_pointer_creates:
                self._add_context()
            self._log(error)
        elif len(self.depths) > self.rules.max_contexts:
            self._log(AGAIN)
        else:
            self._log(created=self._add_context())

    def _add_context(self) -> int:
        self.depths[self.next_id] = 0
        self.unstarted.add(self.next_id)
        self.next_id += 1
        return self.next_id - 1

    def _switch(self, target: int) -> None:
        if target not in self.depths:
            self._log(INVAL)
            return
        self.active = target
        self._log(STARTED if target in self.unstarted else SUCCESS)
        self.unstarted.discard(target)

    def _destroy(self, target: int) -> None:
        if target in (MAIN, self.active):
            self._log(INVAL)
            return
        self.depths.pop(target, None)
        self.unstarted.discard(target)
        self._log()

    def _log(self, error: int = SUCCESS, created: int = 0) -> None:
        self.log.append(Entry(self.active, self.depths[self.active], error, created))


class Trapped(Exception):
    """Stands for a trap of the guest."""


class BadPointer(Exception):
    """Stands for that mistake, which Python cannot make."""


class InPython:
    """Obeys a script as the guest does, line by line, with the calls of an environment."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.env = ContextSwitchingEnvironment(max_contexts=MAX_CONTEXTS)

    def run(self) -> str:
        def main() -> str:
            status = self.obey(MAIN, 0)
            self.script.log.append(Entry(MAIN, 0, AT_EXIT))
            return f"status {status}"

        return tell_end(lambda: self.env.run_main_context(main))

    def obey(self, me: int, depth: int) -> int:
        """Return the status that the program is to end with, or -1 to leave this frame only."""
        while True:
            do, argument = self.script.next()
            error = created = 0
            try:
                match do:
                    case Do.CREATE:
                        created = self.create(argument)
                    case Do.SWITCH:
                        self.env.switch_context(argument)
                    case Do.DESTROY:
                        self.env.destroy_context(argument)
                    case Do.ENTER:
                        status = self.obey(me, depth + 1)
                        if status >= 0:
                            return status
                    case Do.LEAVE:
                        if depth > 0:
                            return -1
                    case Do.RETURN:
                        return argument
                    case Do.EXIT:
                        self.script.log.append(Entry(MAIN, 0, AT_EXIT))
                        raise SystemExit(argument)
                    case Do.TRAP:
                        raise Trapped
            except TooManyContexts:
                error = AGAIN
            except BadPointer:
                error = MEMVIOLATION
            except (TypeError, SwitchTargetMissing, DestroyNotAllowed):
                error = INVAL
            self.script.log.append(Entry(me, depth, error, created))

    def create(self, mistake: int) -> int:
        if ERROR_OF_MISTAKE[mistake] == MEMVIOLATION:
            raise BadPointer
        return self.env.create_context(None if mistake else self.run_context)  # type: ignore[arg-type]

    def run_context(self) -> None:
        me = self.env.active_context_id
        self.script.log.append(Entry(me, 0, STARTED))
        self.obey(me, 0)


class InGuest:
    """Obeys scripts in a guest, compiled once and run for each."""

    def __init__(self, *flags: str, shadow_stack: int | None = None) -> None:
        self._script = Script([])
        self._argument = 0
        limits = Limits(contexts=MAX_CONTEXTS)
        self._program = Program.from_file(
            compile_guest("script", *flags), limits=limits, shadow_stack=shadow_stack, cache=True
        )
        define = self._program.linker.define_func
        define("script", "operation", signature("-> i32"), self._operation)
        define("script", "argument", signature("-> i64"), lambda: self._argument)
        define("script", "log", signature("i64 i32 i32 i64 ->"), self._log)

    def run(self, script: Script) -> str:
        self._script = script
        return tell_end(lambda: f"status {self._program.run()}")

    def _operation(self) -> int:
        do, self._argument = self._script.next()
        return do

    def _log(self, context: int, depth: int, error: int, created: int) -> None:
        self._script.log.append(Entry(context & U64_MASK, depth, error, created & U64_MASK))


def tell_end(run: Callable[[], str]) -> str:
    """How a program ends."""
    try:
        return run()
    except ContextEntrypointReturned as error:
        return f"context {error.context_id} returned"
    except SystemExit as exit:
        return f"status {exit.code}"
    except Trapped:
        return "trap"
    except Trap as trap:
        return "trap" if trap.trap_code == TrapCode.UNREACHABLE else str(trap)
