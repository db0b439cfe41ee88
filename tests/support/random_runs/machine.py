"""A state machine that gives the environment and its model the same random commands; they must agree after each."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from random_runs.model import MAIN, End, Model, World, hand_made

if TYPE_CHECKING:
    from greenctx import ContextCanceled

MAX_CONTEXTS = 5


# Rules are drawn alike, so that what is to be rare shares one.
number = st.integers(0, 9)


end = st.sampled_from(["return", "let out what it caught", *range(len(hand_made(0)))])


misuse = st.sampled_from(["switch", "destroy", "ask id"])


class Machine(RuleBasedStateMachine):
    """Each rule is one command to whichever context is active."""

    model: Model
    world: World
    world_class: type[World] = World

    def __init__(self) -> None:
        super().__init__()
        self.errors_made = 0
        self.start()

    def start(self) -> None:
        self.model, self.world = Model(MAX_CONTEXTS), self.world_class(MAX_CONTEXTS)

    @rule()
    def create(self) -> None:
        self.model.create()
        self.world.command(self.world.create)

    @precondition(lambda self: self.others())
    @rule(number=number)
    def switch(self, number: int) -> None:
        self.switch_to(pick(self.others(), number))

    @precondition(lambda self: self.others(but=MAIN))
    @rule(number=number)
    def destroy(self, number: int) -> None:
        self.destroy_that(pick(self.others(but=MAIN), number))

    @rule(call=misuse, number=number)
    def call_with_special_id(self, call: str, number: int) -> None:
        ended = set(range(self.model.next_id)) - self.model.alive
        ids = [self.model.active, MAIN, max(ended, default=MAIN), self.model.next_id, -1]
        match call:
            case "switch":
                self.switch_to(pick(ids, number))
            case "destroy":
                self.destroy_that(pick(ids, number))
            case "ask id":
                self.model.ask_id()
                self.world.command(lambda: self.world.env.active_context_id)

    # Main ends while there is something left to destroy; teardown ends the smaller environments.
    @precondition(lambda self: self.model.active != MAIN or len(self.model.alive) > 3)
    @rule(how=end)
    def end(self, how: str | int) -> None:
        error: BaseException | None = None
        if isinstance(how, int):
            self.errors_made += 1
            error = hand_made(1000 + self.errors_made)[how]
        elif how == "let out what it caught":
            error = self.world.errors.get(self.model.active)
        self.model.end(None if error is None else repr(error))
        self.world.command(End(error))

    @precondition(lambda self: self.model.holds_cancellation)
    @rule()
    def defuse(self) -> None:
        cancellation = cast("ContextCanceled", self.world.errors[self.model.active])
        self.model.defuse()
        self.world.command(cancellation.defuse)

    @precondition(lambda self: self.started_others())
    @rule(number=number)
    def resumed_by_somebody_else(self, number: int) -> None:
        target = pick(self.started_others(), number)
        self.model.preempt(target)
        self.world.preempt(target)

    @invariant()
    def they_agree(self) -> None:
        model, world = self.model, self.world
        assert world.log == model.log
        assert world.result == model.result
        if model.result is None:
            active = world.env.active_id()
            assert active == model.active
            assert world.env._registry.suspended_ids(active) == sorted(model.suspended)
            assert {context.context_id for context in world.env._registry.by_greenlet.values()} == model.alive - {MAIN}
            for target in (*model.alive, model.next_id):
                assert world.env.can_switch_to(target) == model.can_switch_to(target)
        else:
            assert repr(world.env) == "<ContextSwitchingEnvironment that has ended>"
            world.close()
            self.start()

    def teardown(self) -> None:
        last = self.model
        try:
            while last.result is None:
                self.end("return")
                self.they_agree()
        finally:
            self.world.end()
            self.world.close()

    def others(self, but: int | None = None) -> list[int]:
        return sorted(self.model.alive - {self.model.active, but})

    def started_others(self) -> list[int]:
        return sorted(set(self.others()) - self.model.unstarted)

    def switch_to(self, target: int) -> None:
        self.model.switch(target)
        self.world.command(lambda: self.world.env.switch_context(target))

    def destroy_that(self, target: int) -> None:
        self.model.destroy(target)
        self.world.command(lambda: self.world.env.destroy_context(target))


def pick(ids: list[int], number: int) -> int:
    return ids[number % len(ids)]
