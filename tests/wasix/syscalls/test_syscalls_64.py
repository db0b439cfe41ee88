"""The WASIX context calls of guests with 64-bit pointers (``wasix_64v1``): the same rules, and no address wraps."""

from __future__ import annotations

import pytest
from guests.context_calls import (
    AGAIN,
    FIFTH,
    INVAL,
    MEMVIOLATION,
    NOTSUP,
    NULL,
    PAGE,
    RETURNS,
    SUCCESS,
    SWITCHES_BACK,
    TABLE_SIZE,
    TAKES,
    TRAPS,
    created,
    guest_text,
    runs,
)
from guests.embedding import IMPORTS, Embedding
from wasmtime import Trap

from greenctx import ContextEntrypointReturned

IMPORTS_64 = IMPORTS.replace("wasix_32v1", "wasix_64v1").replace("(param i32 i32)", "(param i64 i32)")


def guest(memory: str = "i64 1", imports: str = IMPORTS_64, pointer: str = "i64", **limits: int) -> Embedding:
    return Embedding(**limits).load(guest_text(imports, memory, pointer, "(func $fifth)"))


def signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


@pytest.mark.parametrize(
    "pointer",
    [
        *(PAGE - 7, PAGE - 1, PAGE, PAGE + 8),
        *(2**31 - 8, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1, 2**32, 2**32 + 8, 2**33 + 64),
        *(2**63 - 8, 2**63 - 1, 2**63, 2**63 + 8, 2**64 - PAGE, 2**64 - 16, 2**64 - 8, 2**64 - 7, 2**64 - 1),
    ],
)
def test_create_with_a_pointer_outside_memory(pointer: int) -> None:
    """Not all eight bytes are in memory: memviolation. Nothing is created, and nothing is written: neither where the
    low 32 bits would point, nor around the end."""
    embedding = guest()

    def main() -> None:
        assert embedding.call("create", signed(pointer), SWITCHES_BACK) == MEMVIOLATION
        assert bytes(embedding.memory.read(embedding.store, 0, PAGE)) == bytes(PAGE)
        assert embedding.call("switch", 1) == INVAL
        assert created(embedding) == 1

    embedding.run(main)


@pytest.mark.parametrize(
    ("pages", "pointer"),
    [
        (1, 0),
        (1, PAGE - 8),
        (32769, 2**31 - 4),
        (65537, 2**32 - 8),
        (65537, 2**32 - 4),
        (65537, 2**32),
        (65537, 2**32 + PAGE - 8),
    ],
)
def test_create_at_the_ends_of_memory(pages: int, pointer: int) -> None:
    """The id goes where the pointer points, beyond 4 GiB as well."""
    embedding = guest(f"i64 {pages}")

    def main() -> None:
        assert embedding.call("create", pointer, SWITCHES_BACK) == SUCCESS
        assert bytes(embedding.memory.read(embedding.store, pointer, pointer + 8)) == b"\1" + bytes(7)
        if pointer >= 2**32:
            assert bytes(embedding.memory.read(embedding.store, pointer - 2**32, pointer - 2**32 + 8)) == bytes(8)

    embedding.run(main)


@pytest.mark.parametrize("entrypoint", [TAKES, RETURNS, NULL, TABLE_SIZE, 2**31 - 1, -(2**31), -1])
def test_create_with_a_wrong_entrypoint(entrypoint: int) -> None:
    """No function of type () -> () there: inval, at once; nothing is written and no id used up."""
    embedding = guest()

    def main() -> None:
        assert embedding.call("create", 8, entrypoint) == INVAL
        assert bytes(embedding.memory.read(embedding.store, 0, PAGE)) == bytes(PAGE)
        assert created(embedding) == 1

    embedding.run(main)


