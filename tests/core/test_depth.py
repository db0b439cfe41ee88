"""Depth and size: chains of starts, many contexts, deep stacks, the recursion limit."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from contexts import in_environment
from leakcheck import collector_off

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Environment = ContextSwitchingEnvironment

LIMIT = 1000
"""The recursion limit of these tests, which is Python's own default."""


@pytest.fixture(autouse=True)
def _recursion_limit() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(LIMIT)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def deep(frames: int, call: Callable[[], object]) -> Any:
    """Call so many Python frames deeper."""
    return deep(frames - 1, call) if frames else call()


def frames_left() -> int:
    """How many more Python frames there may be here."""
    try:
        return 1 + frames_left()
    except RecursionError:
        return 0


def test_each_of_many_contexts_starts_the_next(long: bool) -> None:
    """A chain of starts nests neither Python frames nor the native stack: each begins at main's depth."""
    count, started, frames = 100_000 if long else 20_000, 0, set()

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            nonlocal started
            started += 1
            if started % 2_000 == 0:
                frames.add(frames_left())
            env.switch_context(env.create_context(entrypoint) if started < count else 0)

        env.switch_context(env.create_context(entrypoint))
        assert env.active_context_id == 0

    in_environment(main)
    assert started == count
    assert len(frames) == 1, "the depth at which contexts begin is not the same for all"


def test_many_contexts_that_were_created_before_start_each_other(long: bool) -> None:
    """A chain through contexts that exist already is as flat as one that creates them."""
    count, started = 100_000 if long else 20_000, 0

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            nonlocal started
            started += 1
            env.switch_context((env.active_context_id + 1) % (count + 1))

        for _ in range(count):
            env.create_context(entrypoint)
        env.switch_context(1)

    in_environment(main)
    assert started == count


def test_a_start_interrupted_by_the_end_of_another_context_stays_flat() -> None:
    """Contexts that end by an error in main do not make the next chain deeper."""
    depths = []

    def main(env: Environment) -> None:
        def fail() -> None:
            raise LookupError

        def entrypoint() -> None:
            depths.append(frames_left())
            env.switch_context(0)

        def starter() -> None:
            env.switch_context(env.create_context(entrypoint))

        for _ in range(3):
            with pytest.raises(LookupError):
                env.switch_context(env.create_context(fail))
            env.switch_context(env.create_context(starter))

    in_environment(main)
    assert len(set(depths)) == 1


class TestLinear:
    """Time that grows with the square of the number of contexts would show as a ratio of 16 between n and 4n."""

    @staticmethod
    def ratio(work: Callable[[int], object], n: int) -> float:
        """Return how much longer 4n takes than n, in processor time: the least ratio seen on a shared machine."""

        def seconds(size: int) -> float:
            began = time.process_time()
            work(size)
            return time.process_time() - began

        with collector_off():
            work(n)
            return min(seconds(4 * n) for _ in range(3)) / min(seconds(n) for _ in range(6))

    @staticmethod
    def suspend(env: Environment, count: int) -> None:
        def entrypoint() -> None:
            env.switch_context(0)

        for _ in range(count):
            env.switch_context(env.create_context(entrypoint))

    def test_creating_and_ending_with_suspended_contexts(self, long: bool) -> None:
        """Creating n suspended contexts and destroying them all at the end of main takes time in proportion to n."""

        def work(count: int) -> None:
            in_environment(lambda env: self.suspend(env, count))

        assert self.ratio(work, 3_000 if long else 1_000) < 8

    def test_destroying_in_reverse(self, long: bool) -> None:
        """Destroying n suspended contexts, the youngest first, takes time in proportion to n."""

        def work(count: int) -> None:
            def main(env: Environment) -> None:
                self.suspend(env, count)
                for context in range(count, 0, -1):
                    assert env.destroy_context(context)

            in_environment(main)

        assert self.ratio(work, 3_000 if long else 1_000) < 8

    def test_a_limit_does_not_count_one_by_one(self, long: bool) -> None:
        """With max_contexts, creating n contexts takes time in proportion to n, too."""

        def work(count: int) -> None:
            env = ContextSwitchingEnvironment(max_contexts=count)
            env.run_main_context(self.suspend, env, count)

        assert self.ratio(work, 3_000 if long else 1_000) < 8


def test_many_suspended_contexts_are_torn_down(long: bool) -> None:
    """The end of main unwinds each of very many suspended contexts, in ascending order of id."""
    count, left = 100_000 if long else 20_000, []

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            try:
                env.switch_context(0)
            finally:
                left.append(env.active_context_id)

        for _ in range(count):
            env.switch_context(env.create_context(entrypoint))

    in_environment(main)
    assert left == list(range(1, count + 1))


