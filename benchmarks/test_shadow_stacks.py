"""The cost of shadow stacks: a switch, a host call and a context's whole life, each with and without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wasmtime import Func, FuncType, ValType

from greenctx.wasix import Caller, Program, call

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = 20_000
LIVES = 500

GUEST = b"""(module
  (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
  (import "wasix_32v1" "context_destroy" (func $destroy (param i64) (result i32)))
  (import "host" "add" (func $add (param i64 i64) (result i64)))
  (import "host" "measure" (func $measure (param i32)))
  (memory (export "memory") 2)
  (global (export "__stack_pointer") (mut i32) (i32.const 65536))
  (table (export "__indirect_function_table") 2 funcref)
  (elem (i32.const 0) $waits $calls)
  (func $waits (loop $again (drop (call $switch (i64.const 0))) (br $again)))
  (func $calls (call $measure (i32.const 1)) (drop (call $switch (i64.const 0))))
  (func (export "switch") (param $times i32)
    (loop $again
      (drop (call $switch (i64.const 1)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
  (func (export "call") (param $times i32)
    (loop $again
      (drop (call $add (i64.const 3) (i64.const 4)))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
  (func (export "live") (param $times i32)
    (loop $again
      (drop (call $create (i32.const 0) (i32.const 0)))
      (drop (call $switch (i64.load (i32.const 0))))
      (drop (call $destroy (i64.load (i32.const 0))))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1))))))
  (func (export "_start")
    (drop (call $create (i32.const 0) (i32.const 0)))
    (drop (call $create (i32.const 0) (i32.const 1)))
    (call $measure (i32.const 0))
    (drop (call $switch (i64.const 2)))))"""


def run(
    measure: Callable[..., None],
    export: str,
    times: int,
    baseline: str | None = None,
    *,
    each: int = 1,
    in_context: bool = False,
) -> None:
    """Measure the export, which does ``each`` so many times, called by main's host function or by a context's; with
    shadow stacks if there is a baseline."""
    i32, i64 = ValType.i32(), ValType.i64()

    def measured(caller: Caller, context: int) -> None:
        func = caller[export]
        assert isinstance(func, Func)
        if context == in_context:
            measure(lambda: call(caller, func, times), times=each * times, baseline=baseline)

    with Program(GUEST, shadow_stack=None if baseline is None else 65536) as program:
        program.linker.define_func("host", "add", FuncType([i64, i64], [i64]), lambda a, b: a + b)
        program.linker.define_func("host", "measure", FuncType([i32], []), measured, access_caller=True)
        assert program.run() == 0


def test_program_switch(measure: Callable[..., None]) -> None:
    """A switch between two contexts of a program: half of one there and back."""
    run(measure, "switch", TIMES // 2, each=2)


def test_program_switch_on_shadow_stacks(measure: Callable[..., None]) -> None:
    """The same with a stack each."""
    run(measure, "switch", TIMES // 2, "program_switch", each=2)


def test_program_host_call(measure: Callable[..., None]) -> None:
    """A call of a host function that could switch, and does not."""
    run(measure, "call", TIMES)


def test_program_host_call_of_main_with_shadow_stacks(measure: Callable[..., None]) -> None:
    """The same, with stacks: main's is not watched for overflow."""
    run(measure, "call", TIMES, "program_host_call")


def test_program_host_call_of_a_context_with_shadow_stacks(measure: Callable[..., None]) -> None:
    """The same by a context, whose stack is."""
    run(measure, "call", TIMES, "program_host_call", in_context=True)


def test_program_context(measure: Callable[..., None]) -> None:
    """A context's life: create, start, destroy."""
    run(measure, "live", LIVES)


def test_program_context_with_shadow_stack(measure: Callable[..., None]) -> None:
    """The same, with a region."""
    run(measure, "live", LIVES, "program_context")
