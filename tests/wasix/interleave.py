"""Random interleaving of many guest calls in one store: ``python interleave.py SEED OPERATIONS [FAULT...]``.

Contexts run a guest that calls back for every step. The host then switches, creates, destroys, calls the guest again,
raises, collects garbage, or lets the guest trap, grow its memory or return. Every call in progress has a cookie and
counts its steps in guest locals; a wrong value anywhere ends the run with an AssertionError. FAULTs come on top:
``recursion`` and ``memory`` (a RecursionError or MemoryError while a guest is called), ``interrupt`` (a signal's
KeyboardInterrupt at any moment). Prints what happened as JSON.
"""

from __future__ import annotations

import ctypes
import gc
import json
import random
import signal
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wasmtime import Engine, Func, FuncType, Module, Store, Trap, ValType

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment, EnvironmentNotRunning
from greenctx.wasix import Linker, call

if TYPE_CHECKING:
    from collections.abc import Callable

GUEST = """(module
  (import "host" "begin" (func $begin (result i64)))
  (import "host" "step" (func $step (param i64 i32 f64) (result i32)))
  (memory (export "memory") 1 2000)
  (table (export "entrypoints") 1 funcref)
  (elem (i32.const 0) $entrypoint)
  (func $steps (param $cookie i64) (param $count i32) (result i64)
    (local $i i32) (local $action i32)
    (loop $next
      (local.set $action (call $step (local.get $cookie) (local.get $i) (f64.convert_i32_u (local.get $i))))
      (if (i32.eq (local.get $action) (i32.const 1)) (then unreachable))
      (if (i32.eq (local.get $action) (i32.const 2)) (then (drop (memory.grow (i32.const 1)))))
      (if (i32.eq (local.get $action) (i32.const 3)) (then (return (i64.const -1))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (local.get $count))))
    (i64.add (local.get $cookie) (i64.extend_i32_u (local.get $i))))
  (func $deep (param $cookie i64) (param $count i32) (param $depth i32) (result i64)
    (if (result i64) (local.get $depth)
      (then (i64.add (i64.const 1)
        (call $deep (local.get $cookie) (local.get $count) (i32.sub (local.get $depth) (i32.const 1)))))
      (else (call $steps (local.get $cookie) (local.get $count)))))
  (func (export "nested") (param $count i32) (param $depth i32) (result i64)
    (call $deep (call $begin) (local.get $count) (local.get $depth)))
  (func $entrypoint (drop (call $steps (call $begin) (i32.const -1)))))"""

MAX_CONTEXTS = 60
MAX_NESTING = 4


class HostError(Exception):
    """What host functions raise in a run."""


EXPECTED = (HostError, Trap, ContextEntrypointReturned, RecursionError, MemoryError, ctypes.ArgumentError)


