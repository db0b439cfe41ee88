"""A KeyboardInterrupt may arrive anywhere: nothing stays half-switched, and no context or error is lost.

Two forms. `test_an_interruption_at_every_point` goes through every point of the core, one after the other; the
bombardment draws its points from a timer. Its long form is this module as a script::

    python tests/interruption/test_interruption.py --runs 10000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from contexts import in_environment
from greenlet import GreenletExit, getcurrent, greenlet
from interruptions import (
    CORE,
    Book,
    CleanupError,
    everything_in,
    handling,
    interrupt_at_every_point,
    interrupt_twice_at_every_point,
    run_script,
    script,
)

import greenctx
from greenctx import ContextCanceled, ContextSwitchingEnvironment, SwitchTargetMissing

if TYPE_CHECKING:
    from types import FrameType


# At every point.


@pytest.mark.parametrize(
    "failing",
    [pytest.param(False, id="main returns"), pytest.param(True, id="main raises", marks=pytest.mark.long)],
)
def test_an_interruption_at_every_point(failing: bool) -> None:
    """Wherever in switch, create, destroy or the end of main an interruption arrives, nothing is lost."""
    interrupt_at_every_point(partial(run_script, script, failing=failing))


@pytest.mark.parametrize("gap", [1, 3, *(pytest.param(gap, marks=pytest.mark.long) for gap in (2, 5, 8, 13, 21))])
def test_two_interruptions_at_every_point(gap: int) -> None:
    """An interruption soon after another, while the first is dealt with, loses nothing either."""
    interrupt_twice_at_every_point(partial(run_script, script), gap)


# From a timer.

TESTS = str(Path(__file__).parents[1])


class Bombardment:
    """One run of random operations under interruptions from a timer."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.book = Book(ContextSwitchingEnvironment())
        self.armed = False
        self.handling = False
        self.delay = rng.uniform(1e-6, 600e-6)
        self.interval = rng.choice([0.0, 0.0, rng.uniform(150e-6, 600e-6)])
        """Between ticks; 0 for one only."""
        self.has_ended = False
        """Whether the function of main has ended."""
        self.left_for_the_end = 2
        """How many more interruptions the end of main gets. The third or fourth, if each hits the way from one guard to
        the next, would end it early, as happens on a slow machine.
        """
        self.everywhere = rng.random() < 0.3
        """Whether the code of the test is interrupted as well. If not, a tick in there comes again a bit later."""
        self.goes_on = rng.random() < 0.6
        """Whether main verifies what it finds after the operations, rather than end under fire."""

    def interrupt(self, _signal: int, frame: FrameType | None) -> None:
        if not self.armed or self.handling:  # a tick in this handler does not count
            return
        self.handling = True
        while frame is not None and frame.f_code is Bombardment.interrupt.__code__:  # a tick at its beginning
            frame = frame.f_back
        # Not in other code: Python drops what is raised in a callback of a weak reference, or of the collector.
        targets = (CORE, TESTS) if self.everywhere else CORE
        is_target = frame is not None and frame.f_code.co_filename.startswith(targets)
        if is_target and (self.left_for_the_end or not self.has_ended):
            self.left_for_the_end -= self.has_ended
            interruption = KeyboardInterrupt()
            self.book.interruptions.append(interruption)
            self.handling = False
            raise interruption
        signal.setitimer(signal.ITIMER_REAL, 10e-6, self.interval)
        self.handling = False

    def some_id(self) -> int:
        return self.rng.randrange(1, self.book.env._registry.next_id + 1)

    def step(self, me: int = 0) -> None:
        """Do one random thing that a context may do."""
        book, chance = self.book, self.rng.random()
        if chance < 0.3:
            book.create(self.body, self.rng.choice([None, None, None, CleanupError, GreenletExit]))
        elif chance < 0.8:
            book.switch(self.some_id(), me)
        else:
            book.destroy(self.some_id())

    def body(self, context_id: int) -> NoReturn:
        """Of a context: a few steps, then sleep."""
        for _ in range(self.rng.randrange(4)):
            if self.book.calm:
                break
            try:
                self.step(context_id)
            except greenctx.GreenctxError as error:
                self.book.caught += [error]
        self.book.sleep(context_id)

    def main(self) -> None:
        try:
            self.work()
            if self.goes_on:
                self.armed = False
                self.book.verify()
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(1e-6, 100e-6), self.interval)
        finally:
            self.has_ended = True

    def work(self) -> None:
        self.book.create(self.body)
        for _ in range(12):
            self.book.attempt(self.step)

    def run(self) -> None:
        with handling(self.interrupt):
            try:
                try:
                    self.armed = True
                    signal.setitimer(signal.ITIMER_REAL, self.delay, self.interval)
                    self.book.env.run_main_context(self.main)
                finally:
                    self.armed = False
            except BaseException as error:
                self.book.caught += [error]
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        self.book.verify_the_end()


