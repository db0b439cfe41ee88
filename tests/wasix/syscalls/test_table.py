"""The table of system calls: each argument is unsigned, and one place says what answers a bad pointer."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from wasmtime import FuncType, ValType

from greenctx.wasix import Linker, Program
from greenctx.wasix._modules.abi import FAULT, MEMVIOLATION, WASI_MODULE, WASIX_MODULE
from greenctx.wasix._syscalls import table
from greenctx.wasix._syscalls.table import SystemCall

if TYPE_CHECKING:
    from collections.abc import Iterable

CALLS = {
    WASI_MODULE: {
        "fd_read": "(i32.const 0) (i32.const -8) (i32.const 1) (i32.const 0)",
        "fd_write": "(i32.const 1) (i32.const 65535) (i32.const 1) (i32.const 0)",
        "poll_oneoff": "(i32.const -8) (i32.const 0) (i32.const 1) (i32.const 0)",
        "path_unlink_file": "(i32.const 3) (i32.const -8) (i32.const 4)",
    },
    WASIX_MODULE: {
        "context_create": "(i32.const -8) (i32.const 1)",
        "futex_wake": "(i32.const 0) (i32.const -1)",
        "getcwd": "(i32.const 0) (i32.const 65533)",
        "chdir": "(i32.const -8) (i32.const 4)",
    },
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, calls in CALLS.items() for name in calls])
@pytest.mark.parametrize("answer", [FAULT, MEMVIOLATION])
def test_bad_pointer(module: str, name: str, answer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call of a module returns the errno that the table has for the module."""
    monkeypatch.setitem(table.BAD_POINTER, module, answer)
    arguments = CALLS[module][name]
    guest = f"""(module
      (import "wasix_32v1" "proc_exit2" (func $exit (param i32)))
      (import "wasix_32v1" "getcwd" (func (param i32 i32) (result i32)))
      (import "{module}" "{name}" (func $call (param {"i32 " * arguments.count("(")}) (result i32)))
      (memory (export "memory") 1)
      (table (export "__indirect_function_table") 2 funcref) (elem (i32.const 1) $f) (func $f)
      (func (export "_start") (call $exit (call $call {arguments}))))"""
    with Program(guest.encode(), stdin=b"", stdout=io.BytesIO()) as program:
        assert program.run() == answer


def test_unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the table gets no negative argument, of either width. Host functions of users get signed ones."""
    got: list[object] = []

    def note(*args: object) -> int:
        got.append(args)
        return 0

    def calls(_: object, *, files: bool) -> Iterable[SystemCall]:  # noqa: ARG001
        yield SystemCall("test", "note", "i32 i64 -> i32", note, needs_caller=False)

    monkeypatch.setattr("greenctx.wasix._linking.linker.WasixCalls.calls", calls)
    guest = """(module (import "test" "note" (func $note (param i32 i64) (result i32)))
      (import "test" "signed" (func $signed (param i32 i64) (result i32)))
      (func (export "_start")
        (drop (call $note (i32.const -1) (i64.const -2))) (drop (call $signed (i32.const -1) (i64.const -2)))))"""
    with Program(guest.encode()) as program:
        assert isinstance(program.linker, Linker)
        program.linker.define_func("test", "signed", FuncType([ValType.i32(), ValType.i64()], [ValType.i32()]), note)
        program.run()
    assert got == [(2**32 - 1, 2**64 - 2), (-1, -2)]
