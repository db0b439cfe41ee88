"""wasmtime's collector, and what suspended guests have references to: none of it is lost, none of it is kept."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ref

import pytest
import random_runs
from guests.embedding import COLLECTING, IMPORTS, Collecting, compiled
from processes import TIMEOUT, run_python
from wasmtime import Config, Engine, Func, Global, Trap

from greenctx import ContextSwitchingEnvironment
from greenctx.wasix import CalledWithinGuest, GuestException, Linker, Program, ReferencesTooLate, call
from greenctx.wasix._clock.epochs import yield_every_epoch
from greenctx.wasix._fibers.stores import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(random_runs.__file__).with_name("collect.py")
OPERATIONS = 4000
HOLDERS = 20

# The entrypoints of the table each hold something of their own on their stack while they wait for main.
HOLDING = f"""(module {IMPORTS}
  (type $struct (struct (field i64)))
  (type $array (array i64))
  (import "host" "make" (func $make (param i64) (result externref)))
  (import "host" "check" (func $check (param externref i64)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref
    (elem $hold_exception $hold_struct $hold_array $hold_externref $hold_in_arguments $hold_in_chain))
  (tag $tag (param i64))
  (global $next (mut i64) (i64.const 0))
  (global $kept (export "kept") (mut externref) (ref.null extern))
  (func $number (result i64)
    (global.set $next (i64.add (global.get $next) (i64.const 1))) (global.get $next))
  (func $wait (drop (call $switch (i64.const 0))))
  (func $check_number (param $found i64) (param $expected i64)
    (if (i64.ne (local.get $found) (local.get $expected)) (then unreachable)))
  (func $throw (param i64) (throw $tag (local.get 0)))
  (func $catch (param i64) (result exnref)
    (block $caught (result exnref) (try_table (catch_all_ref $caught) (call $throw (local.get 0))) unreachable))
  (func $payload (param exnref) (result i64)
    (block $caught (result i64) (try_table (catch $tag $caught) (throw_ref (local.get 0))) unreachable))

  (func $hold_exception (local $number i64) (local $held exnref)
    (local.set $held (call $catch (local.tee $number (call $number))))
    (loop (call $wait) (call $check_number (call $payload (local.get $held)) (local.get $number)) (br 0)))
  (func $hold_struct (local $number i64) (local $held (ref null $struct))
    (local.set $held (struct.new $struct (local.tee $number (call $number))))
    (loop (call $wait) (call $check_number (struct.get $struct 0 (local.get $held)) (local.get $number)) (br 0)))
  (func $hold_array (local $number i64) (local $held (ref null $array))
    (local.set $held (array.new $array (local.tee $number (call $number)) (i32.const 9)))
    (loop (call $wait)
      (call $check_number (array.get $array (local.get $held) (i32.const 8)) (local.get $number)) (br 0)))
  (func $hold_externref (local $number i64) (local $held externref)
    (local.set $held (call $make (local.tee $number (call $number))))
    (loop (call $wait) (call $check (local.get $held) (local.get $number)) (br 0)))
  (func $deeper (param $depth i32) (param $number i64) (param $a externref) (param $b exnref)
    (if (local.get $depth)
      (then (call $deeper (i32.sub (local.get $depth) (i32.const 1)) (local.get $number)
        (call $make (local.get $number)) (call $catch (local.get $number))))
      (else (loop (call $wait) (call $check (local.get $a) (local.get $number)) (br 0))))
    (call $check (local.get $a) (local.get $number))
    (call $check_number (call $payload (local.get $b)) (local.get $number)))
  (func $hold_in_arguments (local $number i64)
    (local.set $number (call $number))
    (call $deeper (i32.const 30) (local.get $number)
      (call $make (local.get $number)) (call $catch (local.get $number))))
  (func $hold_in_chain (local $number i64) (local $held exnref)
    (local.set $number (call $number))
    (local.set $held (block $caught (result exnref)
      (try_table (catch_all_ref $caught) (throw_ref (call $catch (local.get $number)))) unreachable))
    (loop (call $wait) (call $check_number (call $payload (local.get $held)) (local.get $number)) (br 0)))

  (func (export "start") (param $kind i32) (param $count i32)
    (loop $next
      (if (call $create (i32.const 0) (local.get $kind)) (then unreachable))
      (if (call $switch (i64.load (i32.const 0))) (then unreachable))
      (br_if $next (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
  (func (export "resume") (param $id i64) (if (call $switch (local.get $id)) (then unreachable)))
  (func (export "churn") (param $count i32)
    (loop $next
      (drop (call $payload (call $catch (i64.const -1))))
      (drop (array.new $array (i64.const -1) (i32.const 20)))
      (br_if $next (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
  (func (export "make_some") (param $count i32)
    (loop $next
      (global.set $kept (call $make (i64.const -1)))
      (br_if $next (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))
    (global.set $kept (ref.null extern)))
  (func (export "trap") unreachable))"""

KINDS = ["exception", "struct", "array", "externref", "arguments", "chain"]


class Thing:
    """The objects that guests refer to."""

    def __init__(self, number: int) -> None:
        self.number = number


class Holders(Collecting):
    """Contexts that hold something. Every one of them checks what it holds whenever it goes on."""

    def __init__(self) -> None:
        super().__init__()
        yield_every_epoch(self.store)
        self.things: list[ref[Thing]] = []
        self.define("make", "i64 -> externref", lambda number: self.make(number))
        self.define("check", "externref i64 ->", self.check)
        self.load(HOLDING)

    def make(self, number: int) -> Thing:
        thing = Thing(number)
        self.things.append(ref(thing))
        return thing

    def check(self, thing: Thing, number: int) -> None:
        assert thing.number == number

    def start(self, *kinds: str, count: int = HOLDERS) -> None:
        for kind in kinds:
            self.call("start", KINDS.index(kind), count)

    def resume_all(self) -> None:
        """Let each go on once."""
        for context_id in self.env._registry.ids():
            self.call("resume", context_id)

    def collect(self) -> None:
        for _ in range(3):
            self.call("churn", 10)
            self.store.gc()

    def keep_some(self) -> None:
        kept = self.exports["kept"]
        assert isinstance(kept, Global)
        for number in range(4000):
            kept.set_value(self.store, Thing(number))
        kept.set_value(self.store, None)

    def alive(self) -> int:
        return sum(thing() is not None for thing in self.things)


COLLECTIONS: dict[str, Callable[[Holders], object]] = {
    "by a guest": lambda holders: holders.call("churn", 5000),
    "for the host": lambda holders: holders.call("make_some", 5000),
    "for what the host keeps": lambda holders: holders.keep_some(),
    "by the host": lambda holders: holders.collect(),
}


@pytest.mark.parametrize("collect", COLLECTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_held_across_switches(kind: str, collect: str) -> None:
    """Objects in a context's locals, arguments or caught exceptions survive every collection while it waits."""
    holders = Holders()

    def main() -> None:
        holders.start(kind)
        for _ in range(3):
            COLLECTIONS[collect](holders)
            holders.resume_all()

    holders.run(main)


def test_held_by_main_and_others_while_one_collects() -> None:
    """A collection in one context leaves alone what all the others hold, main among them, and nested calls."""
    holders = Holders()
    depth = 0

    def make(number: int) -> Thing:
        nonlocal depth
        if depth < 3:
            depth += 1
            holders.call("churn", 2000)  # while its caller holds things, and is suspended
            holders.call("start", KINDS.index("arguments"), 1)
            depth -= 1
        return Thing(number)

    holders.make = make  # type: ignore[method-assign]

    def main() -> None:
        holders.start(*KINDS, count=5)
        holders.call("churn", 5000)
        holders.resume_all()

    holders.run(main)


def test_beside_calls_of_host_functions() -> None:
    """A context that waits in a host function that no guest has called hides no others from the collector."""
    holders = Holders()
    env = holders.env
    holders.define("wait", "->", lambda: env.switch_context(0))
    wait = holders.linker.get(holders.store, "host", "wait")
    assert isinstance(wait, Func)

    def main() -> None:
        for kind in KINDS:
            holders.start(kind, count=2)
            env.switch_context(env.create_context(partial(call, holders.store, wait)))
        for collect in COLLECTIONS.values():
            collect(holders)
            for context_id in env._registry.ids():
                if context_id % 3:
                    holders.call("resume", context_id)

    holders.run(main)


@pytest.mark.parametrize("end", ["destroyed", "end of main"])
def test_let_go(end: str) -> None:
    """Objects that only a context held are collected after its end, and so are objects without a reference."""
    holders = Holders()

    def main() -> None:
        holders.start("externref")
        holders.call("make_some", 100)
        holders.store.gc()
        assert holders.alive() == HOLDERS
        if end == "destroyed":
            for context_id in holders.env._registry.ids():
                holders.env.destroy_context(context_id)
            holders.store.gc()
            assert holders.alive() == 0

    holders.run(main)
    holders.store.gc()
    assert holders.alive() == 0


def test_after_a_trap() -> None:
    """A guest that traps while others hold things does them no harm. Its backtrace is its own."""
    holders = Holders()

    def main() -> None:
        holders.start(*KINDS, count=3)
        for _ in range(3):
            with pytest.raises(Trap) as raised:
                holders.call("trap")
            assert len(raised.value.frames) == 1
            assert str(raised.value).count(" - ") == 1
            assert "unreachable" in str(raised.value)
            holders.call("churn", 3000)
            holders.resume_all()

    holders.run(main)


def test_in_a_program() -> None:
    """The same in a `Program`, whose guest yields for signals meanwhile."""
    text = f"""(module {IMPORTS}
      (memory (export "memory") 1)
      (table (export "__indirect_function_table") funcref (elem $holder))
      (tag $tag (param i64))
      (func $throw (param i64) (throw $tag (local.get 0)))
      (func $catch (param i64) (result exnref)
        (block $caught (result exnref) (try_table (catch_all_ref $caught) (call $throw (local.get 0))) unreachable))
      (func $payload (param exnref) (result i64)
        (block $caught (result i64) (try_table (catch $tag $caught) (throw_ref (local.get 0))) unreachable))
      (func $holder (local $number i64) (local $held exnref)
        (local.set $held (call $catch (local.tee $number (i64.load (i32.const 0)))))
        (loop
          (drop (call $switch (i64.const 0)))
          (if (i64.ne (call $payload (local.get $held)) (local.get $number)) (then unreachable))
          (br 0)))
      (func $churn (local $count i32)
        (loop $next
          (drop (call $payload (call $catch (i64.const -1))))
          (local.set $count (i32.add (local.get $count) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $count) (i32.const 300000)))))
      (func (export "_start") (local $id i64)
        (loop $next
          (drop (call $create (i32.const 0) (i32.const 0)))
          (drop (call $switch (local.tee $id (i64.load (i32.const 0)))))
          (br_if $next (i64.lt_u (local.get $id) (i64.const 9))))
        (call $churn)
        (loop $next
          (drop (call $switch (local.get $id)))
          (br_if $next (i64.ne (local.tee $id (i64.sub (local.get $id) (i64.const 1))) (i64.const 0))))))"""
    assert Program(text.encode()).run() == 0


REFERENCES = {
    "none": ('(func (export "f"))', False),
    "exceptions caught by tag": ("(func (block $c (try_table (catch $t $c) (call $f))))", False),
    "exceptions, all of them": ("(func (block $c (try_table (catch_all $c) (call $f))) (call $f))", False),
    "an exception that is dropped": (
        "(func (drop (block $c (result exnref) (try_table (catch_all_ref $c) (call $f)) unreachable)) (call $f))",
        False,
    ),
    "an exception that is kept": (
        "(func (block $c (result exnref) (try_table (catch_all_ref $c) (call $f)) unreachable) (call $f) (throw_ref))",
        True,
    ),
    "functions": ("(func (param funcref) (result funcref) (call $f) (local.get 0))", False),
    "numbers in disguise": ("(func (param i31ref) (result i31ref) (call $f) (local.get 0))", False),
    "an externref": ("(func (param externref) (result externref) (call $f) (local.get 0))", True),
    "an externref in a global": ("(global externref (ref.null extern)) (func (call $f))", False),
}


@pytest.mark.parametrize("module", REFERENCES)
def test_who_holds_references(module: str) -> None:
    """greenctx knows of each module whether its functions hold references while they call others. Only then are the
    stacks of suspended contexts walked, which takes time for each of them."""
    text, holds = REFERENCES[module]
    embedding = Collecting().load(f"(module (func $f) (tag $t) {text})")
    assert (state_of(embedding.store).gc_anchor is not None) == holds
    pre = Linker(COLLECTING).instantiate_pre(compiled(f"(module (func $f) (tag $t) {text})", COLLECTING))
    fresh = Collecting()
    pre.instantiate(fresh.store)
    assert (state_of(fresh.store).gc_anchor is not None) == holds


@pytest.mark.parametrize("depth", [1, 2])
def test_too_late(depth: int) -> None:
    """The first module that holds references has to come while no more than one call into the store is in progress;
    otherwise it is refused, and may be instantiated when they have ended."""
    embedding = Collecting()
    holding = '(module (func $g) (func (export "f") (param externref) (result externref) (call $g) (local.get 0)))'

    def instantiate() -> None:
        embedding.linker.instantiate(embedding.store, compiled(holding, COLLECTING))

    def host(calls: int) -> None:
        if calls < depth:
            embedding.call("f", calls + 1)
        elif depth == 1:
            instantiate()
        else:
            with pytest.raises(ReferencesTooLate, match=re.escape("2 call(s) into the store have begun")):
                instantiate()

    embedding.define("host", "i32 ->", host)
    embedding.load(
        """(module (import "host" "host" (func $host (param i32)))
          (func (export "f") (param i32) (call $host (local.get 0))))"""
    )
    embedding.call("f", 1)
    assert (state_of(embedding.store).gc_anchor is not None) == (depth == 1)
    instantiate()
    assert state_of(embedding.store).gc_anchor is not None
    embedding.store.close()


def test_first_of_them_within_a_call() -> None:
    """The first module with references may be instantiated within a host function that one guest called."""
    holders = Holders.__new__(Holders)
    Collecting.__init__(holders)
    holders.things = []
    holders.define("make", "i64 -> externref", lambda number: holders.make(number))
    holders.define("check", "externref i64 ->", holders.check)
    holders.define("load", "->", lambda: holders.load(HOLDING) and None)
    holders.define("run", "->", lambda: run())
    outer = holders.linker.instantiate(
        holders.store,
        compiled(
            """(module (import "host" "load" (func $load)) (import "host" "run" (func $run))
              (func (export "f") (call $load) (call $run)))""",
            COLLECTING,
        ),
    ).exports(holders.store)["f"]
    assert isinstance(outer, Func)

    def run() -> None:
        holders.start(*KINDS, count=3)
        for collect in COLLECTIONS.values():
            collect(holders)
            holders.resume_all()

    holders.env.run_main_context(call, holders.store, outer)
    holders.store.close()


def test_interrupted_in_the_middle_of_its_code() -> None:
    """While a guest is stopped between two instructions, its store refuses other calls and collections, because the
    guest cannot be put on a stack then. It goes on unharmed."""
    config = Config()
    config.wasm_exceptions = config.wasm_gc = config.wasm_function_references = config.epoch_interruption = True

    class Interruptible(Holders):
        engine = Engine(config)

    holders = Interruptible()
    checks = 0

    class Limit:
        def check(self) -> None:
            nonlocal checks
            checks += 1
            for use in (lambda: holders.call("trap"), holders.store.gc):
                with pytest.raises(CalledWithinGuest, match="was interrupted in the middle of its code"):
                    use()

    limit: Any = Limit()
    state_of(holders.store).deadline = limit

    def main() -> None:
        for _ in range(3):
            holders.engine.increment_epoch()
            holders.start(*KINDS, count=1)
        holders.call("churn", 2000)
        holders.resume_all()

    holders.run(main)
    assert checks > 0


def test_last_reference_is_lost_on_a_fiber() -> None:
    """The ``__del__`` of an object that a collection in a guest frees runs on the greenlet. There it may call guests
    and switch greenlets, which would end the process on a fiber."""
    code = """
import sys
sys.path[:0] = %r
from test_collector import *
from greenlet import greenlet

class Lively(Thing):
    def __del__(self):
        done.append(greenlet(lambda: holders.call("churn", 1)).switch())

done = []
holders = Holders()
holders.make = Lively  # type: ignore[method-assign, assignment]
holders.call("make_some", 3000)
holders.call("churn", 5000)
holders.store.gc()
assert len(done) > 2900, len(done)
print("went right to the end")
"""
    ran = run_python(code % [str(Path(__file__).parent)])
    assert (ran.returncode, ran.stderr, ran.stdout) == (0, "", "went right to the end\n"), ran.stderr


def test_store_closed_with_references() -> None:
    """Closing a store lets go of everything in it, at once."""
    holders = Holders()
    holders.run(lambda: holders.start("externref"))
    with pytest.raises(GuestException):
        Collecting().load("(module (tag $t) (func $s (throw $t)) (start $s))")
    holders.call("make_some", 10)
    holders.store.close()
    assert holders.alive() == 0
    holders.store.close()
    with pytest.raises(ValueError, match="closed"):
        holders.store.gc()


def fuzz(seed: int, *faults: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(seed), str(OPERATIONS), *faults]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 5))])
@pytest.mark.parametrize(
    "faults",
    [
        *([], ["epochs", "interrupt"]),
        *(pytest.param(faults, marks=pytest.mark.long) for faults in (["interrupt"], ["epochs"])),
    ],
    ids="-".join,
)
def test_random_collections_end_well(seed: int, faults: list[str]) -> None:
    """A random run ends by itself, every value it checked was right, and it did what it is there for."""
    done = fuzz(seed, *faults)
    assert done.returncode == 0, f"{done.stderr[:2000]}\n...\n{done.stderr[-2000:]}"
    counts = json.loads(done.stdout)
    assert counts["operations"] >= OPERATIONS
    assert counts["switches"] > OPERATIONS / 4
    assert counts["checks"] > OPERATIONS
    assert counts["collections by the host"] > 20
    assert counts["main got GuestException"] > 0
    assert counts["caught GuestException"] > 0
    assert counts["destroyed"] > 20


def test_random_collections_would_not_end_well() -> None:
    """Without the patches of this package the same runs end in wrong values or a crash."""
    assert all(fuzz(seed, "unprotected").returncode for seed in (1, 2))


def test_environments_one_after_the_other() -> None:
    """Contexts of an environment that has ended leave nothing in the store that could be walked again."""
    holders = Holders()
    for _ in range(3):
        holders.env = ContextSwitchingEnvironment()
        holders.run(partial(holders.start, *KINDS, count=2))
        holders.call("churn", 500)
        holders.store.gc()
        assert holders.alive() == 0
    gc.collect()
