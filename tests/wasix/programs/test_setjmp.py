"""setjmp and longjmp (stack_checkpoint, stack_restore) of guests in the form that Asyncify produces."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from guests.embedding import IMPORTS
from wasmtime import Trap

from greenctx.errors import TimeLimitExceeded
from greenctx.wasix import Limits, Program
from greenctx.wasix._syscalls.of_wasix import setjmp

ASYNCIFY = """
  (global $state (mut i32) (i32.const 0)) (global $data (mut i32) (i32.const 0))
  (func (export "asyncify_start_unwind") (param i32) (global.set $state (i32.const 1)) (global.set $data (local.get 0)))
  (func (export "asyncify_stop_unwind") (global.set $state (i32.const 0)))
  (func (export "asyncify_start_rewind") (param i32) (global.set $state (i32.const 2)) (global.set $data (local.get 0)))
  (func (export "asyncify_stop_rewind") (global.set $state (i32.const 0)))
  (func $push (param i32)
    (i32.store (i32.load (global.get $data)) (local.get 0))
    (i32.store (global.get $data) (i32.add (i32.load (global.get $data)) (i32.const 4))))
  (func $pop (result i32)
    (i32.store (global.get $data) (i32.sub (i32.load (global.get $data)) (i32.const 4)))
    (i32.load (i32.load (global.get $data))))
  (func $unwinds (result i32) (i32.eq (global.get $state) (i32.const 1)))"""

BUFFER = 1024  # the guest's jmp_buf
POINTER = '(global $sp (export "__stack_pointer") (mut i32) (i32.const 4096))'

MAIN = """(func $main (local $i i32) (local $value i64)
    (if (i32.eq (global.get $state) (i32.const 2)) (then (local.set $i (call $pop)))
      (else
        (local.set $i (i32.const 7))
        (global.set $sp (i32.const 3000))))
    (drop (call $checkpoint (i32.const 1024) (i32.const 2048)))
    (if (call $unwinds) (then (call $push (local.get $i)) (return)))
    (local.set $value (i64.load (i32.const 2048)))
    (if (i32.ne (global.get $sp) (i32.const 3000)) (then unreachable))
    (global.set $sp (i32.const 2000))
    (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1)))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    BETWEEN
    (if (i64.lt_u (local.get $value) (i64.const 3)) (then
      (call $restore (i32.const FROM) (i64.add (local.get $value) (i64.const 1)))
      (if (call $unwinds) (then (call $push (i32.const 0)) (return)))
      unreachable))
    (call $exit (i32.add (i32.mul (local.get $i) (i32.const 10)) (i32.load (i32.const 8)))))"""
"""Returns from its checkpoint four times, with 0 to 3. Its local has the first value each time."""


def guest(
    main: str = MAIN,
    *,
    between: str = "",
    restored_from: int = BUFFER,
    asyncify: str = ASYNCIFY,
    pointer: str = POINTER,
    functions: str = "",
) -> bytes:
    main = main.replace("BETWEEN", between).replace("FROM", str(restored_from))
    return f"""(module {IMPORTS}
      (import "wasix_32v1" "stack_checkpoint" (func $checkpoint (param i32 i32) (result i32)))
      (import "wasix_32v1" "stack_restore" (func $restore (param i32 i64)))
      (import "wasix_32v1" "callback_signal" (func $callback (param i32 i32)))
      (import "wasix_32v1" "proc_raise_interval" (func $timer (param i32 i64 i32) (result i32)))
      (import "wasix_32v1" "proc_raise" (func $raise (param i32) (result i32)))
      (import "wasix_32v1" "proc_exit2" (func $exit (param i32)))
      (memory (export "memory") 1)
      (table (export "__indirect_function_table") 2 funcref)
      (data (i32.const 100) "__wasm_signal")
      {pointer} {asyncify} {functions} {main}
      (func (export "_start") (call $main)))""".encode()


def run(code: bytes, **settings: Any) -> int:
    with Program(code, **{"stdin": b"", "stdout": io.BytesIO(), "limits": Limits(seconds=100), **settings}) as program:
        return program.run()


def test_longjmp() -> None:
    """The checkpoint returns again with each value. Locals and the stack pointer are restored, memory is not."""
    for _ in range(2):
        assert run(guest()) == 84
    with Program(guest(), stdin=b"") as program:
        assert [program.run(), program.run(), asyncio.run(program.run_async())] == [84] * 3


def test_a_copied_jmp_buf() -> None:
    """A program may copy its snapshot of a checkpoint, and overwrite the original, as bash does."""
    copy = """(memory.copy (i32.const 3000) (i32.const 1024) (i32.const 24))
      (memory.fill (i32.const 1024) (i32.const 255) (i32.const 24))"""
    first = f"(if (i64.eqz (local.get $value)) (then {copy}))"
    assert run(guest(between=first, restored_from=3000)) == 84


def test_signals() -> None:
    """No handler runs while the guest returns from its calls or repeats them, because it would do the same."""
    handler = """(func (export "__wasm_signal") (param i32)
      (if (global.get $state) (then unreachable))
      (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 1))))"""
    start = """(if (i32.eqz (i32.load (i32.const 12))) (then
      (i32.store (i32.const 12) (i32.const 1))
      (call $callback (i32.const 100) (i32.const 13))
      (drop (call $timer (i32.const 14) (i64.const 1) (i32.const 1)))))"""
    main = MAIN.replace("(if (i32.eq (global.get $state)", f"{start} (if (i32.eq (global.get $state)", 1)
    spin = """(i32.store (i32.const 16) (i32.load (i32.const 4)))
      (loop $on (br_if $on (i32.eq (i32.load (i32.const 16)) (i32.load (i32.const 4)))))"""
    assert run(guest(main, between=spin, functions=handler)) == 84


CANNOT = r"^the guest called stack_restore \(longjmp\) for a checkpoint that greenctx cannot return to"
ONCE = """(func $main
    (drop (call $checkpoint (i32.const 1024) (i32.const 2048)))
    BETWEEN
    (call $restore (i32.const FROM) (i64.const 1)))"""
"""A guest that restores at once, without all exports of Asyncify."""


@pytest.mark.parametrize(
    ("asyncify", "pointer"),
    [
        ("", POINTER),
        (ASYNCIFY, ""),
        (ASYNCIFY, '(global (export "__stack_pointer") i32 (i32.const 4096))'),
        (ASYNCIFY.replace('(export "asyncify_stop_rewind")', ""), POINTER),
        (ASYNCIFY.replace('"asyncify_start_unwind") (param i32)', '"asyncify_start_unwind") (param i32 i32)'), POINTER),
    ],
)
def test_without_asyncify(asyncify: str, pointer: str) -> None:
    """Without all exports of Asyncify, setjmp returns for the first time, and longjmp is a trap that says so."""
    returns = "(func $main (call $exit (i32.add (i32.const 5) (call $checkpoint (i32.const 1024) (i32.const 2048)))))"
    assert run(guest(returns, asyncify=asyncify, pointer=pointer)) == 5
    with pytest.raises(Trap, match=CANNOT):
        run(guest(ONCE, asyncify=asyncify, pointer=pointer))


def test_unknown_checkpoints() -> None:
    """A restore without a checkpoint traps, and so does a pointer to outside of the memory."""
    for address in (5000, BUFFER + 1, BUFFER - 16):
        with pytest.raises(Trap, match=CANNOT):
            run(guest(restored_from=address))
    for address in (65536, 65536 - 23, -1, 2**31):
        with pytest.raises(Trap, match=r"with a pointer to outside its memory"):
            run(guest(ONCE, asyncify="", restored_from=address))


def test_in_the_middle_of_other_calls() -> None:
    """In a context, and in a signal handler, a restore traps, because the guest cannot return from all of its calls."""
    tries = """(drop (call $checkpoint (i32.const 3000) (i32.const 2048)))
      (if (global.get $state) (then unreachable))
      (call $restore (i32.const 3000) (i64.const 1))"""
    functions = f'(func $try {tries}) (elem (i32.const 1) $try) (func (export "__wasm_signal") (param i32) {tries})'
    context = "(drop (call $create (i32.const 512) (i32.const 1))) (drop (call $switch (i64.const 1)))"
    signal = "(call $callback (i32.const 100) (i32.const 13)) (drop (call $raise (i32.const 14)))"
    for between in (context, signal):
        with pytest.raises(Trap, match=CANNOT):
            run(guest(between=between, functions=functions))


def test_no_room() -> None:
    """If the memory cannot grow, or contexts have their own stacks, there is only the first return."""
    for settings in ({"limits": Limits(memory=2 * 65536)}, {"shadow_stack": 4096}):
        with pytest.raises(Trap, match=CANNOT):
            run(guest(), **settings)


def test_old_checkpoints_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host keeps a limited number of bytes of checkpoints."""
    monkeypatch.setattr(setjmp, "MAX_SAVED", 4)
    assert run(guest()) == 84
    monkeypatch.setattr(setjmp, "MAX_SAVED", 3)
    with pytest.raises(Trap, match=CANNOT):
        run(guest())


