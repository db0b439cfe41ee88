"""The facts that an inspection finds without running a module."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from guests.compile import compile_guest
from guests.embedding import IMPORTS
from wasmtime import wat2wasm

from greenctx.wasix import InvalidProgram, Program
from greenctx.wasix._program.inspection import Export, Import, Inspection, inspect_file

if TYPE_CHECKING:
    from pathlib import Path

START = '(func (export "_start"))'
WASI = '(import "wasi_snapshot_preview1" "{}" (func (param i32)))'


@pytest.fixture
def inspect(tmp_path: Path) -> Any:
    """Inspect a module given as text."""

    def inspect(text: str) -> Inspection:
        path = tmp_path / "guest.wat"
        path.write_text(text)
        return inspect_file(path)

    return inspect


def test_program_in_c() -> None:
    """A whole program in C: everything it takes is provided."""
    path = compile_guest("shadow", "-O1", "-Wl,--export=__stack_pointer", "-Wl,--export=malloc")
    found = inspect_file(path)
    assert (found.file, found.type, found.size) == (str(path), "core module (binary)", path.stat().st_size)
    assert (found.runnable, found.reason, found.missing) == (True, None, ())
    assert (found.contexts, found.stack_pointer, found.malloc, found.needs_collector) == (True, True, True, False)
    assert Import("wasix_32v1.context_switch", "function", provided=True) in found.imports
    assert Import("wasi_snapshot_preview1.fd_write", "function", provided=True) in found.imports
    assert Export("_start", "function") in found.exports
    assert [memory.exported for memory in found.memories] == [("memory",)]
    assert [table.exported for table in found.tables] == [("__indirect_function_table",)]
    plain = inspect_file(compile_guest("process"))
    assert (plain.contexts, plain.stack_pointer, plain.malloc) == (False, False, False)


def test_missing_imports(inspect: Any) -> None:
    """An import that nothing provides is named as when the program is run, and is the reason why it cannot be run."""
    text = f"""(module {IMPORTS} (import "env" "b" (func)) (import "env" "a" (global i32))
        (import "env" "t" (table 1 funcref)) (import "wasix_32v1" "thread_spawn_v2" (func))
        {WASI.format("proc_exit")} {START})"""
    found = inspect(text)
    assert found.missing == ("env.b", "env.a", "env.t", "wasix_32v1.thread_spawn_v2")
    assert [(one.kind, one.provided) for one in found.imports] == [
        *([("function", True)] * 3),
        *[("function", False), ("global", False), ("table", False), ("function", False), ("function", True)],
    ]
    assert not found.runnable
    with pytest.raises(InvalidProgram) as raised:
        Program(text.encode()).run()
    assert found.reason == raised.value.reason == f"nothing provides what it imports: {', '.join(found.missing)}"
    assert "4 of its imports are missing" in found.as_text()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(module)", "it exports no '_start', so it is not a WASI command"),
        ('(module (memory (export "_start") 1))', "its export '_start' is not a function"),
        ('(module (func (export "_start") (param i32)))', "its export '_start' takes arguments or returns results"),
        (f"(module {WASI.format('fd_write')} {START})", "it cannot be linked: "),
    ],
)
def test_not_runnable(text: str, reason: str, inspect: Any) -> None:
    """The reason is the one that running it gives."""
    found = inspect(text)
    assert not found.runnable
    assert found.reason.startswith(reason)
    with pytest.raises(InvalidProgram) as raised:
        Program(text.encode()).run()
    assert raised.value.reason == found.reason
    assert reason in found.as_text()


@pytest.mark.parametrize(
    ("imports", "contexts"),
    [
        ("", False),
        ('(import "wasix_32v1" "context_switch" (func (param i64) (result i32)))', True),
        ('(import "wasix_64v1" "context_destroy" (func (param i64) (result i32)))', True),
        ('(import "env" "context_switch" (func (param i64) (result i32)))', False),
        ('(import "wasix_32v1" "proc_id" (func))', False),
    ],
)
def test_contexts(imports: str, contexts: bool, inspect: Any) -> None:
    """Whether it switches contexts: it does if it imports one of the calls."""
    assert inspect(f"(module {imports} {START})").contexts is contexts


def test_memories_and_tables(inspect: Any) -> None:
    """An inspection has each memory's and table's limits, and whether it is shared, 64-bit, imported or exported."""
    found = inspect(
        """(module (import "m" "one" (memory 1 2)) (import "m" "table" (table 5 funcref))
          (memory i64 3) (memory (export "memory") (export "again") 0 65536)
          (table (export "table") 0 7 funcref) (table 1 1 externref)
          (func (export "_start")))"""
    )
    page = 65536
    assert [(one.minimum, one.maximum, one.is_64, one.imported, one.exported) for one in found.memories] == [
        (page, 2 * page, False, True, ()),
        (3 * page, None, True, False, ()),
        (0, 2**32, False, False, ("memory", "again")),
    ]
    assert [(one.minimum, one.maximum, one.imported, one.exported) for one in found.tables] == [
        (5, None, True, ()),
        (0, 7, False, ("table",)),
        (1, 1, False, ()),
    ]
    lines = found.as_text().splitlines()
    assert "  64 KiB to 128 KiB, imported" in lines
    assert "  192 KiB to any size, 64-bit" in lines
    assert "  0 bytes to 4 GiB, exported as memory, exported as again" in lines
    assert "  0 to 7, exported as table" in lines


def test_shared_memory(inspect: Any) -> None:
    """A shared memory is told apart."""
    found = inspect('(module (memory (export "memory") 1 2 shared) (func (export "_start")))')
    assert [one.shared for one in found.memories] == [True]
    assert "64 KiB to 128 KiB, shared, exported as memory" in found.as_text()


def test_what_shadow_stacks_need(inspect: Any) -> None:
    """A module is shown with a stack pointer exactly when it can be run with shadow stacks."""
    for pointer in (
        "(mut i32) (i32.const 0)",
        "(mut i64) (i64.const 0)",
        "i32 (i32.const 0)",
        "(mut f32) (f32.const 0)",
    ):
        text = f'(module (memory (export "memory") 1) (global (export "__stack_pointer") {pointer}) {START})'
        try:
            Program(text.encode(), shadow_stack=4096).close()
        except InvalidProgram:
            assert not inspect(text).stack_pointer
        else:
            assert inspect(text).stack_pointer
    assert inspect(f'(module (func (export "malloc") (param i32) (result i32) unreachable) {START})').malloc
    assert not inspect(f'(module (memory (export "malloc") 1) {START})').malloc


def test_collector(inspect: Any) -> None:
    """Whether it can be run only with wasmtime's garbage collector: for wasm exceptions, say."""
    assert not inspect(f"(module {START})").needs_collector
    assert inspect('(module (tag $oops) (func (export "_start")) (func (throw $oops)))').needs_collector


