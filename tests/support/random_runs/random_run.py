"""Random work in many contexts of one store: what `interleave.py` and `collect.py`, which say more, have in common.

Contexts run a guest that calls back for every step; the host functions, and main, then do something at random. With the
fault ``interrupt``, a signal raises KeyboardInterrupt at any moment.
"""

from __future__ import annotations

import json
import random
import signal
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

from wasmtime import Engine, Func, Store, Trap

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment
from greenctx.wasix import Linker, call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

COOKIE = 1_000_003
"""Every call of a guest has a multiple of it as its own."""


class HostError(Exception):
    """The error that host functions raise in a run."""


def takes_locks(frame: FrameType | None) -> bool:
    """Return whether Python imports or logs there. Interrupted, both may keep a lock that other threads wait for."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in ("importlib", "logging"):
            return True
        frame = frame.f_back
    return False


class RandomRun:
    """One store, one stream of random numbers, one environment after the other."""

    max_contexts: ClassVar[int]
    max_nesting: ClassVar[int]
    errors: ClassVar[tuple[type[Exception], ...]] = (HostError, Trap, ContextEntrypointReturned)
    """The errors that a guest may raise in a host function that called it."""
    expected: ClassVar[tuple[type[Exception], ...]] = errors
    """The errors that may end a context."""

    def __init__(self, seed: int, operations: int, faults: Sequence[str], engine: Engine) -> None:
        self.random = random.Random(seed)
        self.seed, self.operations, self.faults = seed, operations, faults
        self.counts: Counter[str] = Counter()
        self.contexts: list[int] = []
        self.nesting: Counter[int] = Counter()
        self.may_switch = True  # and may be interrupted
        self.environment = ContextSwitchingEnvironment()
        self.store = Store(engine)
        self.linker = Linker(engine)

    def actions(self) -> list[tuple[Callable[[], object], int]]:
        """The operations, and their weights."""
        raise NotImplementedError

    def entrypoint(self) -> Func:
        """The function that a new context runs."""
        raise NotImplementedError

    def call_nested(self) -> None:
        """Call the guest, and check the result."""
        raise NotImplementedError

    def begin(self) -> int:
        """Give a call of the guest its cookie."""
        self.counts["guest calls"] += 1
        return self.counts["guest calls"] * COOKIE

    def act(self) -> None:
        """One random operation of the active context, or of main."""
        self.counts["operations"] += 1
        actions = self.actions()
        [(action, _)] = self.random.choices(actions, [weight for _, weight in actions])
        action()

    def switch(self) -> None:
        target = self.random.choice([0, *self.contexts])
        if target == self.environment.active_context_id or self.environment.can_switch_to(target):
            self.counts["switches"] += 1
            self.environment.switch_context(target)

    def create(self) -> None:
        if len(self.contexts) >= self.max_contexts:
            self.contexts = [one for one in self.contexts if self.environment.can_switch_to(one)]
        if len(self.contexts) < self.max_contexts:
            self.counts["contexts"] += 1
            entrypoint = self.entrypoint()
            self.contexts.append(self.environment.create_context(lambda: call(self.store, entrypoint)))

    def destroy(self) -> None:
        target = self.random.choice([-1, *self.contexts])
        if target != self.environment.active_context_id:
            self.counts["destroyed"] += self.environment.destroy_context(target)

    def call_guest(self) -> None:
        """Call the guest from a host function; an error of ours ends here, or goes on to the guest that called that."""
        here = self.environment.active_context_id
        if self.nesting[here] >= self.max_nesting:
            return
        self.nesting[here] += 1
        try:
            self.call_nested()
        except self.errors as error:
            self.note("caught", error)
            if self.random.random() < 0.5:
                raise
        finally:
            self.nesting[here] -= 1

    def raise_error(self) -> None:
        raise HostError

    def note(self, what: str, error: BaseException) -> None:
        self.counts[f"{what} {type(error).__name__}"] += 1

    def main(self) -> None:
        """Main of the environment: operate, and go on after every error that may end a context."""
        while self.counts["operations"] < self.operations:
            try:
                self.act()
            except self.expected as error:
                self.note("main got", error)
            except KeyboardInterrupt:
                self.counts["KeyboardInterrupt"] += 1

    def interrupt(self, _: int, frame: FrameType | None) -> None:
        """Raise, but only where the environment runs: what `run` does before and after must not be interrupted.

        (An environment whose end was interrupted may look as if it still ran.)
        """
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.02))
        in_run = frame is not None and frame.f_code is RandomRun.run.__code__
        may_raise = self.may_switch and self.environment._main is not None and not in_run and not takes_locks(frame)
        if may_raise and not self.random.getrandbits(1):
            raise KeyboardInterrupt

    def run(self) -> None:
        """Do so many operations, and print what happened as JSON."""
        if "interrupt" in self.faults:
            signal.signal(signal.SIGALRM, self.interrupt)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        ends: tuple[type[BaseException], ...] = (KeyboardInterrupt, *self.expected)
        while self.counts["operations"] < self.operations:
            try:
                self.environment = ContextSwitchingEnvironment()
                self.contexts = []
                self.nesting.clear()
                self.environment.run_main_context(self.main)
            except ends:
                self.counts["ended early"] += 1
        if "interrupt" in self.faults:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)  # first: the handler sets the timer again
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert not self.environment._registry.ids()
        print(json.dumps({"seed": self.seed, **self.counts}))