def test_hostile_asyncify() -> None:
    """A guest may do anything in these functions. It still ends, traps, or meets its time limit."""
    ignored = ASYNCIFY.replace("(global.set $state (i32.const 1))", "").replace("(global.set $state (i32.const 2))", "")
    returns = "(func $main (drop (call $checkpoint (i32.const 1024) (i32.const 2048))))"
    assert run(guest(returns, asyncify=ignored)) == 0
    for end in (0, 65536, 65536 + 7, 65536 * 17 + 1, -1, -(2**31)):
        lies = f"""(func $main (drop (call $checkpoint (i32.const 1024) (i32.const 2048)))
          (i32.store (global.get $data) (i32.const {end})))"""
        with pytest.raises(Trap, match="saved its calls elsewhere"):
            run(guest(lies))
    again = f"{returns.removesuffix(')')} (drop (call $checkpoint (i32.const 1024) (i32.const 2048))))"
    with pytest.raises(TimeLimitExceeded):
        run(guest(again, asyncify=ignored), limits=Limits(seconds=0.2))
    with pytest.raises(Trap, match="unreachable"):
        run(guest(asyncify=ASYNCIFY.replace('rewind") (param i32)', 'rewind") (param i32) unreachable')))


def test_64_bits() -> None:
    """Programs with 64-bit pointers have the first return, and the trap."""
    text = """(module
      (import "wasix_64v1" "stack_checkpoint" (func $checkpoint (param i64 i64) (result i32)))
      (import "wasix_64v1" "stack_restore" (func $restore (param i64 i64)))
      (memory (export "memory") i64 1)
      (func (export "_start")
        (if (call $checkpoint (i64.const 0) (i64.const 64)) (then (return)))
        (call $restore (i64.const 0) (i64.const 1))))"""
    with pytest.raises(Trap, match=CANNOT):
        run(text.encode())
