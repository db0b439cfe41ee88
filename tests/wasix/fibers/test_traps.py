"""A guest's trap: what it tells, and that it can leave the process."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import wasmtime
from wasmtime import TrapCode

from greenctx import GreenctxError, Statistics
from greenctx.wasix import GuestException, GuestFrame, GuestTrap, Linker, Program, call

TRAPPING = b"""(module $guest
    (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
    (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
    (memory (export "memory") 1)
    (table (export "__indirect_function_table") 2 funcref)
    (elem (i32.const 1) $worker)
    (func $inner (drop (i32.div_s (i32.const 1) (i32.const 0))))
    (func $worker (call $inner))
    (func (export "_start")
      (drop (call $create (i32.const 0) (i32.const 1)))
      (drop (call $switch (i64.const 1)))))"""


def trap_of(code: bytes, **settings: Any) -> GuestTrap:
    with pytest.raises(GuestTrap) as raised:
        Program(code, **settings).run()
    return raised.value


def test_facts() -> None:
    """A trap has its code, frames, message and context, wherever it is raised."""
    trap = trap_of(TRAPPING)
    assert isinstance(trap, GreenctxError)
    assert isinstance(trap, wasmtime.Trap)
    assert trap.code is trap.trap_code is TrapCode.INTEGER_DIVISION_BY_ZERO
    assert (trap.context_id, trap.context_name) == (1, "worker")
    assert [(frame.module_name, frame.func_name) for frame in trap.frames] == [("guest", "inner"), ("guest", "worker")]
    assert [frame.func_index for frame in trap.frames] == [2, 3]
    assert all(frame.module_offset > frame.func_offset > 0 for frame in trap.frames)
    assert str(trap) == trap.message
    assert "wasm trap: integer divide by zero" in trap.message
    assert "guest!inner" in trap.message
    [note] = trap.__notes__
    assert "main" not in note.split("guest!")[0]
    assert "guest!<wasm function 4>" in note or "_start" in note  # where main waited
    observed = trap_of(TRAPPING, instruments=[Statistics()])
    assert (observed.context_id, observed.context_name) == (1, "worker")


def test_in_main_and_without_an_environment() -> None:
    """Where there are no contexts, it is main's."""
    code = b'(module (func (export "_start") unreachable))'
    for contexts in (True, False):
        trap = trap_of(code, contexts=contexts)
        assert (trap.context_id, trap.context_name) == (0, "main")
        assert trap.code is TrapCode.UNREACHABLE
    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    instance = Linker(engine).instantiate(store, wasmtime.Module(engine, '(module (func (export "f") unreachable))'))
    with pytest.raises(GuestTrap) as raised:
        call(store, instance.exports(store)["f"])  # type: ignore[arg-type]
    assert raised.value.context_id == 0


def test_a_copy_is_whole() -> None:
    """Pickled or copied it has all that it had, notes included; it needs neither the store nor wasmtime's own trap."""
    trap = trap_of(TRAPPING)
    trap.add_note("a note")
    for other in (pickle.loads(pickle.dumps(trap)), copy.copy(trap), copy.deepcopy(trap)):
        assert type(other) is GuestTrap
        assert str(other) == str(trap)
        assert (other.code, other.frames, other.message) == (trap.code, trap.frames, trap.message)
        assert (other.context_id, other.context_name) == (1, "worker")
        assert other.__notes__ == trap.__notes__
        assert isinstance(other.frames[0], GuestFrame)
        other.close()  # as a wasmtime.Trap has it


def test_an_exception_keeps_its_notes() -> None:
    """A GuestException leaves behind what belongs to its store, and keeps its payload and its notes."""
    code = b"""(module (tag $error (param i32))
        (func $inner (throw $error (i32.const 7))) (func (export "_start") (call $inner)))"""
    with pytest.raises(GuestException) as raised:
        Program(code).run()
    raised.value.add_note("a note")
    other = pickle.loads(pickle.dumps(raised.value))
    assert (other.payload, other.tag, other.reference) == ((7,), None, None)
    assert other.__notes__ == raised.value.__notes__
    assert other.__notes__[-1] == "a note"
