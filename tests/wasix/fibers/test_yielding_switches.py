"""Guests that yield to switch contexts, as at an epoch's end, instead of calling an asynchronous host function."""

from __future__ import annotations

import gc
from collections import Counter
from ctypes import addressof
from threading import Thread
from typing import TYPE_CHECKING, Any, cast

import pytest
import wasmtime
from guests.embedding import IMPORTS, signature
from wasmtime import Config, Engine, Func, Module, Store, TrapCode

from greenctx import ContextSwitchingEnvironment
from greenctx.wasix import GuestTrap, Linker, Program, call
from greenctx.wasix._clock.epochs import epoch_thread, yield_every_epoch
from greenctx.wasix._fibers import calls
from greenctx.wasix._fibers.stores import state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from wasmtime._instance import InstanceExports

YIELDS = "greenctx!context_switch"
"""In backtraces, where a guest yielded to switch."""

HEAD = f"""(module {IMPORTS}
  (import "host" "host" (func $host))
  (memory (export "memory") 1) (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $other)
  (func $check (param i32) (if (local.get 0) (then unreachable)))
  (func $to (param i64) (call $check (call $switch (local.get 0))))
  (func $start (call $check (call $create (i32.const 0) (i32.const 0))))
"""
STARTED = f'{HEAD}(func $other OTHER) (func (export "_start") (local $left i32) (call $start) MAIN))'
TO_AND_FRO = STARTED.replace("MAIN", "(call $to (i64.const 1))").replace(
    "OTHER", "(call $host) (call $to (i64.const 0))"
)


def program(text: str, host: Callable[[], object] = lambda: None) -> Program:
    made = Program(text.encode())
    made.linker.define_func("host", "host", signature("->"), host)
    return made


class Yielding:
    """A guest that yields to switch, in a store of the test's own. Nobody ends an epoch of its engine."""

    def __init__(self, text: str, host: Callable[[], object] = lambda: None) -> None:
        config = Config()
        config.epoch_interruption = config.wasm_exceptions = config.wasm_gc = config.wasm_function_references = True
        self.linker = Linker(Engine(config))
        self.linker.define_wasix()
        self.linker.define_func("host", "host", signature("->"), host)
        self.store = Store(self.linker.engine)
        yield_every_epoch(self.store)
        state_of(self.store).holds_gil = True
        self.exports = self.instantiate(text)

    def instantiate(self, text: str) -> InstanceExports:
        return self.linker.instantiate(self.store, Module(self.linker.engine, text)).exports(self.store)

    def call(self, name: str) -> object:
        return call(self.store, cast("Func", self.exports[name]))


@pytest.mark.parametrize("bits", ["32", "64"])
def test_backtraces(bits: str) -> None:
    """What is raised in context_switch is raised where the guest yields, for guests with 64-bit pointers, too."""
    text = TO_AND_FRO
    if bits == "64":
        text = text.replace("wasix_32v1", "wasix_64v1").replace("(param i32 i32)", "(param i64 i32)")
        text = text.replace("$create (i32", "$create (i64").replace('(export "memory") 1', '(export "memory") i64 1')

    def fail() -> None:
        raise LookupError("a host function's")

    with program(text, fail) as failing, pytest.raises(LookupError) as raised:
        failing.run()
    of_the_context, of_main = raised.value.__notes__
    assert YIELDS not in of_the_context
    assert f"{YIELDS}\n    1:" in of_main


def test_no_stack_is_left() -> None:
    """A guest that switches in each frame of an endless recursion traps, whatever the size of its frames."""
    for size in range(9):
        numbers = [f"$n{i}" for i in range(size)]
        declared = "".join(f"(local {n} i64)" for n in numbers)
        sets = "".join(f"(local.set {n} (i64.load (i32.const {i * 8})))" for i, n in enumerate(numbers))
        used = "".join(f"(i64.store (i32.const {8 * i}) (local.get {n}))" for i, n in enumerate(numbers))
        down = f"(func $down {declared} {sets} (call $to (i64.const 1)) (call $down) {used})"
        text = STARTED.replace("MAIN", "(call $down)").replace("OTHER", "(loop (call $to (i64.const 0)) (br 0))")
        with program(text[:-1] + down + ")") as endless, pytest.raises(GuestTrap) as raised:
            endless.run()
        assert raised.value.trap_code is TrapCode.STACK_OVERFLOW
        assert raised.value.context_id == 0


