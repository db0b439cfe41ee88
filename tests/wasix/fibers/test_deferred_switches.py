"""Switches from guest to guest whose greenlet switch is deferred: a guest runs on another context's greenlet.

Python code must not notice. Each test runs with deferred switches and without.
"""

from __future__ import annotations

import signal
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import greenlet as greenlets
import pytest
from greenlet import getcurrent
from guests.embedding import IMPORTS, signature
from wasmtime import Trap

from greenctx import ContextEntrypointReturned, current_environment
from greenctx._core.switching import COMPILED
from greenctx.errors import GuestException, TimeLimitExceeded
from greenctx.wasix import Caller, Limits, Program, call
from greenctx.wasix._fibers.stores import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 1000

# Main creates and starts contexts 1 and 2, which call `ready`. Then main switches to context 1 for ever.
HEAD = f"""(module {IMPORTS}
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "host" "begin" (func $begin))
  (import "host" "host" (func $host (param i32) (result i32)))
  (memory (export "memory") 1) (global $count (export "count") (mut i32) (i32.const 0))
  (table (export "__indirect_function_table") 3 funcref) (elem (i32.const 1) $one $two)
  (func $check (param i32) (if (local.get 0) (then unreachable)))
  (func $to (param i64) (call $check (call $switch (local.get 0))))
  (func (export "_start")
    (call $begin)
    (drop (call $create (i32.const 0) (i32.const 1))) (call $to (i64.const 1))
    (drop (call $create (i32.const 0) (i32.const 2))) (call $to (i64.const 2))
    (loop $again (drop (call $host (i32.const 0))) (call $to (i64.const 1)) (br $again)))
  (func $one (call $to (i64.const 0)) (loop $again ONE (call $to (i64.const 2)) (br $again)))
  (func $two (call $to (i64.const 0)) (loop $again (call $count_up) TWO (call $to (i64.const 0)) (br $again)))
  (func $count_up (global.set $count (i32.add (global.get $count) (i32.const 1))))
  (func $after (param i32) (result i32) (i32.ge_u (global.get $count) (local.get 0)))
  MORE)"""
"""Main switches to context 1, that to context 2, and that to main, again and again."""

AFTER_A_WHILE = "(if (call $after (i32.const 20)) (then {}))"
EXIT = AFTER_A_WHILE.format("(call $exit (i32.const 7))")


class Ring:
    """A program of that guest."""

    def __init__(
        self, defers: bool, one: str = "", two: str = "", more: str = "", head: str = HEAD, **settings: Any
    ) -> None:
        self.defers = defers
        self.host: Callable[[int], int] = lambda _: 0
        self.store: Any = None
        self.nested: Any = None
        self.program = Program(head.replace("ONE", one).replace("TWO", two).replace("MORE", more).encode(), **settings)
        self.program.linker.define_func("host", "begin", signature("->"), self._begin, access_caller=True)
        self.program.linker.define_func("host", "host", signature("i32 -> i32"), lambda number: self.host(number))

    def _begin(self, caller: Caller) -> None:
        state_of(caller.store).defers_switches = self.defers
        self.store = caller.store
        self.nested = caller.get("nested")

    def run(self) -> int:
        with self.program:
            return self.program.run()