@pytest.mark.parametrize(
    ("memory", "imports", "pointer", "address", "errno"),
    [
        ("1", IMPORTS_64, "i64", 2**32 + 8, MEMVIOLATION),
        ("1", IMPORTS_64, "i64", 8, SUCCESS),
        ("i64 65537", IMPORTS, "i32", -8, SUCCESS),
    ],
)
def test_pointers_of_another_width(memory: str, imports: str, pointer: str, address: int, errno: int) -> None:
    """The import says how wide pointers are, whatever the memory is: 32 bits of a 64-bit memory are its first 4 GiB."""
    embedding = guest(memory, imports, pointer)

    def main() -> None:
        assert embedding.call("create", address, SWITCHES_BACK) == errno
        if address < 0:
            assert bytes(embedding.memory.read(embedding.store, 2**32 - 8, 2**32)) == b"\1" + bytes(7)

    embedding.run(main)


@pytest.mark.parametrize("absent", [2, 3, 2**31, 2**32, 2**32 + 1, 2**63 - 1, -(2**63), -(2**32), -1])
def test_what_is_not_there(absent: int) -> None:
    """Never created, 2**64 - 1 (-1, as signed) included: to switch there is inval, to destroy it nothing."""
    embedding = guest()

    def main() -> None:
        assert created(embedding) == 1
        assert embedding.call("switch", absent) == INVAL
        assert embedding.call("destroy", absent) == SUCCESS
        assert runs(embedding) == 0
        assert embedding.call("switch", 1) == SUCCESS
        assert runs(embedding) == 1

    embedding.run(main)


def test_what_is_gone() -> None:
    """Destroyed, before it ran or later, or ended by a trap or by returning: inval; to destroy it once more is no
    error. Ids are not used again."""
    embedding = guest()

    def main() -> None:
        unstarted, started = created(embedding), created(embedding)
        trapped, ended = created(embedding, TRAPS), created(embedding, FIFTH)
        assert embedding.call("switch", started) == SUCCESS
        assert embedding.call("destroy", unstarted) == embedding.call("destroy", started) == SUCCESS
        with pytest.raises(Trap, match="unreachable"):
            embedding.call("switch", trapped)
        with pytest.raises(ContextEntrypointReturned, match=f"context {ended} returned"):
            embedding.call("switch", ended)
        for gone in (unstarted, started, trapped, ended):
            assert embedding.call("switch", gone) == INVAL
            assert embedding.call("destroy", gone) == SUCCESS
        assert created(embedding) == 5

    embedding.run(main)


def test_main_and_oneself() -> None:
    """To switch to the active context is success, to destroy it or main inval."""
    embedding = Embedding().load(
        f"""(module {IMPORTS_64}
          (memory (export "memory") i64 1) (table (export "__indirect_function_table") 1 funcref)
          (elem (i32.const 0) $entry) (global $errnos (mut i32) (i32.const -1))
          (func $entry
            (if (call $switch (i64.const 1)) (then unreachable))
            (global.set $errnos (i32.add (call $destroy (i64.const 1)) (call $destroy (i64.const 0))))
            (drop (call $switch (i64.const 0))))
          (func (export "main") (result i32 i32 i32)
            (call $switch (i64.const 0)) (call $destroy (i64.const 0))
            (drop (call $create (i64.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))
            (global.get $errnos)))"""
    )
    assert embedding.run_guest("main") == [SUCCESS, INVAL, 2 * INVAL]


def test_too_many_contexts() -> None:
    """At the environment's limit: again; nothing is written, no id used up; when one is gone there is room."""
    embedding = guest(max_contexts=2)

    def main() -> None:
        assert [created(embedding), created(embedding)] == [1, 2]
        assert embedding.call("create", 16, SWITCHES_BACK) == AGAIN
        assert bytes(embedding.memory.read(embedding.store, 16, 24)) == bytes(8)
        assert embedding.call("destroy", 1) == SUCCESS
        assert created(embedding) == 3

    embedding.run(main)


def test_without_an_environment() -> None:
    """Outside of run_main_context the three calls answer notsup, and touch nothing."""
    embedding = guest()
    assert embedding.call("create", 8, SWITCHES_BACK) == embedding.call("create", -1, NULL) == NOTSUP
    assert embedding.call("switch", 0) == embedding.call("switch", 1) == NOTSUP
    assert embedding.call("destroy", 0) == embedding.call("destroy", 1) == NOTSUP
    assert bytes(embedding.memory.read(embedding.store, 0, PAGE)) == bytes(PAGE)
