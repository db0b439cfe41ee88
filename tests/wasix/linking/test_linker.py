"""Linker: as wasmtime's own, for stores of the embedder's, with host functions that may switch."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import pytest
from guests.embedding import ENGINE, Embedding, compiled, signature
from wasmtime import Func, Store, WasiConfig, WasmtimeError

from greenctx.wasix import GuestExit, Linker, Stdio, call

if TYPE_CHECKING:
    from greenctx.wasix import Caller


def test_definitions_do_not_shadow() -> None:
    """To define a name twice is an error unless allow_shadowing is set, which can be read back."""
    linker = Linker(ENGINE)
    assert not linker.allow_shadowing
    linker.define_func("host", "f", signature("-> i32"), lambda: 1)
    with pytest.raises(WasmtimeError, match="`host::f` defined twice"):
        linker.define_func("host", "f", signature("-> i32"), lambda: 2)
    linker.allow_shadowing = True
    assert linker.allow_shadowing
    linker.define_func("host", "f", signature("-> i32"), lambda: 3)
    store = Store(ENGINE)
    assert call(store, cast("Func", linker.get(store, "host", "f"))) == 3


@pytest.mark.parametrize("allowed", [False, True])
def test_define_wasi_leaves_shadowing_as_it_was(allowed: bool) -> None:
    """define_wasi replaces one of wasmtime's functions, even if the embedder may not."""
    linker = Linker(ENGINE)
    linker.allow_shadowing = allowed
    linker.define_wasi()
    assert linker.allow_shadowing is allowed
    if allowed:
        linker.define_wasi()
    else:
        with pytest.raises(WasmtimeError, match="defined twice"):
            linker.define_func("wasi_snapshot_preview1", "proc_exit", signature("i32 ->"), print)


@pytest.mark.parametrize("in_context", [False, True])
def test_proc_exit(in_context: bool) -> None:
    """Without Program, proc_exit is a GuestExit with the status, from whichever context."""
    embedding = Embedding()
    embedding.store.set_wasi(WasiConfig())
    embedding.linker.define_wasi()
    embedding.load(
        """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 0)
          (func (export "leave") (call $exit (i32.const 200)) unreachable))"""
    )

    def main() -> None:
        if in_context:
            embedding.env.switch_context(embedding.env.create_context(lambda: embedding.call("leave")))
        embedding.call("leave")

    with pytest.raises(GuestExit) as raised:
        embedding.run(main)
    assert raised.value.status == 200


def test_one_linker_for_several_stores() -> None:
    """Host functions belong to no store: one linker serves as many stores as one likes, in turns."""
    embedding = Embedding()
    embedding.define("swap", "i32 -> i32", embedding.swap)
    module = compiled(
        """(module (import "host" "swap" (func $swap (param i32) (result i32)))
          (global $sum (mut i32) (i32.const 0))
          (func (export "add") (param i32) (result i32)
            (global.set $sum (i32.add (global.get $sum) (call $swap (local.get 0)))) (global.get $sum)))"""
    )
    results: dict[int, object] = {}

    def count(step: int) -> None:
        store = Store(ENGINE)
        add = cast("Func", embedding.linker.instantiate(store, module).exports(store)["add"])
        results[step] = [call(store, add, step) for _ in range(3)]

    def other() -> None:
        count(10)
        embedding.env.switch_context(0)

    def main() -> None:
        embedding.env.create_context(other)
        count(1)
        embedding.env.switch_context(1)

    embedding.run(main)
    assert results == {1: [1, 2, 3], 10: [10, 20, 30]}


def test_instantiate_from_a_host_function() -> None:
    """A host function may instantiate modules, in the store of its caller."""
    embedding = Embedding()

    def load(caller: Caller) -> int:
        exports = embedding.linker.instantiate(
            caller, compiled('(module (func (export "f") (result i32) (i32.const 9)))')
        )
        result = call(caller, cast("Func", exports.exports(caller)["f"]))
        assert isinstance(result, int)
        return result

    embedding.define("load", "-> i32", load, access_caller=True)
    embedding.load('(module (import "host" "load" (func $load (result i32))) (export "load" (func $load)))')
    assert embedding.run_guest("load") == 9


def test_start_function_that_fails() -> None:
    """instantiate raises the error of a start function's import unchanged; the store stays usable."""
    embedding = Embedding()
    error = LookupError("original")

    def fail() -> None:
        raise error

    embedding.define("fail", "->", fail)
    with pytest.raises(LookupError) as raised:
        embedding.load('(module (import "host" "fail" (func $fail)) (func $starter (call $fail)) (start $starter))')
    assert raised.value is error
    assert "starter" in error.__notes__[0]
    assert embedding.load('(module (func (export "one") (result i32) (i32.const 1)))').call("one") == 1


def test_two_linkers_in_one_store() -> None:
    """Each linker's guests write to the standard streams of their linker."""
    store = Store(ENGINE)
    store.set_wasi(WasiConfig())
    module = compiled(
        """(module (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1) (data (i32.const 0) "\\08\\00\\00\\00\\02\\00\\00\\00hi")
          (func (export "write") (result i32)
            (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16))))"""
    )
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        linker = Linker(ENGINE)
        linker.define_wasi(Stdio(stdout=file))
        write = linker.instantiate(store, module).exports(store)["write"]
        assert isinstance(write, Func)
        assert call(store, write) == 0
    assert [file.getvalue() for file in files] == [b"hi", b"hi"]
