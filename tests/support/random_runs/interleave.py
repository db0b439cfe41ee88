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
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from wasmtime import Engine, Func, FuncType, Module, ValType

from greenctx import EnvironmentNotRunning
from greenctx.wasix import call
from random_runs.random_run import COOKIE, RandomRun

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


class Run(RandomRun):
    max_contexts = 60
    max_nesting = 4
    expected = (*RandomRun.errors, RecursionError, MemoryError, ctypes.ArgumentError)

    def __init__(self, seed: int, operations: int, faults: list[str]) -> None:
        engine = Engine()
        super().__init__(seed, operations, faults, engine)
        self.steps: dict[int, int] = {}
        i32, i64, f64 = ValType.i32(), ValType.i64(), ValType.f64()
        self.linker.define_func("host", "begin", FuncType([], [i64]), self.begin)
        self.linker.define_func("host", "step", FuncType([i64, i32, f64], [i32]), self.step)
        exports = self.linker.instantiate(self.store, Module(engine, GUEST)).exports(self.store)
        nested, entrypoint = exports["nested"], exports["entrypoints"].get(self.store, 0)  # type: ignore[union-attr]
        assert isinstance(nested, Func)
        assert isinstance(entrypoint, Func)
        self.nested, self.steps_for_ever = nested, entrypoint

    def begin(self) -> int:
        cookie = super().begin()
        self.steps[cookie] = 0
        return cookie

    def step(self, cookie: int, i: int, as_float: float) -> int:
        """Check the guest's locals, do something, and tell the guest what to do."""
        assert i == self.steps[cookie] == as_float, (cookie, i, as_float, self.steps[cookie])
        self.steps[cookie] = i + 1
        if not self.may_switch:
            return 0
        self.act()
        return self.random.choices([0, 1, 2, 3], [1000, 2, 1, 2])[0]

    def actions(self) -> list[tuple[Callable[[], object], int]]:
        return [
            (self.switch, 600),
            (self.create, 60),
            (self.destroy, 40),
            (self.call_guest, 120),
            (self.raise_error, 10),
            (gc.collect, 1),
            (self.fault, 8 if self.faults else 0),
        ]

    def entrypoint(self) -> Func:
        return self.steps_for_ever

    def create(self) -> None:
        with suppress(EnvironmentNotRunning):  # at its end: a RecursionError took the place of a cancellation
            super().create()

    def call_nested(self) -> None:
        count, depth = self.random.randint(1, 6), self.random.randint(0, 50)
        cookie = (self.counts["guest calls"] + 1) * COOKIE
        result = call(self.store, self.nested, count, depth)
        if result != depth - 1:  # it was not told to return early
            assert result == cookie + count + depth, (result, cookie, count, depth)

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


if __name__ == "__main__":
    Run(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]).run()
