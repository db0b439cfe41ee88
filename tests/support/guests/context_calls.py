"""A guest that makes the context calls that a test asks for, with pointers of either width."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from wasmtime import Global

    from guests.embedding import Embedding

SUCCESS, AGAIN, INVAL, NOTSUP, MEMVIOLATION = 0, 6, 28, 58, 78
PAGE = 65536
# Indices of the guest's table; 5 is null.
SWITCHES_BACK, TAKES, RETURNS, TRAPS, FIFTH, NULL, TABLE_SIZE = range(7)


def calls(pointer: str = "i32") -> str:
    """The functions that make the calls."""
    return f"""
      (func (export "create") (param {pointer} i32) (result i32) (call $create (local.get 0) (local.get 1)))
      (func (export "switch") (param i64) (result i32) (call $switch (local.get 0)))
      (func (export "destroy") (param i64) (result i32) (call $destroy (local.get 0)))
    """


def guest_text(imports: str, memory: str, pointer: str = "i32", functions: str = "") -> str:
    """The guest. ``imports`` or ``functions`` have ``$fifth``, of the table."""
    return f"""(module {imports}
      (memory (export "memory") {memory})
      (global $runs (export "runs") (mut i32) (i32.const 0))
      (table (export "__indirect_function_table") {TABLE_SIZE} funcref)
      (elem (i32.const 0) $switches_back $takes $returns $traps $fifth)
      (func $switches_back
        (global.set $runs (i32.add (global.get $runs) (i32.const 1)))
        (loop (drop (call $switch (i64.const 0))) (br 0)))
      (func $takes (param i32) unreachable)
      (func $returns (result i32) unreachable)
      (func $traps unreachable)
      {functions}
      {calls(pointer)})"""


def created(embedding: Embedding, entrypoint: int = SWITCHES_BACK) -> int:
    """Create a context; return its id."""
    assert embedding.call("create", 8, entrypoint) == SUCCESS
    return int.from_bytes(embedding.memory.read(embedding.store, 8, 16), "little")


def runs(embedding: Embedding) -> int:
    """Return how many contexts have begun to run."""
    return cast("int", cast("Global", embedding.exports["runs"]).value(embedding.store))