def bombard(seed: int, runs: int) -> Counter[str]:
    """Bombard so many runs; the first failure ends them. Return how often each thing happened."""
    counts: Counter[str] = Counter()
    for number in range(runs):
        bombardment = Bombardment(random.Random(f"{seed}/{number}"))
        try:
            bombardment.run()
        except BaseException as error:
            error.add_note(f"in run {number} of seed {seed}: {vars(bombardment)}")
            raise
        book = bombardment.book
        counts["runs"] += 1
        counts["interrupted"] += bool(book.interruptions)
        counts["interruptions"] += len(book.interruptions)
        counts["verified by main after an interruption"] += bool(book.interruptions and book.verified)
        counts["contexts entered"] += sum(book.entered)
    return counts


def test_bombarded_from_a_timer(long: bool) -> None:
    """Random operations under random interruptions, one or many: nothing is lost."""
    counts = bombard(seed=20240501, runs=10_000 if long else 1500)
    print(dict(counts))
    assert counts["interrupted"] > 100


# Resumed by other code.


class Elsewhere(Exception):
    """An exception that other code throws into a greenlet."""


def test_main_resumed_by_somebody_else_becomes_the_active_context() -> None:
    """Main returns from its switch as the active context; the one that was active is suspended, and both go on."""

    def main(env: ContextSwitchingEnvironment) -> None:
        me, log = getcurrent(), []

        def entrypoint() -> None:
            me.switch("from somebody else")
            log.append(env.active_context_id)
            env.switch_context(0)

        context = env.create_context(entrypoint)
        env.switch_context(context)
        assert env.active_context_id == 0
        assert repr(env) == "<ContextSwitchingEnvironment active=0 suspended=[1]>"
        env.switch_context(context)
        assert log == [1]
        assert env.destroy_context(context)

    in_environment(main)


def test_an_exception_thrown_into_main_makes_it_the_active_context() -> None:
    """main's switch_context raises an exception that other code throws in; the active context can be destroyed."""

    def main(env: ContextSwitchingEnvironment) -> None:
        me, log = getcurrent(), []

        def entrypoint() -> None:
            try:
                me.throw(Elsewhere())
            finally:
                log.append("left")

        context = env.create_context(entrypoint)
        with pytest.raises(Elsewhere):
            env.switch_context(context)
        assert env.active_context_id == 0
        assert env.destroy_context(context)
        assert log == ["left"]

    in_environment(main)


def test_a_context_resumed_by_another_one_directly_becomes_the_active_context() -> None:
    """A bare switch between two contexts is followed by the environment as soon as the resumed one goes on."""

    def main(env: ContextSwitchingEnvironment) -> None:
        greenlets, log = {}, []

        def first() -> None:
            greenlets[1] = getcurrent()
            env.switch_context(0)
            log.append(env.active_context_id)
            env.switch_context(0)

        def second() -> None:
            greenlets[1].switch()
            log.append(env.active_context_id)
            env.switch_context(0)

        one, two = env.create_context(first), env.create_context(second)
        env.switch_context(one)
        env.switch_context(two)
        assert (log, env.active_context_id) == ([1], 0)
        env.switch_context(two)
        assert (log, env.active_context_id) == ([1, 2], 0)

    in_environment(main)


def test_a_greenlet_that_is_no_context_is_refused_while_it_runs() -> None:
    """A greenlet that the active context resumed may not call the environment, and may resume a context."""

    def main(env: ContextSwitchingEnvironment) -> None:
        me = getcurrent()

        def other() -> None:
            with pytest.raises(greenctx.NotTheActiveContext, match="context 0 is the active one") as caught:
                env.create_context(print)
            assert caught.value.context_id == 0
            me.switch()

        greenlet(other).switch()
        assert env.active_context_id == 0

    in_environment(main)