@pytest.fixture(params=[True, False], ids=["deferred", "not deferred"])
def defers(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.skipif(not COMPILED, reason="the pure Python core switches greenlets each time")
def test_greenlets_are_not_switched() -> None:
    """Guests that only switch to one another need next to no switch of greenlets."""
    counts = {}
    for defers in (True, False):
        switches = 0

        def trace(_event: str, _greenlets: object) -> None:
            nonlocal switches
            switches += 1

        head = HEAD.replace("(drop (call $host (i32.const 0)))", "")
        ring = Ring(defers, two=EXIT.replace("20", str(TIMES)), head=head)
        greenlets.settrace(trace)
        try:
            assert ring.run() == 7
        finally:
            greenlets.settrace(None)
        counts[defers] = switches
    assert counts[False] > 3 * TIMES
    assert counts[True] < TIMES / 10


def test_host_functions_run_on_their_context_s_greenlet(defers: bool) -> None:
    """A host function runs with its context's variables, as the active context, and on its context's Python stack."""
    variable: ContextVar[int] = ContextVar("variable")
    ring = Ring(defers, one="(drop (call $host (i32.const 1)))", two="(drop (call $host (i32.const 2)))" + EXIT)
    seen: dict[int, set[object]] = {0: set(), 1: set(), 2: set()}

    def host(number: int) -> int:
        environment = current_environment()
        assert environment.active_context_id == number
        assert variable.get(number) == number
        variable.set(number)
        seen[number].add(getcurrent())
        [active] = [part for part in environment.format_stacks().split("\ncontext ") if ", active, " in part]
        assert "in host" in active
        return 0

    ring.host = host
    assert ring.run() == 7
    assert [len(greenlets) for greenlets in seen.values()] == [1, 1, 1]
    assert len(set.union(*seen.values())) == 3


@pytest.mark.parametrize("context_id", [0, 1])
def test_a_guest_destroys_the_context_whose_greenlet_runs_it(defers: bool, context_id: int) -> None:
    """The destroyed context unwinds where it waits, and the guest goes on."""
    two = AFTER_A_WHILE.format(
        f"(call $check (i32.ne (call $destroy (i64.const {context_id})) (i32.const {0 if context_id else 28})))"
        f"(if (i32.ne (call $switch (i64.const 1)) (i32.const {28 if context_id else 0})) (then unreachable))"
        "(call $exit (i32.const 7))"
    )
    assert Ring(defers, two=two).run() == 7


def test_a_trap(defers: bool) -> None:
    """A trap of a guest that another greenlet runs is raised from main, with the frames of its own stack only."""
    with pytest.raises(Trap) as raised:
        Ring(defers, two=AFTER_A_WHILE.format("unreachable")).run()
    assert [frame.func_name for frame in raised.value.frames] == ["two"]


def test_an_uncaught_exception(defers: bool) -> None:
    """Main raises an exception that the guest throws and nothing catches."""
    more = '(tag $thrown (export "thrown") (param i32))'
    with pytest.raises(GuestException) as raised:
        Ring(defers, two=AFTER_A_WHILE.format("(throw $thrown (i32.const 42))"), more=more).run()
    assert raised.value.payload == (42,)


def test_an_entrypoint_returns(defers: bool) -> None:
    with pytest.raises(ContextEntrypointReturned) as raised:
        Ring(defers, two=AFTER_A_WHILE.format("return")).run()
    assert raised.value.context_id == 2


@pytest.mark.parametrize("context_id", [0, 1, 2])
def test_a_host_function_raises(defers: bool, context_id: int) -> None:
    """Main raises the exception of a host function in any context, with the frames of its own greenlet."""
    ring = Ring(defers, one="(drop (call $host (i32.const 1)))", two="(drop (call $host (i32.const 2)))")
    calls = 0

    def host(number: int) -> int:
        nonlocal calls
        calls += number == context_id
        if calls > 20:
            raise LookupError(number)
        return 0

    ring.host = host
    with pytest.raises(LookupError) as raised:
        ring.run()
    assert raised.value.args == (context_id,)


def test_errnos(defers: bool) -> None:
    """A guest that another greenlet runs switches to itself, and to an unknown id."""
    two = (
        "(call $check (call $switch (i64.const 2)))"
        "(call $check (i32.ne (call $switch (i64.const 77)) (i32.const 28)))"
        "(call $check (i32.ne (call $switch (i64.const -1)) (i32.const 28)))" + EXIT
    )
    assert Ring(defers, two=two).run() == 7


def test_start_of_a_context(defers: bool) -> None:
    """A guest that another greenlet runs starts a context, which switches on."""
    two = (
        "(call $check (call $create (i32.const 0) (i32.const 0))) (call $to (i64.load (i32.const 0)))"
        "(call $check (call $destroy (i64.load (i32.const 0))))" + EXIT
    )
    more = "(elem (i32.const 0) $other) (func $other (loop $again (call $to (i64.const 2)) (br $again)))"
    assert Ring(defers, two=two, more=more).run() == 7


def test_a_context_that_waits_in_python(defers: bool) -> None:
    """Guests switch to contexts that wait in a host function, and these to guests."""
    two = "(if (i32.eqz (i32.and (global.get $count) (i32.const 3))) (then (drop (call $host (i32.const 2)))))"
    ring = Ring(defers, two=two + EXIT)

    def host(number: int) -> int:
        current_environment().switch_context(1 if number == 0 else 0)
        return 0

    ring.host = host
    assert ring.run() == 7


def test_a_nested_call_switches(defers: bool) -> None:
    """A guest that a host function calls waits for its context, not the one below it."""
    more = """(func (export "nested") (result i32) (local $i i32)
      (loop $again
        (call $to (i64.const 0))
        (br_if $again (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5))))
      (local.get $i))"""
    ring = Ring(defers, two="(call $check (i32.ne (call $host (i32.const 2)) (i32.const 5)))" + EXIT, more=more)

    ring.host = lambda number: call(ring.store, ring.nested) if number else 0
    assert ring.run() == 7


SPIN = "(if (call $after (i32.const 20)) (then (loop $spin (br $spin))))"


def test_a_time_limit(defers: bool) -> None:
    """The time limit ends a guest that another greenlet runs, and that computes for ever."""
    with pytest.raises(TimeLimitExceeded):
        Ring(defers, two=SPIN, limits=Limits(seconds=0.1)).run()


@pytest.mark.parametrize("two", [SPIN, ""], ids=["computing", "switching"])
def test_an_interruption(defers: bool, two: str) -> None:
    """Ctrl-C ends it, while it computes or switches for ever."""
    former = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt):
            Ring(defers, two=two).run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def test_an_error_on_the_way_to_a_host_function(defers: bool) -> None:
    """An error that arrives with the resumption is raised in place of the host function, where that was called."""
    ring = Ring(defers, one="(drop (call $host (i32.const 1)))", two="(drop (call $host (i32.const 2)))" + EXIT)
    where: dict[int, object] = {}
    caught: list[object] = []

    def host(number: int) -> int:
        where[number] = getcurrent()
        return 0

    def trace(_event: str, greenlets_: tuple[object, object]) -> None:
        if greenlets_[1] is where.get(2):
            where[2] = None
            caught.append(current_environment().active_context_id)
            raise LookupError("on the way")

    ring.host = host
    greenlets.settrace(trace)
    try:
        with pytest.raises(LookupError, match="on the way"):
            ring.run()
    finally:
        greenlets.settrace(None)
    assert len(caught) == 1


def test_gevent_resumes_main_with_a_timeout(defers: bool) -> None:
    """Main gets it in its own context_switch, while another context sleeps in a host function."""
    gevent = pytest.importorskip("gevent")
    ring = Ring(defers, two=AFTER_A_WHILE.format("(drop (call $host (i32.const 2)))"))

    def host(number: int) -> int:
        if number == 2:
            gevent.sleep(10)
        return 0

    ring.host = host

    def run() -> None:
        with gevent.Timeout(0.1):
            ring.run()

    with pytest.raises(gevent.Timeout):
        gevent.spawn(run).get()
