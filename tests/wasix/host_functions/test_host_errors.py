"""Errors of host functions reach the caller unchanged, with a note of where in the guest they passed."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any

import pytest
from greenlet import GreenletExit
from guests.embedding import IMPORTS, Embedding, signature
from wasmtime import Trap

from greenctx import current_environment
from greenctx.wasix import GuestExit, Program, call

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx.wasix import Caller


class Interruption(BaseException):
    """No error, as far as Python is concerned."""


class AnError(Exception):
    pass


ERRORS = [AnError, ValueError, TypeError, KeyError, StopIteration, GeneratorExit, MemoryError, RecursionError,
          Interruption, KeyboardInterrupt, SystemExit]  # fmt: skip

# main_function calls the host in main, or creates a context and switches to it, as the host says; the context's
# outer_function gets to inner_function through as many host functions that call back as the host says.
GUEST = f"""(module {IMPORTS}
  (import "host" "in_context" (func $in_context (result i32)))
  (import "host" "nest" (func $nest))
  (import "host" "fail" (func $fail))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $outer_function))
  (func $inner_function (export "inner") (call $fail))
  (func $outer_function (export "outer") (call $nest) unreachable)
  (func $main_function (export "_start")
    (if (call $in_context)
      (then (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1))) unreachable)
      (else (call $outer_function)))))
"""


def failing_program(fail: Callable[[], Any], *, in_context: bool, nested: int) -> Program:
    program = Program(GUEST.encode())
    define, left = program.linker.define_func, [nested]

    def nest(caller: Caller) -> None:
        left[0] -= 1
        call(caller, caller["outer" if left[0] > 0 else "inner"])  # type: ignore[arg-type]

    define("host", "in_context", signature("-> i32"), lambda: in_context)
    define("host", "nest", signature("->"), nest, access_caller=True)
    define("host", "fail", signature("->"), fail)
    return program


def check_good_guest() -> None:
    """A guest whose contexts switch runs normally."""
    embedding = Embedding()
    embedding.define("swap", "i32 -> i32", embedding.swap)
    embedding.load(
        f"""(module {IMPORTS} (import "host" "swap" (func $swap (param i32) (result i32)))
          (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $other))
          (func $other (loop (drop (call $swap (i32.const 5))) (br 0)))
          (func (export "main") (result i32)
            (drop (call $create (i32.const 0) (i32.const 0)))
            (i32.add (call $swap (i32.const 20)) (call $swap (i32.const 22)))))"""
    )
    assert embedding.run_guest("main") == 42


@pytest.mark.parametrize("nested", [1, 2, 5])
@pytest.mark.parametrize("in_context", [False, True])
@pytest.mark.parametrize("error_type", ERRORS)
def test_reaches_the_caller_as_itself(error_type: type[BaseException], in_context: bool, nested: int) -> None:
    """The very exception, its traceback down to the line that raised it, and a note of every guest call that it went
    through, the innermost first; in a context, main's as well. The process goes on unharmed."""
    error = error_type("original")

    def fail() -> None:
        raise error

    with pytest.raises(error_type) as raised:
        failing_program(fail, in_context=in_context, nested=nested).run()
    assert raised.value is error
    assert raised.value.args == ("original",)
    assert raised.value.__context__ is None
    functions = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert functions[-1] == "fail"
    assert functions.count("nest") == nested
    inner, *outer = error.__notes__
    assert "inner_function" in inner
    assert "main_function" in outer[-1]
    assert len(outer) == nested + in_context
    assert all("outer_function" in note for note in outer[:nested])
    for note in error.__notes__:
        assert note.startswith("error while executing at wasm backtrace:\n")
        assert "Caused by" not in note
    check_good_guest()


