"""How a program ends when it ends within a context, whatever the compiler makes of it; and that a trap is a trap."""

from __future__ import annotations

import pytest
from guests.compile import TOOLCHAIN, compile_guest
from guests.embedding import IMPORTS
from processes import run_greenctx
from wasmtime import Trap, TrapCode

from greenctx import ContextEntrypointReturned
from greenctx.wasix import Program

each_level = pytest.mark.parametrize(
    "level", [("-O0",), ("-O1",), ("-O2",), ("-O1", *TOOLCHAIN)], ids=["-O0", "-O1", "-O2", "toolchain"]
)


@each_level
def test_exit_in_a_context(level: tuple[str, ...]) -> None:
    """The program exits with that status; atexit handlers run, on the context's stack. Contexts are left suspended."""
    ran = run_greenctx("run", "--shared-stack", compile_guest("endings", *level), "exit-in-context", "43")
    assert (ran.returncode, ran.stdout, ran.stderr) == (43, b"exit in a context\natexit handler\n", b"")


@each_level
def test_main_returns_with_contexts_suspended(level: tuple[str, ...]) -> None:
    """Suspended contexts are destroyed when main returns; the status is main's."""
    ran = run_greenctx("run", "--shared-stack", compile_guest("endings", *level), "leave-suspended", "17")
    assert (ran.returncode, ran.stdout, ran.stderr) == (17, b"atexit handler\n", b"")


@each_level
def test_entrypoint_that_returns(level: tuple[str, ...]) -> None:
    """Status 129; stderr says which context it was; main does not go on."""
    ran = run_greenctx("run", "--shared-stack", compile_guest("endings", *level), "return-from-entrypoint")
    assert (ran.returncode, ran.stdout) == (129, b"the entrypoint returns\n")
    assert ran.stderr.startswith(b"greenctx: the entrypoint of context 2 returned;")
    with pytest.raises(ContextEntrypointReturned) as raised:
        Program.from_file(compile_guest("endings", *level), argv=["", "return-from-entrypoint"]).run()
    assert raised.value.context_id == 2


@each_level
@pytest.mark.parametrize("mode", ["trap", "trap-in-context", "abort-in-context"])
def test_trap(level: tuple[str, ...], mode: str) -> None:
    """Status 134 and the guest's backtrace; main does not go on."""
    ran = run_greenctx("run", "--shared-stack", compile_guest("endings", *level), mode)
    assert (ran.returncode, ran.stdout) == (134, b"")
    assert b"wasm backtrace" in ran.stderr
    assert b"Traceback" not in ran.stderr


TRAPS = {
    "unreachable": ("unreachable", TrapCode.UNREACHABLE),
    "division by zero": ("(drop (i32.div_u (i32.const 1) (global.get $zero)))", TrapCode.INTEGER_DIVISION_BY_ZERO),
    "overflow": ("(drop (i32.div_s (i32.const -2147483648) (global.get $minus)))", TrapCode.INTEGER_OVERFLOW),
    "conversion": ("(drop (i32.trunc_f64_s (f64.const nan)))", TrapCode.BAD_CONVERSION_TO_INTEGER),
    "memory": ("(drop (i32.load (global.get $minus)))", TrapCode.MEMORY_OUT_OF_BOUNDS),
    "table": ("(call_indirect (type $nothing) (i32.const 7))", TrapCode.TABLE_OUT_OF_BOUNDS),
    "null": ("(call_indirect (type $nothing) (i32.const 3))", TrapCode.INDIRECT_CALL_TO_NULL),
    "signature": ("(call_indirect (type $other) (i32.const 0) (i32.const 0))", TrapCode.BAD_SIGNATURE),
    "stack": ("(call $deeper)", TrapCode.STACK_OVERFLOW),
}


@pytest.mark.parametrize("by_way_of_another", [False, True], ids=["from main", "from a context"])
@pytest.mark.parametrize(("body", "code"), TRAPS.values(), ids=[*TRAPS])
def test_kinds_of_traps(body: str, code: TrapCode, by_way_of_another: bool) -> None:
    """A context's trap, of whichever kind, is the same trap in main, whoever had switched to the context; no context
    goes on, and main does not either. The next program is not touched by it."""
    text = f"""(module {IMPORTS} (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (type $nothing (func)) (type $other (func (param i32)))
      (memory (export "memory") 1)
      (global $zero (mut i32) (i32.const 0)) (global $minus (mut i32) (i32.const -1))
      (table (export "__indirect_function_table") 4 funcref)
      (elem (i32.const 0) $traps $waits $switches)
      (func $deeper (param) (call $deeper) (call $deeper))
      (func $traps {body} (call $exit (i32.const 1)))
      (func $waits (drop (call $switch (i64.const 0))) (call $exit (i32.const 2)))
      (func $switches (drop (call $switch (i64.const 2))) (call $exit (i32.const 3)))
      (func (export "_start")
        (drop (call $create (i32.const 0) (i32.const 1))) (drop (call $switch (i64.const 1)))
        (drop (call $create (i32.const 0) (i32.const 0)))
        (drop (call $create (i32.const 0) (i32.const 2)))
        (drop (call $switch (i64.const {3 if by_way_of_another else 2}))) (call $exit (i32.const 4))))"""
    with pytest.raises(Trap) as raised:
        Program(text.encode()).run()
    assert raised.value.trap_code == code
    assert Program(b'(module (func (export "_start")))').run() == 0
