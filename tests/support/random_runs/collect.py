"""Random work with collected objects in many contexts of one store: ``python collect.py SEED OPERATIONS [FAULT...]``.

Guests keep exceptions, structs, arrays and references to Python objects in their locals, on deep stacks, while the host
switches, creates, destroys, calls guests again, raises, throws, or lets guests trap; and all the while guests and host
make garbage and collect it. Every object carries the cookie of the call that made it; a wrong one anywhere ends the run
with an AssertionError. FAULTs come on top: ``interrupt`` (a signal's KeyboardInterrupt at any moment), ``epochs`` (the
guests yield all the time), and ``unprotected``, which shows what collections do without
`greenctx.wasix._fibers.wasmtime_patches`.
Prints what happened as JSON.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, cast

from wasmtime import Config, Engine, FuncType, Module, Trap, ValType, _bindings, _ffi

from greenctx.wasix import GuestException, call
from greenctx.wasix._clock.epochs import yield_every_epoch
from greenctx.wasix._fibers.stores import state_of
from random_runs.random_run import COOKIE, RandomRun

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime import Func, Global

GUEST = """(module
  (type $leaf (struct (field i64)))
  (type $node (struct (field (ref null $leaf)) (field (mut externref)) (field (mut i64))))
  (type $numbers (array (mut i64)))
  (import "host" "begin" (func $begin (result i64)))
  (import "host" "step" (func $step (param i64) (result i32)))
  (import "host" "make" (func $make (param i64) (result externref)))
  (import "host" "check" (func $check (param externref i64)))
  (tag $cookie (param i64))
  (tag $with_reference (param i64 externref))
  (table $kept 64 externref)
  (global (export "kept") (mut externref) (ref.null extern))
  (func $throw (param i64) (throw $cookie (local.get 0)))
  (func $catch (param i64) (result exnref)
    (block $caught (result exnref) (try_table (catch_all_ref $caught) (call $throw (local.get 0))) unreachable))
  (func $rethrown (param exnref) (result i64)
    (block $caught (result i64) (try_table (catch $cookie $caught) (throw_ref (local.get 0))) unreachable))

  ;; Make so many exceptions and structs, all of them garbage but for a chain of a few.
  (func $churn (export "churn") (param $count i32) (param $cookie i64)
    (local $leaf (ref null $leaf)) (local $exception exnref)
    (local.set $leaf (struct.new $leaf (local.get $cookie)))
    (local.set $exception (call $catch (local.get $cookie)))
    (loop $next
      (drop (call $catch (i64.const -1)))
      (drop (array.new $numbers (i64.const -1) (i32.and (local.get $count) (i32.const 63))))
      (drop (struct.new $node (local.get $leaf) (ref.null extern) (i64.const -1)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $next (i32.gt_s (local.get $count) (i32.const 0))))
    (if (i64.ne (struct.get $leaf 0 (local.get $leaf)) (local.get $cookie)) (then (call $wrong)))
    (if (i64.ne (call $rethrown (local.get $exception)) (local.get $cookie)) (then (call $wrong))))
  (func $wrong (local $nothing (ref null $leaf)) (drop (struct.get $leaf 0 (local.get $nothing))))

  (func $steps (param $cookie i64) (param $count i32) (result i64)
    (local $exception exnref) (local $node (ref null $node)) (local $numbers (ref null $numbers))
    (local $object externref) (local $action i32) (local $slot i32)
    (local.set $exception (call $catch (local.get $cookie)))
    (local.set $object (call $make (local.get $cookie)))
    (local.set $node (struct.new $node (struct.new $leaf (local.get $cookie)) (local.get $object) (local.get $cookie)))
    (local.set $numbers (array.new $numbers (local.get $cookie) (i32.const 5)))
    (local.set $slot (i32.and (i32.wrap_i64 (local.get $cookie)) (i32.const 63)))
    (loop $next
      (local.set $action (call $step (local.get $cookie)))
      (if (i32.eq (local.get $action) (i32.const 1)) (then unreachable))
      (if (i32.eq (local.get $action) (i32.const 2)) (then (call $churn (i32.const 400) (local.get $cookie))))
      (if (i32.eq (local.get $action) (i32.const 3)) (then (throw $cookie (local.get $cookie))))
      (if (i32.eq (local.get $action) (i32.const 4))
        (then (throw $with_reference (local.get $cookie) (local.get $object))))
      (if (i32.eq (local.get $action) (i32.const 5))  ;; all anew
        (then
          (local.set $exception (call $catch (local.get $cookie)))
          (local.set $object (call $make (local.get $cookie)))
          (struct.set $node 1 (local.get $node) (local.get $object))))
      (if (i32.eq (local.get $action) (i32.const 6))
        (then (table.set $kept (local.get $slot) (local.get $object))))
      (if (i32.eq (local.get $action) (i32.const 7))  ;; a deeper frame with objects of its own
        (then (drop (call $steps (local.get $cookie) (i32.const 2)))))
      (if (i64.ne (call $rethrown (local.get $exception)) (local.get $cookie)) (then (call $wrong)))
      (if (i64.ne (struct.get $leaf 0 (struct.get $node 0 (local.get $node))) (local.get $cookie))
        (then (call $wrong)))
      (if (i64.ne (struct.get $node 2 (local.get $node)) (local.get $cookie)) (then (call $wrong)))
      (if (i64.ne (array.get $numbers (local.get $numbers) (i32.const 4)) (local.get $cookie)) (then (call $wrong)))
      (call $check (local.get $object) (local.get $cookie))
      (call $check (struct.get $node 1 (local.get $node)) (local.get $cookie))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $next (local.get $count)))
    (local.get $cookie))
  (func $catching (export "catching") (param $cookie i64) (param $count i32) (result i64)
    (block $caught (result i64)
      (try_table (result i64) (catch $cookie $caught) (call $steps (local.get $cookie) (local.get $count)))))
  (func (export "nested") (param $count i32) (result i64) (call $steps (call $begin) (local.get $count)))
  (func (export "entrypoint") (drop (call $catching (call $begin) (i32.const -1)))))"""


class Cookie:
    """The objects that guests refer to."""

    def __init__(self, value: int) -> None:
        self.value = value


class Run(RandomRun):
    max_contexts = 30
    max_nesting = 3
    errors = expected = (*RandomRun.errors, GuestException)

    def __init__(self, seed: int, operations: int, faults: list[str]) -> None:
        config = Config()
        config.wasm_exceptions = config.wasm_gc = config.wasm_function_references = True
        config.epoch_interruption = "epochs" in faults
        engine = Engine(config)
        super().__init__(seed, operations, faults, engine)
        if "epochs" in faults:
            yield_every_epoch(self.store)
        define = self.linker.define_func
        i32, i64, externref = ValType.i32(), ValType.i64(), ValType.externref()
        define("host", "begin", FuncType([], [i64]), self.begin)
        define("host", "step", FuncType([i64], [i32]), self.step)
        define("host", "make", FuncType([i64], [externref]), self.make)
        define("host", "check", FuncType([externref, i64], []), self.check)
        define("host", "idle", FuncType([], []), self.idle)
        exports = self.linker.instantiate(self.store, Module(engine, GUEST)).exports(self.store)
        self.kept = cast("Global", exports["kept"])
        self.nested, self.churn = cast("Func", exports["nested"]), cast("Func", exports["churn"])
        self.idle_func = cast("Func", self.linker.get(self.store, "host", "idle"))
        self.steps_for_ever = cast("Func", exports["entrypoint"])

    def make(self, cookie: int) -> Cookie:
        self.counts["objects"] += 1
        return Cookie(cookie)

    def check(self, found: Cookie, cookie: int) -> None:
        self.counts["checks"] += 1
        assert isinstance(found, Cookie)
        assert found.value == cookie, (found.value, cookie)

    def step(self, _: int) -> int:
        """Do something, and tell the guest what to do."""
        self.act()
        return self.random.choices(range(8), [600, 4, 60, 6, 6, 60, 30, 10])[0]

    def idle(self) -> None:
        """The entrypoint of contexts without a guest of their own."""
        while True:
            self.act()

    def actions(self) -> list[tuple[Callable[[], object], int]]:
        return [
            (self.switch, 600),
            (self.create, 60),
            (self.destroy, 20),
            (self.call_guest, 80),
            (self.raise_error, 5),
            (self.collect, 10),
            (self.churn_now, 10),
            (self.keep, 10),
        ]

    def entrypoint(self) -> Func:
        return self.steps_for_ever if self.random.randrange(8) else self.idle_func

    def collect(self) -> None:
        self.counts["collections by the host"] += 1
        self.store.gc()

    def keep(self) -> None:
        for _ in range(200):
            self.kept.set_value(self.store, Cookie(-1))

    def churn_now(self) -> None:
        call(self.store, self.churn, self.random.randint(1, 1000), 77)

    def call_nested(self) -> None:
        assert call(self.store, self.nested, self.random.randint(1, 6)) % COOKIE == 0

    def note(self, what: str, error: BaseException) -> None:
        super().note(what, error)
        if isinstance(error, Trap):
            assert "unreachable" in str(error), error
        if isinstance(error, GuestException):
            cookie, *references = error.payload
            assert cookie % COOKIE == 0, error.payload
            assert all(reference.value == cookie for reference in references)


def main(seed: int, operations: int, faults: list[str]) -> None:
    run = Run(seed, operations, faults)
    if "unprotected" in faults:
        state_of(run.store).remove_anchor()
        _ffi.wasmtime_externref_new = _bindings.wasmtime_externref_new
    done = threading.Event()
    if "epochs" in faults:

        def tick() -> None:
            while not done.wait(0.0002):
                run.linker.engine.increment_epoch()

        threading.Thread(target=tick, daemon=True).start()
    run.run()
    done.set()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