def test_binary_and_text(inspect: Any, tmp_path: Path) -> None:
    """A module is inspected in either form."""
    assert inspect(f"(module {START})").type == "core module (text)"
    (tmp_path / "guest").write_bytes(wat2wasm(f"(module {START})"))
    assert inspect_file(tmp_path / "guest").type == "core module (binary)"


HOSTILE = '\x1b[2J\r\n\0\x7f\x9b\u202e\u2028 \t"\\{}%s' + "x" * 5000


def test_hostile_names(inspect: Any) -> None:
    """Names hold anything: in the text control characters are escaped and long names shortened, one line for each; in
    JSON they are whole, and ASCII."""
    name = "".join(f"\\{byte:02x}" for byte in HOSTILE.encode())
    found = inspect(
        f"""(module (import "{name}" "{name}" (func)) (memory (export "{name}1") 1) (func (export "{name}2"))
          (func (export "")) {START})"""
    )
    assert found.missing == (f"{HOSTILE}.{HOSTILE}",)
    assert [one.name for one in found.exports] == [f"{HOSTILE}1", f"{HOSTILE}2", "", "_start"]
    text = found.as_text()
    assert text.count("\n") == 15
    assert all(character.isprintable() or character == "\n" for character in text)
    assert max(map(len, text.splitlines())) < 600
    assert r"\x1b[2J\r\n\x00\x7f\x9b\u202e\u2028" in text
    assert f"({len(HOSTILE) * 2 + 1} characters)" in text
    dumped = json.dumps(found.as_dict())
    assert dumped.isascii()
    assert json.loads(dumped)["missing"] == [f"{HOSTILE}.{HOSTILE}"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"\x7fELF\0\0", "it is neither a WebAssembly module nor WebAssembly text"),
        (b"hello", "it does not compile"),
        (b"\0asm\1\0\0\0\xff", "it does not compile"),
        (b"\0asm\x0d\0\1\0", "it is a component; only core modules can be run"),
        (b"(component)", "it is a component; only core modules can be run"),
        (b"(module (func (result i32)))", "it does not compile"),
    ],
)
def test_no_module(content: bytes, reason: str, tmp_path: Path) -> None:
    """Bytes that are not a module raise InvalidProgram, with the same reason as running them."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InvalidProgram) as raised:
        inspect_file(path)
    assert raised.value.reason.startswith(reason)
    with pytest.raises(InvalidProgram) as ran:
        Program.from_file(path)
    assert ran.value.reason == raised.value.reason
    with pytest.raises(InvalidProgram, match="No such file"):
        inspect_file(tmp_path / "absent")
