"""Programs are closed explicitly, as often as one likes, and leave nothing behind, whatever they ended with."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import pytest
from guests.embedding import IMPORTS, signature
from leakcheck import assert_no_leak
from processes import check_script
from wasmtime import Trap

from greenctx import current_environment
from greenctx.wasix import Limits, Program, ProgramClosed, ProgramInUse, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = b'(module (func (export "_start")))'


def test_closing() -> None:
    """A program may be closed twice. Running it afterwards raises an error that says so."""
    program = Program(NOTHING)
    assert program.run() == 0
    program.close()
    program.close()
    for _ in range(2):
        with pytest.raises(ProgramClosed, match="the program is closed; load it again to run it again"):
            program.run()
    with Program(NOTHING) as program:
        assert program.run() == 0
    with pytest.raises(ProgramClosed):
        program.run()
    with pytest.raises(ValueError, match="already closed"):
        program.linker.define_func("host", "f", signature("->"), print)
    Program(NOTHING).close()


def test_closing_while_it_runs() -> None:
    """An error, in the program's own host functions and in other threads; it goes on and can be closed later."""
    program = Program(b'(module (import "host" "f" (func $f)) (func (export "_start") (call $f)))')
    seen: list[BaseException] = []

    def close() -> None:
        try:
            program.close()
        except ProgramInUse as error:
            seen.append(error)

    def host() -> None:
        close()
        thread = threading.Thread(target=close)
        thread.start()
        thread.join()

    program.linker.define_func("host", "f", signature("->"), host)
    assert [program.run(), program.run()] == [0, 0]
    assert [str(error) for error in seen] == [
        "the program cannot be closed while it runs; wait for the end of run()"
    ] * 4
    program.close()


@pytest.mark.parametrize("run", ["program.run()", "asyncio.run(program.run_async())"])
def test_closing_the_engine_while_it_runs(run: str) -> None:
    """The engine lives on, with its epochs, until the program ends; the epochs of other programs go on, too."""
    check_script(
        f"""
        import asyncio
        from wasmtime import FuncType
        from greenctx.wasix import Limits, Program, TimeLimitExceeded

        limit = Limits(seconds=0.1)
        program = Program(b'''(module (import "host" "close" (func $close))
          (func (export "_start") (call $close) (loop (br 0))))''', limits=limit)
        program.linker.define_func("host", "close", FuncType([], []), program.linker.engine.close)
        other = Program(b'(module (func (export "_start") (loop (br 0))))', limits=limit)
        for program in (program, other):
            try:
                {run}
            except TimeLimitExceeded:
                pass
            else:
                raise AssertionError
            program.close()
        """
    )


def test_closing_after_a_failure() -> None:
    """However a run ended, the program can run again, and be closed."""
    with Program(b'(module (func (export "_start") unreachable))') as program:
        for _ in range(3):
            with pytest.raises(Trap):
                program.run()


WAITS = f"""(module {IMPORTS} (import "host" "wait" (func $wait))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $waits $spins))
  (func $waits (call $wait))
  (func $spins (loop (br 0)))
  (func $start (param $entry i32)
    (if (call $create (i32.const 0) (local.get $entry)) (then unreachable))
    (if (call $switch (i64.load (i32.const 0))) (then unreachable)))
  (func (export "_start")
    (drop (call $write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40)))
    (call $start (i32.const 0))
    (call $start (i32.const 0))
    END))"""

ENDS = {
    "returns": "",
    "exits": "(call $exit (i32.const 3))",
    "traps": "unreachable",
    "a context returns": "(drop (call $switch (i64.const 1)))",
    "runs out of time": "(call $start (i32.const 1))",
}


def waits(end: str) -> Callable[[], None]:
    def wait() -> None:
        current_environment().switch_context(0)

    def scenario() -> None:
        seconds = 0.001 if end == "runs out of time" else None
        program = Program(
            WAITS.replace("END", ENDS[end]).encode(),
            limits=Limits(contexts=5, memory=2**20, seconds=seconds),
            stdin=b"abc",
            stdout=io.BytesIO(),
        )
        program.linker.define_func("host", "wait", signature("->"), wait)
        with program:
            try:
                program.run()
            except (Trap, TimeLimitExceeded, Exception) as error:
                error.__traceback__ = None

    return scenario


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left(end: str, long: bool) -> None:
    """Programs leave neither objects nor memory behind, without Python's collector."""
    assert_no_leak(waits(end), repeats=50 if long else 20)


def test_nothing_is_left_of_host_functions_that_know_their_program() -> None:
    """close() breaks the cycle, which the collector cannot see."""

    def scenario() -> None:
        with Program(b'(module (import "host" "f" (func $f)) (func (export "_start") (call $f)))') as program:
            program.linker.define_func("host", "f", signature("->"), lambda: program.name and None)
            program.run()

    assert_no_leak(scenario, repeats=20)


def test_nothing_is_left_of_shadow_stacks() -> None:
    """Shadow stacks, which refer to the store, leave nothing behind either."""
    text = f"""(module {IMPORTS} (memory (export "memory") 2)
      (global (export "__stack_pointer") (mut i32) (i32.const 65536))
      (table (export "__indirect_function_table") funcref (elem $other))
      (func $other (drop (call $switch (i64.const 0))))
      (func (export "_start")
        (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))))"""

    def scenario() -> None:
        with Program(text.encode(), shadow_stack=65536) as program:
            assert program.run() == 0

    assert_no_leak(scenario, repeats=20)
