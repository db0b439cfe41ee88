"""Attacks by WASIX's calls beyond contexts, of guests that import a shared memory."""

from __future__ import annotations

from typing import NamedTuple

from attacks.writing import BADF, INVAL, MEMVIOLATION, NAMETOOLONG, NOENT, TIMED_OUT, TRAPPED, WHATEVER, attack, main

PAGES = 2
END = PAGES * 65536


class Function(NamedTuple):
    """An imported function."""

    name: str
    parameters: str
    module: str = "wasix_32v1"
    returns: str = "(result i32)"

    @property
    def text(self) -> str:
        return f'(import "{self.module}" "{self.name}" (func $call (param {self.parameters}) {self.returns}))'


MEMORY = f"""(import "env" "memory" (memory {PAGES} 65536 shared))
    (data (i32.const 640) "__wasm_signal")
    (data (i32.const 256) "/../../../../etc/passwd")
    (data (i32.const 512) "\\01\\00\\00\\00\\00\\00\\00\\00\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff")"""


def wasix(name: str, status: int | None, function: Function, *values: int, message: str = "", before: str = "") -> None:
    """Exit with the call's result."""
    types = function.parameters.split()
    given = " ".join(f"({ty}.const {value})" for ty, value in zip(types, values, strict=True))
    body = f"(call $exit (call $call {given}))" if function.returns else f"(call $call {given})"
    attack(f"{function.name}: {name}", status, f"{MEMORY} {main(before + body)}", head=function.text, message=message)


POINTERS = {
    "at the end": END,
    "near 2 GiB": 2**31 - 4,
    "at 2 GiB": -(2**31),
    "just above 2 GiB": -(2**31) + 8,
    "near 4 GiB": -8,
    "the last byte of 4 GiB": -1,
}
TWO, FOUR = "i32 i32", "i32 i32 i32 i32"
FUTEX_WAIT = Function("futex_wait", FOUR)
GETCWD, CHDIR = Function("getcwd", TWO), Function("chdir", TWO)
OPEN = Function("path_open2", "i32 i32 i32 i32 i32 i64 i64 i32 i32 i32")
PIPE, DUP = Function("fd_pipe", TWO), Function("fd_dup2", FOUR)
SIGNAL, CALLBACK = Function("thread_signal", TWO), Function("callback_signal", TWO, returns="")
SIGNALS = f"{SIGNAL.text} {CALLBACK.text.replace('$call', '$callback')}"
NAME_HANDLER = "(call $callback (i32.const 640) (i32.const 13))"

for where, pointer in POINTERS.items():
    wasix(f"the result {where}", MEMVIOLATION, Function("proc_signals_sizes_get", "i32"), pointer)
    wasix(f"the result {where}", MEMVIOLATION, Function("proc_id", "i32"), pointer)
    wasix(f"the value {where}", MEMVIOLATION, FUTEX_WAIT, pointer, 0, 512, 64)
    wasix(f"the timeout {where}", MEMVIOLATION, FUTEX_WAIT, 64, 0, pointer, 64)
    wasix(f"the result {where}", MEMVIOLATION, FUTEX_WAIT, 64, 0, 512, pointer)
    for wake in ("futex_wake", "futex_wake_all"):
        wasix(f"the result {where}", MEMVIOLATION, Function(wake, TWO), 64, pointer)
        wasix(f"the value {where}", 0, Function(wake, TWO), pointer, 64)
    wasix(f"the buffer {where}", MEMVIOLATION, GETCWD, pointer, 520)
    wasix(f"the size {where}", MEMVIOLATION, GETCWD, 64, pointer)
    wasix(f"the path {where}", MEMVIOLATION, CHDIR, pointer, 4)
    wasix(f"the path {where}", MEMVIOLATION, OPEN, 3, 0, pointer, 4, 0, 0, 0, 0, 0, 64)
    wasix(f"the result {where}", MEMVIOLATION, OPEN, 3, 0, 256, 4, 0, 0, 0, 0, 0, pointer)
    wasix(f"the first result {where}", MEMVIOLATION, PIPE, pointer, 64)
    wasix(f"the second result {where}", MEMVIOLATION, PIPE, 64, pointer)
    wasix(f"the result {where}", MEMVIOLATION, DUP, 1, 0, 0, pointer)
    wasix(f"the result {where}", MEMVIOLATION, Function("fd_fdflags_get", TWO), 1, pointer)
    wasix(f"the name {where}", 0, CALLBACK, pointer, 4)
    wasix(f"the descriptor {where}", BADF, DUP, pointer, 0, 0, 64)
    wasix(f"the descriptor {where}", BADF, Function("fd_fdflags_get", TWO), pointer, 64)
    wasix(f"the descriptor {where}", BADF, Function("fd_fdflags_set", TWO), pointer, 1)
    wasix(f"the argument {where}", 256 - 6, Function("thread-spawn", "i32", "wasi"), pointer)
    wasix(f"the status {where}", pointer & 0xFF, Function("proc_exit2", "i32", returns=""), pointer)
    wasix(f"the status {where}", 0, Function("thread_exit", "i32", returns=""), pointer)

