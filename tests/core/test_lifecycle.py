"""The life of a context as a matrix: what each call does with a context in each state.

The states: unstarted, suspended, active, being destroyed, finished, and main. The calls: switch to it, destroy it,
create another from it (where its code runs), the end of main while it is in that state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, go_to_main, start, then_main
from greenlet import getcurrent

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx import ContextSwitchingEnvironment

    Call = Callable[[int], None]

# "By itself" is a call from the code of that context. With "main resumed" it is from main, resumed by a bare greenlet
# switch, because main could not run otherwise while another context is active or being destroyed.
MATRIX: list[tuple[str, str, str]] = [
    # state                           call            outcome, life of the context
    ("unstarted",                     "switch to it", "returned None; started, unwound"),
    ("unstarted",                     "destroy it",   "returned True"),
    ("unstarted",                     "end main",     "ended"),
    ("suspended",                     "switch to it", "returned None; started, went on, unwound"),
    ("suspended",                     "destroy it",   "returned True; started, unwound"),
    ("suspended",                     "end main",     "ended; started, unwound"),
    ("active, by itself",             "switch to it", "returned None"),
    ("active, by itself",             "destroy it",   "DestroyNotAllowed: is the active one"),
    ("active, by itself",             "create",       "returned 2"),
    ("active, main resumed",          "switch to it", "returned None; started, went on, unwound"),
    ("active, main resumed",          "destroy it",   "returned True; started, unwound"),
    ("active, main resumed",          "end main",     "ended; started, unwound"),
    ("being destroyed, by itself",    "switch to it", "ContextCanceled: is being destroyed; started, unwound"),
    ("being destroyed, by itself",    "destroy it",   "DestroyNotAllowed: is the active one; started, unwound"),
    ("being destroyed, by itself",    "create",       "returned 3; started, unwound"),
    ("being destroyed, main resumed", "switch to it", "SwitchTargetMissing: it is being destroyed; started, unwound"),
    ("being destroyed, main resumed", "destroy it",   "returned True; started, unwound"),
    ("being destroyed, main resumed", "end main",     "ended; started, unwound"),
    ("destroyed at the end of main",  "switch to it", "ContextCanceled: is being destroyed; started, unwound"),
    ("destroyed at the end of main",  "destroy it",   "DestroyNotAllowed: is the active one; started, unwound"),
    ("destroyed at the end of main",  "create",       "EnvironmentNotRunning: is being torn down; started, unwound"),
    ("finished",                      "switch to it", "SwitchTargetMissing: it has ended or was destroyed"),
    ("finished",                      "destroy it",   "returned False"),
    ("finished",                      "end main",     "ended"),
    ("main, by itself",               "switch to it", "returned None"),
    ("main, by itself",               "destroy it",   "DestroyNotAllowed: is the main context"),
    ("main, by itself",               "create",       "returned 1"),
    ("main, by itself",               "end main",     "ended"),
    ("main, by another",              "switch to it", "returned None"),
    ("main, by another",              "destroy it",   "DestroyNotAllowed: is the main context"),
]  # fmt: skip

CALLS: dict[str, Callable[[ContextSwitchingEnvironment, int], object]] = {
    "switch to it": lambda env, target: env.switch_context(target),
    "destroy it": lambda env, target: env.destroy_context(target),
    "create": lambda env, _: env.create_context(list),
}


class Life:
    """Brings a context into a state, and makes the call there. Each method is the code of main."""

    def __init__(self, env: ContextSwitchingEnvironment) -> None:
        self.env = env
        self.main = getcurrent()
        self.log: list[str] = []

    def context(
        self, wait: Callable[[], object] | None = None, cleanup: Callable[[], object] = list
    ) -> Callable[[], None]:
        """An entrypoint that logs its life: it waits until another context switches to it, then in main."""

        def entrypoint() -> None:
            self.log.append("started")
            try:
                (wait or go_to_main(self.env))()
                self.log.append("went on")
                self.env.switch_context(MAIN)
            finally:
                self.log.append("unwound")
                cleanup()

        return entrypoint

    def unstarted(self, call: Call) -> None:
        call(self.env.create_context(self.context()))

    def suspended(self, call: Call) -> None:
        call(start(self.env, self.context()))

    def active_by_itself(self, call: Call) -> None:
        start(self.env, then_main(self.env, lambda: call(1)))

    def active_main_resumed(self, call: Call) -> None:
        call(start(self.env, self.context(wait=self.main.switch)))

    def being_destroyed_by_itself(self, call: Call) -> None:
        start(self.env, self.context(cleanup=lambda: call(1)))
        start(self.env, then_main(self.env, lambda: self.env.destroy_context(1)))

    def being_destroyed_main_resumed(self, call: Call) -> None:
        start(self.env, self.context(cleanup=self.main.switch))
        start(self.env, then_main(self.env, lambda: self.env.destroy_context(1)))
        call(1)

    def destroyed_at_the_end_of_main(self, call: Call) -> None:
        start(self.env, self.context(cleanup=lambda: call(1)))

    def finished(self, call: Call) -> None:
        self.env.destroy_context(start(self.env, go_to_main(self.env)))
        call(1)

    def main_by_itself(self, call: Call) -> None:
        call(MAIN)

    def main_by_another(self, call: Call) -> None:
        def entrypoint() -> None:
            call(MAIN)
            while True:
                self.env.switch_context(MAIN)

        self.env.switch_context(start(self.env, entrypoint))  # in case the call was a switch, which is to return


@pytest.mark.parametrize(("state", "call", "outcome"), MATRIX, ids=[f"{state}: {call}" for state, call, _ in MATRIX])
def test_lifecycle(env: ContextSwitchingEnvironment, state: str, call: str, outcome: str) -> None:
    """The call has the outcome in the matrix. A started context unwinds once; a refused call changes nothing."""
    life = Life(env)
    seen: list[str] = []

    def make_call(target: int) -> None:
        before = repr(env)
        if call == "end main":
            return
        try:
            seen.append(f"returned {CALLS[call](env, target)!r}")
        except BaseException as error:
            seen.append(f"{type(error).__name__}: {error}")
            assert repr(env) == before

    def main() -> None:
        getattr(life, state.replace(", ", "_").replace(" ", "_"))(make_call)
        if call == "end main":
            seen.append("ended")

    env.run_main_context(main)

    expected, _, log = outcome.partition("; ")
    kind, _, phrase = expected.partition(": ")
    assert len(seen) == 1
    assert seen[0].startswith(kind)
    assert phrase in seen[0]
    assert ", ".join(life.log) == log