def test_ends_of_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guest that switches all the time gives control back for an epoch that ends while it is suspended."""
    # Here no epoch of the guest's own engine ends. So it gives control back only because all engines' ends of epochs
    # are counted, of which wasmtime knows nothing.
    main = """(local.set $left (i32.const 10_000_000))
      (loop $again
        (call $to (i64.const 1))
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"""
    text = STARTED.replace("MAIN", main).replace("OTHER", "(loop (call $to (i64.const 0)) (br 0))")
    times = 0

    def checkpoint(_: object) -> None:
        nonlocal times
        times += 1
        if times == 5:
            raise TimeoutError

    guest = Yielding(text)
    monkeypatch.setattr(calls, "checkpoint", checkpoint)
    with epoch_thread(Engine()), pytest.raises(TimeoutError):
        ContextSwitchingEnvironment().run_main_context(guest.call, "_start")


def test_references_to_collected_objects_later() -> None:
    """A guest that yields may have a module instantiated meanwhile whose guests hold such references."""
    holder = """(module (type $array (array i64))
      (func $make (result (ref $array)) (array.new $array (i64.const 7) (i32.const 100)))
      (func (export "hold") (result i64) (local $held (ref null $array)) (local $left i32)
        (local.set $held (call $make)) (local.set $left (i32.const 20_000))
        (loop $again
          (drop (call $make)) (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (array.get $array (local.get $held) (i32.const 99))))"""
    held = []

    def hold() -> None:
        while True:
            held.append(call(guest.store, cast("Func", guest.instantiate(holder)["hold"])))
            environment.switch_context(0)

    guest = Yielding(
        HEAD + '(func $other) (func (export "_start") (call $to (i64.const 1)) (call $host) (call $to (i64.const 1))))'
    )
    environment = ContextSwitchingEnvironment()

    def main() -> None:
        environment.create_context(hold)
        guest.call("_start")

    environment.run_main_context(main)
    assert held == [7, 7]
    assert state_of(guest.store).gc_anchor is not None


def test_a_context_switch_of_the_embedder_s_own() -> None:
    """It replaces the one that yields."""
    switched = []

    def switch(context_id: int) -> int:
        switched.append(context_id)
        return 0

    with program(TO_AND_FRO) as replaced:
        replaced.linker.allow_shadowing = True
        replaced.linker.define_func("wasix_32v1", "context_switch", signature("i64 -> i32"), switch)
        assert replaced.run() == 0
    assert switched == [1]


def test_runs_at_the_same_time() -> None:
    """Each run of a program has functions of its own store."""
    statuses: list[int] = []

    def host() -> None:
        if not statuses:
            statuses.append(-1)
            thread = Thread(target=lambda: statuses.append(twice.run()))
            thread.start()
            thread.join()

    with program(TO_AND_FRO, host) as twice:
        statuses.append(twice.run())
    assert statuses == [-1, 0, 0]


def test_linkers_are_deleted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when Ctrl-C comes right after the deletion: of the linker for the module, then of the copy for a run."""
    deleted: Counter[int] = Counter()
    delete = wasmtime.Linker._delete

    def interrupted(linker: wasmtime.Linker, pointer: Any) -> None:
        address = addressof(pointer.contents)
        deleted[address] += 1
        if deleted[address] == 1:
            delete(linker, pointer)
            raise KeyboardInterrupt

    ran = program(TO_AND_FRO)
    for _ in range(2):
        deleted.clear()
        gc.collect()  # the linkers of other tests
        with monkeypatch.context() as patch:
            patch.setattr(wasmtime.Linker, "_delete", interrupted)
            with pytest.raises(KeyboardInterrupt):
                ran.run()
            gc.collect()  # what the exception's frames hold
        assert {*deleted.values()} == {1}
        assert ran.run() == 0


def test_closing_frees_the_module() -> None:
    """What a program's switches hold in wasmtime is freed by its close, whoever still refers to it."""
    ran = program(TO_AND_FRO)
    assert ran.run() == 0
    [prepared] = [switch._pre for switch in ran.linker.switches.values() if "_pre" in switch.__dict__]
    prepared.ptr()
    ran.close()
    with pytest.raises(ValueError, match="closed"):
        prepared.ptr()
