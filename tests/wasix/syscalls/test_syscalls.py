"""The WASIX context calls: what guests get back, from every use and every mistake."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from greenlet import getcurrent
from guests.compile import compile_guest
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
    calls,
    created,
    guest_text,
    runs,
)
from guests.embedding import IMPORTS, Embedding
from processes import run_greenctx
from wasmtime import Config, Engine, Module, Store, Trap

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment
from greenctx.wasix import Linker, call
from greenctx.wasix._syscalls.contexts import context_switch

if TYPE_CHECKING:
    from wasmtime import Func, SharedMemory


def guest(pages: int = 1, **limits: int) -> Embedding:
    embedding = Embedding(**limits)
    embedding.define("entry", "->", lambda: embedding.env.switch_context(0))
    return embedding.load(guest_text(f'{IMPORTS} (import "host" "entry" (func $fifth))', str(pages)))


def test_shared_memory() -> None:
    """Pointers lead into the exported memory just the same if it is shared."""
    config = Config()
    config.wasm_threads = config.shared_memory = True
    engine = Engine(config)
    store, linker, env = Store(engine), Linker(engine), ContextSwitchingEnvironment()
    linker.define_wasix()
    text = f"""(module {IMPORTS} (memory (export "memory") 1 2 shared) (elem (i32.const 0) $e) (func $e)
        (table (export "__indirect_function_table") 1 funcref) {calls()})"""
    exports = linker.instantiate(store, Module(engine, text)).exports(store)

    def main() -> None:
        create, memory = cast("Func", exports["create"]), cast("SharedMemory", exports["memory"])
        pointers = (8, PAGE - 8, PAGE - 7, -1, -(2**31))
        assert [call(store, create, pointer, 0) for pointer in pointers] == [
            SUCCESS,
            SUCCESS,
            MEMVIOLATION,
            MEMVIOLATION,
            MEMVIOLATION,
        ]
        assert memory.grow(1) == 1
        assert call(store, create, PAGE - 7, 0) == SUCCESS
        assert [memory.data_ptr()[place] for place in (8, PAGE - 7)] == [1, 3]

    env.run_main_context(main)


@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2"])
def test_every_errno_in_c(level: str) -> None:
    """A C program that tries every mistake gets -1 and the right errno, whatever the compiler makes of it."""
    ran = run_greenctx("run", compile_guest("errnos", level))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"all as it should be\n", b"")


def test_ids() -> None:
    """Ids are little-endian 64-bit numbers, 1 for the first context; none is used again."""
    embedding = guest()

    def main() -> None:
        embedding.memory.write(embedding.store, b"\xff" * 24, 0)
        assert [created(embedding), created(embedding)] == [1, 2]
        assert bytes(embedding.memory.read(embedding.store, 0, 24)) == b"\xff" * 8 + b"\2" + bytes(7) + b"\xff" * 8
        assert embedding.call("switch", 1) == embedding.call("destroy", 1) == embedding.call("destroy", 2) == SUCCESS
        assert created(embedding) == 3

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
    "pointer",
    [PAGE - 7, PAGE - 1, PAGE, PAGE + 8, 2**31 - 8, 2**31 - 1, 2**31, 2**32 - PAGE, 2**32 - 16, 2**32 - 8, 2**32 - 1],
)
def test_create_with_a_pointer_outside_memory(pointer: int) -> None:
    """Not all eight bytes are in memory: memviolation; nothing is written, nothing is created."""
    embedding = guest()

    def main() -> None:
        assert embedding.call("create", pointer - 2**32 if pointer >= 2**31 else pointer, SWITCHES_BACK) == MEMVIOLATION
        assert bytes(embedding.memory.read(embedding.store, 0, PAGE)) == bytes(PAGE)
        assert embedding.call("switch", 1) == INVAL
        assert created(embedding) == 1

    embedding.run(main)


@pytest.mark.parametrize(
    ("pages", "pointer"), [(1, PAGE - 8), (1, 0), (32769, 2**31 - 4), (32769, 2**31), (65536, 2**32 - 8)]
)
def test_create_at_the_ends_of_memory(pages: int, pointer: int) -> None:
    """Pointers are unsigned: the id goes where they point, in the upper half of a large memory as well."""
    embedding = guest(pages)

    def main() -> None:
        assert embedding.call("create", pointer - 2**32 if pointer >= 2**31 else pointer, SWITCHES_BACK) == SUCCESS
        assert bytes(embedding.memory.read(embedding.store, pointer, pointer + 8)) == b"\1" + bytes(7)

    embedding.run(main)


def test_create_sees_memory_grow() -> None:
    """A pointer into a part of memory that was not there at the start is as good as any."""
    embedding = guest()

    def main() -> None:
        assert embedding.call("create", PAGE, SWITCHES_BACK) == MEMVIOLATION
        embedding.memory.grow(embedding.store, 1)
        assert embedding.call("create", PAGE, SWITCHES_BACK) == SUCCESS
        assert embedding.call("create", 2 * PAGE - 7, SWITCHES_BACK) == MEMVIOLATION

    embedding.run(main)


@pytest.mark.parametrize(
    ("exports", "errno"),
    [
        ("", INVAL),
        ('(memory (export "memory") 1)', INVAL),
        (
            '(memory 1) (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $nothing)',
            MEMVIOLATION,
        ),
        ('(func (export "memory")) (table (export "__indirect_function_table") funcref (elem $nothing))', MEMVIOLATION),
        ('(memory (export "memory") 1) (table (export "__indirect_function_table") 1 externref)', INVAL),
        ('(memory (export "memory") 1) (func (export "__indirect_function_table"))', INVAL),
    ],
)
def test_create_without_what_it_needs(exports: str, errno: int) -> None:
    """A guest that exports no table of functions gets inval, one that exports no memory memviolation."""
    embedding = Embedding().load(f"(module {IMPORTS} {exports} (func $nothing) {calls()})")
    assert embedding.run_guest("create", 0, 0) == errno


def test_switch_to_oneself() -> None:
    """The active context's own id, main's included: success, and nothing happens."""
    embedding = Embedding()
    embedding.define("active", "-> i64", lambda: embedding.env.active_context_id)
    embedding.load(
        f"""(module {IMPORTS} (import "host" "active" (func $active (result i64)))
          (memory (export "memory") 1) (table (export "__indirect_function_table") 1 funcref)
          (elem (i32.const 0) $entry) (global $errno (export "errno") (mut i32) (i32.const -1))
          (func $entry (global.set $errno (call $switch (call $active))) (drop (call $switch (i64.const 0))))
          (func (export "main") (result i32 i32)
            (call $switch (i64.const 0))
            (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))
            (global.get $errno)))"""
    )
    assert embedding.run_guest("main") == [SUCCESS, SUCCESS]


@pytest.mark.parametrize("absent", [2, 3, 2**31, 2**32, 2**63 - 1, -(2**63), -1])
def test_switch_to_what_is_not_there(absent: int) -> None:
    """Ids never created, 2**64 - 1 (-1, as signed) included, are inval, and no other context runs."""
    embedding = guest()

    def main() -> None:
        assert created(embedding) == 1
        assert embedding.call("switch", absent) == INVAL
        assert embedding.call("destroy", absent) == SUCCESS
        assert runs(embedding) == 0
        assert embedding.call("switch", 1) == SUCCESS
        assert runs(embedding) == 1

    embedding.run(main)


def test_switch_to_what_is_not_there_by_main_that_somebody_else_has_resumed() -> None:
    """Main gets its errno, although the environment takes a context under destruction for the active one."""
    env, main_greenlet = ContextSwitchingEnvironment(), getcurrent()

    def victim() -> None:
        try:
            env.switch_context(0)
        finally:
            main_greenlet.switch()

    def destroyer() -> None:
        env.switch_context(0)
        env.destroy_context(1)

    def main() -> tuple[int, int]:
        for entrypoint in (victim, destroyer):
            env.switch_context(env.create_context(entrypoint))
        env._registry.started[2].greenlet.switch()
        return context_switch(3), env.active_context_id

    assert env.run_main_context(main) == (INVAL, 0)


def test_switch_to_what_is_gone() -> None:
    """Destroyed, before it ran or later, or ended by a trap: inval; to destroy it once more is no error."""
    embedding = guest()

    def main() -> None:
        unstarted, started, trapped = created(embedding), created(embedding), created(embedding, TRAPS)
        assert embedding.call("switch", started) == SUCCESS
        assert embedding.call("destroy", unstarted) == embedding.call("destroy", started) == SUCCESS
        with pytest.raises(Trap, match="unreachable"):
            embedding.call("switch", trapped)
        for gone in (unstarted, started, trapped):
            assert embedding.call("switch", gone) == INVAL
            assert embedding.call("destroy", gone) == SUCCESS
        assert embedding.call("switch", created(embedding)) == SUCCESS

    embedding.run(main)


def test_switch_to_what_has_returned() -> None:
    """A context whose entrypoint returned is gone: inval, and to destroy it is no error."""
    embedding = Embedding().load(
        f"""(module {IMPORTS} (memory (export "memory") 1)
          (table (export "__indirect_function_table") funcref (elem $nothing)) (func $nothing) {calls()})"""
    )

    def main() -> None:
        assert created(embedding, 0) == 1
        with pytest.raises(ContextEntrypointReturned, match="context 1 returned"):
            embedding.call("switch", 1)
        assert embedding.call("switch", 1) == INVAL
        assert embedding.call("destroy", 1) == SUCCESS
        assert created(embedding, 0) == 2

    embedding.run(main)


def test_destroy_main_or_oneself() -> None:
    """Inval, in main and in any other context; the program goes on."""
    embedding = Embedding()
    embedding.load(
        f"""(module {IMPORTS} (memory (export "memory") 1) (table (export "__indirect_function_table") 1 funcref)
          (elem (i32.const 0) $entry) (global $errnos (mut i32) (i32.const -1))
          (func $entry
            (global.set $errnos (i32.add (call $destroy (i64.const 1)) (call $destroy (i64.const 0))))
            (drop (call $switch (i64.const 0))))
          (func (export "main") (result i32 i32)
            (call $destroy (i64.const 0))
            (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))
            (global.get $errnos)))"""
    )
    assert embedding.run_guest("main") == [INVAL, 2 * INVAL]


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


def test_entrypoint_of_the_host() -> None:
    """An imported function in the table is an entrypoint like any other."""
    embedding = guest()
    assert embedding.run(lambda: [created(embedding, FIFTH), embedding.call("switch", 1)]) == [1, SUCCESS]


def test_without_an_environment() -> None:
    """Outside of run_main_context the three calls answer notsup, and touch nothing; the rest of the guest works."""
    embedding = guest()
    assert embedding.call("create", 8, SWITCHES_BACK) == NOTSUP
    assert embedding.call("create", -1, NULL) == NOTSUP
    assert embedding.call("switch", 0) == embedding.call("switch", 1) == NOTSUP
    assert embedding.call("destroy", 0) == embedding.call("destroy", 1) == NOTSUP
    assert bytes(embedding.memory.read(embedding.store, 0, PAGE)) == bytes(PAGE)