def test_a_context_suspended_500_frames_deep() -> None:
    """A context waits 500 Python frames deep, goes on there, and unwinds every frame when it is destroyed."""
    unwound = [0]

    def main(env: Environment) -> None:
        def descend(frames: int) -> int:
            try:
                if frames:
                    return 1 + descend(frames - 1)
                env.switch_context(0)
                return 0
            finally:
                unwound[0] += 1

        def entrypoint() -> None:
            assert descend(500) == 500
            descend(500)

        context = env.create_context(entrypoint)
        env.switch_context(context)
        assert unwound == [0]
        env.switch_context(context)
        assert unwound == [501]
        env.destroy_context(context)
        assert unwound == [1002]

    in_environment(main)


def test_memory_for_frames_is_handed_from_one_context_to_the_next() -> None:
    """(On the compiled path.) However deep the one before went, and however it ended, a context finds its frames."""

    def main(env: Environment) -> None:
        def entrypoint() -> None:
            me = env.active_context_id
            facts = [*range(me, me + 50)]
            deep(me * 40 % 600, lambda: env.switch_context(0))  # for which one chunk of memory may do, or not
            assert facts == [*range(me, me + 50)]
            raise ZeroDivisionError(me)

        alive: list[int] = []
        for step in range(400):
            if step % 7 == 0:
                with pytest.raises(ContextEntrypointReturned):
                    env.switch_context(env.create_context([].copy))  # which needs no frame
            alive.append(env.create_context(entrypoint))
            env.switch_context(alive[-1])
            while len(alive) > step % 5:
                context = alive.pop(0)
                if step % 2:
                    assert env.destroy_context(context)
                else:
                    with pytest.raises(ZeroDivisionError, match=f"^{context}$"):
                        env.switch_context(context)

    in_environment(main)


def test_main_500_frames_deep_when_it_starts_contexts() -> None:
    """Contexts begin at main's depth and have what main has left of the recursion limit; so does a chain of them."""

    def left_in_a_chain(env: Environment) -> list[int]:
        found: list[int] = []

        def entrypoint() -> None:
            found.append(frames_left())
            env.switch_context(env.create_context(entrypoint) if len(found) < 1000 else 0)

        env.switch_context(env.create_context(entrypoint))
        return found

    def main(env: Environment) -> None:
        here = frames_left()
        shallow = left_in_a_chain(env)
        below = deep(500, lambda: left_in_a_chain(env))
        for found in (shallow, below):
            assert max(found) - min(found) <= 2, "not the same depth for all (the first is started with frames less)"
        assert here - 10 < shallow[0] <= here, "not main's own depth"
        assert shallow[0] - 505 < below[0] < shallow[0] - 495, "not the depth at which main waits"

    in_environment(main)


def test_the_recursion_limit_ends_a_context_like_any_function() -> None:
    """A RecursionError in a context arrives in main; the others, and the environment, are as before."""

    def main(env: Environment) -> None:
        def endless() -> None:
            endless()

        def sleeper() -> None:
            while True:
                env.switch_context(0)

        other, context = env.create_context(sleeper), env.create_context(endless)
        env.switch_context(other)
        with pytest.raises(RecursionError):
            env.switch_context(context)
        assert env.active_context_id == 0
        env.switch_context(other)
        assert env.destroy_context(other)

    in_environment(main)


@contextmanager
def almost_no_frames_left(spare: int) -> Iterator[None]:
    """Set the recursion limit to that many frames below the caller's."""
    depth = 0
    frame = sys._getframe(2)
    while frame is not None:
        depth += 1
        frame = frame.f_back  # type: ignore[assignment]
    sys.setrecursionlimit(depth + spare)
    try:
        yield
    finally:
        sys.setrecursionlimit(LIMIT)


@pytest.mark.parametrize("spare", range(2, 16))
def test_the_recursion_limit_within_a_call_loses_nothing(spare: int) -> None:
    """Where a call of the environment itself meets the recursion limit, nothing stays half done."""
    entered, left = [0] * 4, [0] * 4

    def main(env: Environment) -> None:
        def create() -> int:
            def entrypoint() -> None:
                try:
                    entered[context] += 1
                    while True:
                        env.switch_context(0)
                finally:
                    left[context] += 1

            context = env.create_context(entrypoint)
            return context

        one, two, three = create(), create(), create()
        env.switch_context(one)
        env.switch_context(three)
        for call, context in ((env.switch_context, one), (env.switch_context, two), (env.destroy_context, three)):
            try:
                with almost_no_frames_left(spare):
                    call(context)
            except RecursionError:
                pass
            assert env.active_context_id == 0
        for context in (one, two, three):
            waits = entered[context] > left[context]
            unstarted = context in env._registry.unstarted
            assert env.destroy_context(context) is (waits or unstarted)
            assert not env.destroy_context(context)

    in_environment(main)
    assert entered == left
    assert max(left) == 1
