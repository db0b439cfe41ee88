"""Host functions that switch: the whole stack, Python and guest, waits until another context switches back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from guests.embedding import IMPORTS, Embedding
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greenctx import ContextCanceled, current_environment
from greenctx.wasix import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import DrawFn

MOST = 7

# Each context dives as deep as the host says, through "nest", a host function that calls the guest's export again;
# waits there; and on its way up adds what each level has kept in a local.
DIVERS = f"""(module {IMPORTS}
  (import "host" "depth" (func $depth (result i32)))
  (import "host" "nest" (func $nest (param i32) (result i32)))
  (import "host" "wait" (func $wait (result i32)))
  (import "host" "finish" (func $finish (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 1 funcref)
  (elem (i32.const 0) $diver)
  (func $dive (export "dive") (param $depth i32) (result i32) (local $kept i32)
    (local.set $kept (i32.mul (local.get $depth) (local.get $depth)))
    (if (result i32) (local.get $depth)
      (then (call $nest (i32.sub (local.get $depth) (i32.const 1))))
      (else (call $wait)))
    (i32.add (local.get $kept)))
  (func $diver (call $finish (call $dive (call $depth))) unreachable)
  (func (export "create") (result i64)
    (if (call $create (i32.const 16) (i32.const 0)) (then unreachable))
    (i64.load (i32.const 16)))
  (func (export "switch") (param i64)
    (if (call $switch (local.get 0)) (then unreachable))))
"""


@st.composite
def depths_and_order(draw: DrawFn) -> tuple[list[int], list[int]]:
    depths = draw(st.lists(st.integers(0, 3), min_size=1, max_size=MOST))
    return depths, draw(st.permutations(range(1, len(depths) + 1)))


@settings(max_examples=60)
@given(depths_and_order(), st.booleans())
@example(([0] * MOST, [*range(1, MOST + 1)]), False)
@example(([0] * MOST, [*range(MOST, 0, -1)]), False)
@example(([3] * MOST, [*range(1, MOST + 1)]), True)
@example(([3] * MOST, [*range(MOST, 0, -1)]), True)
@example(([2, 0, 1], [2, 3, 1]), False)
def test_any_order(depths_and_order: tuple[list[int], list[int]], from_the_guest: bool) -> None:
    """Contexts suspended in host functions, and in nested guest calls, may finish in any order, with the right values.
    Host and guest may switch alike."""
    depths, order = depths_and_order
    embedding = Embedding()
    env, finished = embedding.env, []

    def nest(depth: int) -> int:
        result = embedding.call("dive", depth)
        assert isinstance(result, int)
        return result

    def wait() -> int:
        me = env.active_context_id
        env.switch_context(0)
        assert env.active_context_id == me
        return me * 1000

    def finish(result: int) -> None:
        finished.append((env.active_context_id, result))
        env.switch_context(0)

    def main() -> None:
        switch: Callable[[int], object] = env.switch_context
        if from_the_guest:
            switch = lambda context_id: embedding.call("switch", context_id)  # noqa: E731
        ids = [embedding.call("create") for _ in depths]
        assert ids == sorted(order)
        for context_id in (*ids, *order):
            switch(context_id)

    embedding.define("depth", "-> i32", lambda: depths[env.active_context_id - 1])
    embedding.define("nest", "i32 -> i32", nest)
    embedding.define("wait", "-> i32", wait)
    embedding.define("finish", "i32 ->", finish)
    embedding.load(DIVERS).run(main)
    squares = {context_id: sum(n * n for n in range(depths[context_id - 1] + 1)) for context_id in order}
    assert finished == [(context_id, context_id * 1000 + squares[context_id]) for context_id in order]


def test_switch_in_the_middle_of_a_host_function() -> None:
    """A host function of a program finds the environment by current_environment, and goes on after its switch."""
    told: list[str] = []

    def tell(what: int) -> None:
        told.append(f"{what} begins")
        current_environment().switch_context(1 - current_environment().active_context_id)
        told.append(f"{what} goes on")

    embedding = Embedding()
    embedding.define("tell", "i32 ->", tell)
    embedding.load(
        f"""(module {IMPORTS} (import "host" "tell" (func $tell (param i32)))
          (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $other))
          (func $other (call $tell (i32.const 10)) (call $tell (i32.const 11)) unreachable)
          (func (export "main")
            (drop (call $create (i32.const 0) (i32.const 0)))
            (call $tell (i32.const 1)) (call $tell (i32.const 2))))"""
    ).run_guest("main")
    assert told == ["1 begins", "10 begins", "1 goes on", "2 begins", "10 goes on", "11 begins", "2 goes on"]


def test_canceled_in_a_host_function() -> None:
    """A context destroyed in a host function unwinds it; of the guest no more code runs, at any level of nesting."""
    embedding = Embedding()
    unwound: list[str] = []

    def nest(depth: int) -> int:
        try:
            result = embedding.call("dive", depth)
            assert isinstance(result, int)
            return result
        finally:
            unwound.append(f"nest {depth}")

    def wait() -> int:
        try:
            embedding.env.switch_context(0)
        except ContextCanceled:
            unwound.append("wait")
            raise
        return 0

    def main() -> None:
        context_id = embedding.call("create")
        embedding.call("switch", context_id)
        assert embedding.env.destroy_context(context_id)
        assert unwound == ["wait", "nest 0", "nest 1"]
        assert embedding.call("create") == context_id + 1  # and the guest is as good as before

    embedding.define("depth", "-> i32", lambda: 2)
    embedding.define("nest", "i32 -> i32", nest)
    embedding.define("wait", "-> i32", wait)
    embedding.define("finish", "i32 ->", lambda _: pytest.fail("the guest ran on"))
    embedding.load(DIVERS).run(main)


def test_deep_nesting() -> None:
    """A hundred guest calls, each within a host function of the one before, all in a context that switches away."""
    embedding = Embedding()
    embedding.define("depth", "-> i32", lambda: 100)
    embedding.define("nest", "i32 -> i32", lambda depth: embedding.call("dive", depth))
    embedding.define("wait", "-> i32", lambda: embedding.switch_and_return(0, 5))
    finished: list[int] = []

    def finish(result: int) -> None:
        finished.append(result)
        embedding.env.switch_context(0)

    embedding.define("finish", "i32 ->", finish)
    embedding.load(DIVERS)

    def main() -> None:
        context_id = embedding.call("create")
        for _ in range(2):
            embedding.call("switch", context_id)

    embedding.run(main)
    assert finished == [5 + sum(n * n for n in range(101))]


def test_start_function_switches() -> None:
    """The start function of a module may call imports that switch, in main and in another context."""
    embedding = Embedding()
    told: list[int] = []

    def tell() -> None:
        told.append(embedding.env.active_context_id)
        embedding.env.switch_context(1 - told[-1])
        told.append(embedding.env.active_context_id)

    def entrypoint() -> None:
        embedding.load(module)
        embedding.env.switch_context(0)

    def main() -> None:
        embedding.env.create_context(entrypoint)
        embedding.load(module)
        embedding.call("after")
        embedding.env.switch_context(1)
        embedding.call("after")

    embedding.define("tell", "->", tell)
    module = '(module (import "host" "tell" (func $tell)) (start $tell) (func (export "after")))'
    embedding.run(main)
    assert told == [0, 1, 0, 1]


def test_call_from_contexts_made_in_python() -> None:
    """Contexts of Python and of guests are the same thing, and switch to one another."""
    embedding = Embedding()
    env = embedding.env
    embedding.define("swap", "i32 -> i32", lambda value: embedding.swap(value * 2))
    embedding.load(
        '(module (import "host" "swap" (func $swap (param i32) (result i32))) (export "swap" (func $swap))'
        '(func (export "add") (param i32 i32) (result i32) (i32.add (call $swap (local.get 0)) (local.get 1))))'
    )
    results: list[int] = []

    def other() -> None:
        results.append(embedding.call("add", 10, 1))
        results.append(embedding.call("swap", 7))

    def main() -> None:
        env.create_context(other)
        results.append(embedding.call("add", 20, 2))
        results.append(embedding.call("add", 30, 3))

    embedding.run(main)
    assert results == [42, 21, 63]


def test_greenlet_that_nobody_knows_any_more() -> None:
    """A greenlet outside of any environment unwinds if it is forgotten while its guest waits in a host function."""
    embedding, main, unwound = Embedding(), getcurrent(), []

    def wait() -> None:
        try:
            main.switch()
        except GreenletExit:
            unwound.append("host function")
            raise

    embedding.define("wait", "->", wait)
    embedding.load('(module (import "host" "wait" (func $wait)) (func (export "call") (call $wait)))')
    forgotten = greenlet(lambda: call(embedding.store, embedding.func("call")))
    forgotten.switch()
    assert not unwound
    del forgotten
    assert unwound == ["host function"]
    embedding.store.close()
