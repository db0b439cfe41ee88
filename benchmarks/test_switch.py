"""The cost of a switch: of the core, of a guest, and of a bare greenlet in the same run; and of a host call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import wasmtime
from greenlet import getcurrent, greenlet
from wasmtime import Engine, Func, FuncType, Instance, Module, Store, ValType

from greenctx import ContextSwitchingEnvironment
from greenctx.wasix import Linker, call

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 20_000
BARE = "bare_greenlet_switch"
JSPI = "jspi_switch"

GUEST = """(module
  (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
  (import "host" "add" (func $add (param i64 i64) (result i64)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 2 funcref)
  (elem (i32.const 1) $other)
  (func $other (loop $again (drop (call $switch (i64.const 0))) (br $again)))
  (func (export "create") (drop (call $create (i32.const 0) (i32.const 1))))
  (func (export "switch") (param $times i32)
    (loop $again
      (drop (call $switch (i64.const 1)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
  (func (export "call") (param $times i32)
    (loop $again
      (drop (call $add (i64.const 3) (i64.const 4)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))))"""


def add(a: int, b: int) -> int:
    return a + b


def instantiate(linker: wasmtime.Linker) -> tuple[Store, Instance]:
    i64 = ValType.i64()
    linker.define_func("host", "add", FuncType([i64, i64], [i64]), add)
    store = Store(linker.engine)
    return store, linker.instantiate(store, Module(linker.engine, GUEST))


def function(store: Store, instance: Instance, name: str) -> Func:
    found = instance.exports(store)[name]
    assert isinstance(found, Func)
    return found


def test_bare_greenlet_switch(measure: Callable[..., None]) -> None:
    """There and back between two greenlets: two switches."""
    main = getcurrent()

    def other() -> None:
        while True:
            main.switch()

    target = greenlet(other)

    def ping_pong() -> None:
        for _ in range(TIMES // 2):
            target.switch()

    ping_pong()
    measure(ping_pong, times=TIMES)
    target.throw()


def test_core_switch(measure: Callable[..., None]) -> None:
    """Measure the switches of an environment."""
    environment = ContextSwitchingEnvironment()

    def other() -> None:
        while True:
            environment.switch_context(0)

    def main() -> None:
        context = environment.create_context(other)

        def ping_pong() -> None:
            for _ in range(TIMES // 2):
                environment.switch_context(context)

        measure(ping_pong, times=TIMES, baseline=BARE)

    environment.run_main_context(main)


def test_guest_switch(measure: Callable[..., None]) -> None:
    """Measure the switches between two contexts of a guest."""
    linker = Linker(Engine())
    linker.define_wasix()
    store, instance = instantiate(linker)

    def main() -> None:
        call(store, function(store, instance, "create"))
        switch = function(store, instance, "switch")
        measure(lambda: call(store, switch, TIMES // 2), times=TIMES, baseline=(BARE, JSPI))

    ContextSwitchingEnvironment().run_main_context(main)


def test_wasmtime_host_call(measure: Callable[..., None]) -> None:
    """Measure a call of a host function that wasmtime's linker defined."""
    linker = wasmtime.Linker(Engine())
    no_switch: Any = lambda *_: 0  # noqa: E731
    i32, i64 = ValType.i32(), ValType.i64()
    linker.define_func("wasix_32v1", "context_create", FuncType([i32, i32], [i32]), no_switch)
    linker.define_func("wasix_32v1", "context_switch", FuncType([i64], [i32]), no_switch)
    store, instance = instantiate(linker)
    times = function(store, instance, "call")
    measure(lambda: times(store, TIMES // 10), times=TIMES // 10)


def test_host_call(measure: Callable[..., None]) -> None:
    """A call of a host function that could switch, and does not."""
    linker = Linker(Engine())
    linker.define_wasix()
    store, instance = instantiate(linker)
    times = function(store, instance, "call")
    measure(lambda: call(store, times, TIMES), times=TIMES, baseline="wasmtime_host_call")