@pytest.mark.parametrize("in_context", [False, True])
@pytest.mark.parametrize("make", [lambda: GreenletExit("original"), lambda: GuestExit(7)])
def test_exits_pass_unnoted(make: Callable[[], BaseException], in_context: bool) -> None:
    """GreenletExit reaches the caller unchanged, too, and GuestExit ends the program; neither gets a note."""
    error = make()

    def fail() -> None:
        raise error

    program = failing_program(fail, in_context=in_context, nested=2)
    if isinstance(error, GuestExit):
        assert program.run() == 7
    else:
        with pytest.raises(GreenletExit) as raised:
            program.run()
        assert raised.value is error
    assert not hasattr(error, "__notes__")
    check_good_guest()


def test_caught_between_guest_calls() -> None:
    """A host function may catch the error of a guest call that it made; the guest that called it goes on."""
    embedding = Embedding()

    def fail() -> None:
        raise AnError

    def attempt() -> int:
        with pytest.raises(AnError):
            embedding.call("inner")
        with pytest.raises(Trap, match="unreachable"):
            embedding.call("trap")
        return 3

    embedding.define("fail", "->", fail)
    embedding.define("attempt", "-> i32", attempt)
    embedding.load(
        """(module (import "host" "fail" (func $fail)) (import "host" "attempt" (func $attempt (result i32)))
          (func (export "inner") (call $fail)) (func (export "trap") unreachable)
          (func (export "outer") (result i32) (i32.add (call $attempt) (call $attempt))))"""
    )
    assert embedding.call("outer") == 6
    check_good_guest()


def test_context_survives_errors_of_another() -> None:
    """Main may catch the error of another context, and go on; suspended contexts are not affected."""
    embedding = Embedding()
    env = embedding.env

    def fail() -> None:
        raise AnError(env.active_context_id)

    def main() -> list[int]:
        waiting = env.create_context(lambda: embedding.call("wait_for_ever"))
        env.switch_context(waiting)
        for context_id in (2, 3):
            assert env.create_context(lambda: embedding.call("fail_now")) == context_id
            with pytest.raises(AnError) as raised:
                env.switch_context(context_id)
            assert raised.value.args == (context_id,)
        env.switch_context(waiting)
        return waited

    def wait(count: int) -> None:
        waited.append(count)
        env.switch_context(0)

    waited: list[int] = []
    embedding.define("fail", "->", fail)
    embedding.define("wait", "i32 ->", wait)
    embedding.load(
        """(module (import "host" "fail" (func $fail)) (import "host" "wait" (func $wait (param i32)))
          (func (export "fail_now") (call $fail))
          (func (export "wait_for_ever") (local $count i32)
            (loop (call $wait (local.get $count))
              (local.set $count (i32.add (local.get $count) (i32.const 1))) (br 0))))"""
    )
    assert embedding.run(main) == [0, 1]


def test_raised_while_others_are_suspended_in_guests() -> None:
    """A program that an error ends unwinds its suspended contexts, and loses none of their errors."""
    unwound: list[int] = []

    def wait() -> None:
        env = current_environment()
        me = env.active_context_id
        try:
            env.switch_context(0)
        finally:
            unwound.append(me)
            if me % 2:
                raise AnError(me)

    def fail() -> None:
        raise AnError("main")

    program = Program(
        f"""(module {IMPORTS} (import "host" "wait" (func $wait)) (import "host" "fail" (func $fail))
          (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $waiter))
          (func $waiter (call $wait) unreachable)
          (func $start (drop (call $create (i32.const 0) (i32.const 0)))
            (drop (call $switch (i64.load (i32.const 0)))))
          (func (export "_start") (call $start) (call $start) (call $start) (call $fail)))""".encode()
    )
    program.linker.define_func("host", "wait", signature("->"), wait)
    program.linker.define_func("host", "fail", signature("->"), fail)
    with pytest.raises(AnError, match="main") as raised:
        program.run()
    assert unwound == [1, 2, 3]
    group = raised.value.__context__
    assert isinstance(group, BaseExceptionGroup)
    assert [error.args for error in group.exceptions] == [(1,), (3,)]
    assert all("waiter" in error.__notes__[0] for error in group.exceptions)
    check_good_guest()