class Run:
    """One store, one environment, one stream of random numbers."""

    def __init__(self, seed: int, operations: int, faults: list[str]) -> None:
        self.random = random.Random(seed)
        self.operations = operations
        self.faults = faults
        self.counts: Counter[str] = Counter()
        self.steps: dict[int, int] = {}
        self.contexts: list[int] = []
        self.nesting: Counter[int] = Counter()
        self.may_switch = True
        self.environment = ContextSwitchingEnvironment()
        engine = Engine()
        self.store = Store(engine)
        linker = Linker(engine)
        i32, i64, f64 = ValType.i32(), ValType.i64(), ValType.f64()
        linker.define_func("host", "begin", FuncType([], [i64]), self.begin)
        linker.define_func("host", "step", FuncType([i64, i32, f64], [i32]), self.step)
        exports = linker.instantiate(self.store, Module(engine, GUEST)).exports(self.store)
        nested, entrypoint = exports["nested"], exports["entrypoints"].get(self.store, 0)  # type: ignore[union-attr]
        assert isinstance(nested, Func)
        assert isinstance(entrypoint, Func)
        self.nested, self.entrypoint = nested, entrypoint

    def begin(self) -> int:
        """Give a call of the guest its cookie."""
        cookie = len(self.steps) * 1_000_003
        self.steps[cookie] = 0
        self.counts["guest calls"] += 1
        return cookie

    def step(self, cookie: int, i: int, as_float: float) -> int:
        """Check the guest's locals, do something, and say what the guest shall do."""
        assert i == self.steps[cookie] == as_float, (cookie, i, as_float, self.steps[cookie])
        self.steps[cookie] = i + 1
        if not self.may_switch:
            return 0
        self.act()
        return self.random.choices([0, 1, 2, 3], [1000, 2, 1, 2])[0]

    def act(self) -> None:
        """One random operation of the active context, or of main."""
        self.counts["operations"] += 1
        actions: list[tuple[Callable[[], object], int]] = [
            (self.switch, 600),
            (self.create, 60),
            (self.destroy, 40),
            (self.call_guest, 120),
            (self.raise_error, 10),
            (gc.collect, 1),
            (self.fault, 8 if self.faults else 0),
        ]
        [(action, _)] = self.random.choices(actions, [weight for _, weight in actions])
        action()

    def switch(self) -> None:
        environment = self.environment
        target = self.random.choice([0, *self.contexts])
        if environment._can_switch_to(target):
            self.counts["switches"] += 1
            environment.switch_context(target)

    def create(self) -> None:
        if len(self.contexts) >= MAX_CONTEXTS:
            self.contexts = [one for one in self.contexts if self.environment._can_switch_to(one)]
        if len(self.contexts) < MAX_CONTEXTS:
            self.counts["contexts"] += 1
            with suppress(EnvironmentNotRunning):  # at its end: a RecursionError took the place of a cancellation
                self.contexts.append(self.environment.create_context(lambda: call(self.store, self.entrypoint)))

    def destroy(self) -> None:
        target = self.random.choice([-1, *self.contexts])
        if target != self.environment.active_context_id:
            self.counts["destroyed"] += self.environment.destroy_context(target)

    def call_guest(self) -> None:
        """Call the guest from a host function; check the result, or that the error is one of ours."""
        here = self.environment.active_context_id
        if self.nesting[here] >= MAX_NESTING:
            return
        self.nesting[here] += 1
        count, depth = self.random.randint(1, 6), self.random.randint(0, 50)
        cookie = len(self.steps) * 1_000_003
        try:
            result = call(self.store, self.nested, count, depth)
            if result != depth - 1:  # it was not told to return early
                assert result == cookie + count + depth, (result, cookie, count, depth)
        except (HostError, Trap, ContextEntrypointReturned) as error:
            if here != 0 and self.random.random() < 0.5:
                raise
            self.counts[f"caught {type(error).__name__}"] += 1
        finally:
            self.nesting[here] -= 1

    def raise_error(self) -> None:
        raise HostError

    def fault(self) -> None:
        """An error that Python raises by itself, in the middle of things."""
        kind = self.random.choice(self.faults)
        if kind == "recursion":
            with suppress(RecursionError):
                self.recurse()
        elif kind == "memory":
            self.exhaust_memory()

    def recurse(self, levels: int = 0) -> None:
        """Call the guest at each of the last depths before the recursion limit: whatever it calls fails once."""
        try:
            self.recurse(levels + 1)
        except RecursionError:
            self.counts["RecursionError"] += 1
            if levels % 50:
                call(self.store, self.nested, 1, 0)  # raises again until there is room for all that it does
            raise

    def exhaust_memory(self) -> None:
        """Let one allocation in the middle of a guest call fail (but none in a switch: greenlet itself aborts then)."""
        from _testcapi import remove_mem_hooks, set_nomemory  # type: ignore[import-not-found]

        start = self.random.randint(1, 300)
        self.may_switch = False
        set_nomemory(start, start + 1)
        try:
            call(self.store, self.nested, 1, 0)
        except (MemoryError, ctypes.ArgumentError, SystemError):  # ctypes and CPython raise these, too
            self.counts["MemoryError"] += 1
        finally:
            remove_mem_hooks()
            self.may_switch = True

    def main(self) -> None:
        """Main of the environment: operate, and go on after every error that may come out of a context."""
        while self.counts["operations"] < self.operations:
            try:
                self.act()
            except EXPECTED as error:
                self.counts[f"main got {type(error).__name__}"] += 1
            except KeyboardInterrupt:
                self.counts["KeyboardInterrupt"] += 1

    def interrupt(self, *_: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.02))
        if self.may_switch and not self.random.getrandbits(1):
            raise KeyboardInterrupt


def main(seed: int, operations: int, faults: list[str]) -> None:
    run = Run(seed, operations, faults)
    if "interrupt" in faults:
        signal.signal(signal.SIGALRM, run.interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.001)
    while run.counts["operations"] < operations:
        try:
            run.environment = ContextSwitchingEnvironment()
            run.contexts = []
            run.nesting.clear()
            run.environment.run_main_context(run.main)
        except (KeyboardInterrupt, *EXPECTED):
            run.counts["ended early"] += 1
    if "interrupt" in faults:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    assert not run.environment._registry.ids()
    print(json.dumps({"seed": seed, **run.counts}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