for length in (-1, 2**31 - 1, -(2**31)):
    wasix(f"{length} bytes", MEMVIOLATION, CHDIR, 256, length)
    wasix(f"{length} bytes", MEMVIOLATION, OPEN, 3, 0, 256, length, 0, 0, 0, 0, 0, 64)
    wasix(f"{length} bytes", 0, CALLBACK, 256, length)
wasix("all of the memory", NAMETOOLONG, CHDIR, 0, END)
wasix("all of the memory", NAMETOOLONG, OPEN, 3, 0, 0, END, 0, 0, 0, 0, 0, 64)
wasix("up and up to /etc/passwd", NOENT, CHDIR, 256, 23)
wasix("up and up to /etc/passwd", NOENT, OPEN, 3, 0, 256, 23, 0, 2, 0, 0, 0, 64)
wasix("all bits set", WHATEVER, OPEN, 3, -1, 256, 23, -1, -1, -1, -1, -1, 64)
wasix("512 times the number of a signal", INVAL, SIGNAL, 0, 512)
wasix("a negative signal", INVAL, SIGNAL, -1, -(2**31))
wasix("for ever", TIMED_OUT, FUTEX_WAIT, 64, 0, 512, 128)
wasix("without end", TRAPPED, FUTEX_WAIT, 64, 0, 128, 128, message="context 0 was about to wait for the lock")
wasix(
    "many",
    33,
    PIPE,
    64,
    64,
    before="(local $n i32) (loop (drop (call $call (i32.const 64) (i32.const 68)))"
    "(br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 20000))))",
)
attack(
    "memory.atomic.wait32 for ever",
    TRAPPED,
    f"{MEMORY} {main('(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))')}",
    head="",
    message="atomic wait on non-shared memory",
)
attack(
    "a handler that raises its signal for ever",
    TIMED_OUT,
    f"""{MEMORY} (func $handle (export "__wasm_signal") (param i32) (drop (call $call (i32.const 0) (local.get 0))))
    {main(NAME_HANDLER + "(call $handle (i32.const 5))")}""",
    head=SIGNALS,
)
for kind, export in {
    "of another type": '(func (export "__wasm_signal") (param i64) unreachable)',
    "with a result": '(func (export "__wasm_signal") (param i32) (result i32) unreachable)',
    "that is a global": '(global (export "__wasm_signal") i32 (i32.const 0))',
    "that is its memory": '(export "__wasm_signal" (memory 0))',
}.items():
    attack(
        f"a handler {kind}",
        0,
        f"{MEMORY} {export} {main(NAME_HANDLER + '(call $exit (call $call (i32.const 0) (i32.const 6)))')}",
        head=SIGNALS,
    )
attack(
    "a handler that traps, in a context",
    TRAPPED,
    f"""{MEMORY} (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $e)
    (func (export "__wasm_signal") (param i32) unreachable) (func $e (drop (call $call (i32.const 0) (i32.const 6))))
    {main(NAME_HANDLER + "(drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))")}""",
    head=SIGNALS,
    message="unreachable",
)
attack(
    "handlers that throw contexts at one another",
    TIMED_OUT,
    f"""{MEMORY} (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $e)
    (global $n (mut i64) (i64.const 0))
    (func $handle (export "__wasm_signal") (param i32)
      (loop
        (drop (call $create (i32.const 0) (i32.const 0)))
        (drop (call $switch (i64.load (i32.const 0))))
        (drop (call $destroy (i64.load (i32.const 0))))
        (br 0)))
    (func $e (drop (call $call (i32.const 0) (i32.const 6))))
    {main(NAME_HANDLER + "(call $e)")}""",
    head=SIGNALS,
)
