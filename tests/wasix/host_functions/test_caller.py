"""The `Caller`: a host function's view of the guest that calls it, and how long it is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from guests.embedding import Embedding

from greenctx.wasix import call

if TYPE_CHECKING:
    from wasmtime import Func, Memory

    from greenctx.wasix import Caller


def test_caller() -> None:
    """With access_caller a host function reads and writes the guest's memory, and sees its exports."""
    embedding = Embedding()

    def double(caller: Caller, pointer: int) -> None:
        memory = cast("Memory", caller["memory"])
        assert caller.get("nothing") is None
        with pytest.raises(KeyError):
            caller["nothing"]
        text = memory.read(caller, pointer, pointer + 4)
        memory.write(caller, text * 2, pointer)
        assert call(caller, cast("Func", caller["seven"])) == call(embedding.store, cast("Func", caller["seven"])) == 7

    embedding.define("double", "i32 ->", double, access_caller=True)
    embedding.load(
        """(module (import "host" "double" (func $double (param i32))) (memory (export "memory") 1)
          (data (i32.const 100) "abcd") (func (export "double") (call $double (i32.const 100)))
          (func (export "seven") (result i32) (i32.const 7)))"""
    ).call("double")
    assert embedding.memory.read(embedding.store, 100, 110) == b"abcdabcd\0\0"


def test_caller_after_a_switch() -> None:
    """The caller is good while its function waits for others, whatever they do to the guest, and no longer."""
    embedding, callers = Embedding(), []

    def wait(caller: Caller) -> None:
        callers.append(caller)
        embedding.env.switch_context(1 - embedding.env.active_context_id)
        memory = cast("Memory", caller["memory"])
        memory.write(caller, b"!", memory.data_len(caller) - 1)

    def other() -> None:
        embedding.call("wait_and_grow")
        embedding.call("wait_and_grow")

    def main() -> None:
        embedding.env.create_context(other)
        embedding.call("wait_and_grow")
        embedding.call("wait_and_grow")

    embedding.define("wait", "->", wait, access_caller=True)
    embedding.load(
        """(module (import "host" "wait" (func $wait)) (memory (export "memory") 1)
          (func (export "wait_and_grow") (call $wait) (drop (memory.grow (i32.const 1)))))"""
    ).run(main)
    assert embedding.memory.size(embedding.store) == 4
    assert [embedding.memory.read(embedding.store, n * 65536 - 1, n * 65536) for n in (1, 2, 3)] == [b"!"] * 3
    for caller in callers:
        assert caller.get("memory") is None
        with pytest.raises(KeyError):
            caller["memory"]
        with pytest.raises(ValueError, match="caller is no longer valid"):
            embedding.memory.read(caller, 0, 1)
        with pytest.raises(ValueError, match="caller is no longer valid"):
            call(caller, embedding.func("wait_and_grow"))