def test_a_start_while_main_waits_elsewhere_is_a_plain_one() -> None:
    """While main waits in something else than its switch_context, a context is started without main's help."""

    def main(env: ContextSwitchingEnvironment) -> None:
        me, greenlets, log = getcurrent(), {}, []

        def first() -> None:
            greenlets[1] = getcurrent()
            env.switch_context(0)
            env.switch_context(env.create_context(second))
            log.append("first again")
            me.switch("what main waits for")

        def second() -> None:
            log.append("second")
            env.switch_context(1)

        env.switch_context(env.create_context(first))
        hub = greenlet(lambda: greenlets[1].switch())
        assert hub.switch() == "what main waits for"
        assert log == ["second", "first again"]
        assert env.active_context_id == 0
        assert repr(env) == "<ContextSwitchingEnvironment active=0 suspended=[1, 2]>"

    in_environment(main)


def test_a_destroyer_that_is_thrown_into_leaves_a_victim_that_can_only_be_destroyed_again() -> None:
    """The victim's cleanup waits when its destroyer gets an exception: it can be destroyed, but not switched to."""

    def main(env: ContextSwitchingEnvironment) -> None:
        me, log = getcurrent(), []

        def entrypoint() -> None:
            try:
                env.switch_context(0)
            finally:
                try:
                    me.throw(Elsewhere())
                except ContextCanceled:
                    log.append("canceled once more")
                    raise

        context = env.create_context(entrypoint)
        env.switch_context(context)
        with pytest.raises(Elsewhere):
            env.destroy_context(context)
        assert env.active_context_id == 0
        with pytest.raises(SwitchTargetMissing, match="is being destroyed"):
            env.switch_context(context)
        assert env.active_context_id == 0
        assert env.destroy_context(context)
        assert not env.destroy_context(context)
        assert log == ["canceled once more"]

    in_environment(main)


def test_a_destroyer_that_is_resumed_destroys_on() -> None:
    """A destroyer resumed by other code while its victim's cleanup waits returns only when the victim is gone."""

    def main(env: ContextSwitchingEnvironment) -> None:
        me, log = getcurrent(), []

        def entrypoint() -> None:
            try:
                env.switch_context(0)
            finally:
                for _ in range(3):
                    try:
                        me.switch()
                    except ContextCanceled:
                        log.append("canceled once more")

        context = env.create_context(entrypoint)
        env.switch_context(context)
        assert env.destroy_context(context)
        assert log == ["canceled once more"] * 3

    in_environment(main)


def test_a_victim_that_goes_on_after_its_destroyer_left_ends_silently() -> None:
    """A victim whose destroyer got an exception is resumed by other code, ends, and hands control to main."""

    def main(env: ContextSwitchingEnvironment) -> None:
        me, greenlets, log = getcurrent(), {}, []

        def entrypoint() -> None:
            greenlets[1] = getcurrent()
            try:
                env.switch_context(0)
            finally:
                me.throw(Elsewhere())
                log.append("cleaned up")

        context = env.create_context(entrypoint)
        env.switch_context(context)
        with pytest.raises(Elsewhere):
            env.destroy_context(context)
        greenlets[1].switch()
        assert log == ["cleaned up"]
        assert env.active_context_id == 0
        assert not env.destroy_context(context)

    in_environment(main)


def test_an_error_handled_by_the_destroyer_is_in_the_context_of_the_victims_error() -> None:
    """A context destroyed in a `finally` fails: its error is raised, with the error already on its way in its chain."""

    def main(env: ContextSwitchingEnvironment) -> None:
        def entrypoint() -> None:
            try:
                env.switch_context(0)
            finally:
                raise CleanupError

        context = env.create_context(entrypoint)
        env.switch_context(context)
        on_its_way = LookupError()

        def fail() -> None:
            try:
                raise on_its_way
            finally:
                env.destroy_context(context)

        with pytest.raises(CleanupError) as caught:
            fail()
        assert on_its_way in everything_in([caught.value])

    in_environment(main)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.perf_counter()
    counts = bombard(options.seed, options.runs)
    print(f"Python {sys.version.split()[0]}, seed {options.seed}: no failure; {dict(counts)}")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
