"""A module that imports a shared memory gets its own memory: the rest of it does not change, nor do other modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from wasmtime import Config, Engine, Module, Trap, TrapCode, WasmtimeError, wat2wasm

from greenctx.wasix import InvalidProgram, Limits, Program
from greenctx.wasix._modules.shared_memory import unshare_memory
from greenctx.wasix._modules.sizes import PAGE, Size, Sizes
from greenctx.wasix._program.inspection import inspect_file

if TYPE_CHECKING:
    from pathlib import Path

START = '(func (export "_start"))'
MEMORY = '(import "env" "memory" (memory 129 65536 shared))'
EXIT = '(import "wasix_32v1" "proc_exit2" (func $exit (param i32)))'
EXAMPLES = {
    "nothing else": f"(module {MEMORY} {START})",
    "other imports": f"""(module (import "a" "f" (func)) (import "a" "t" (table 1 funcref)) {MEMORY}
        (import "a" "g" (global $g (mut i32))) {START} (data (i32.const 5) "x"))""",
    "all sections": f"""(module (type (func (param i32))) {MEMORY} (table 2 funcref) (tag (param i32)) (global i32
        (i32.const 1)) {START} (func $s) (start $s) (elem (i32.const 0) $s) (data "x") (func (data.drop 0)))""",
    "another memory of its own": f"(module {MEMORY} (memory 1 2) {START} (func (drop (i32.load 1 (i32.const 0)))))",
    "exported already": f'(module {MEMORY} (export "memory" (memory 0)) {START})',
    "no exports": f"(module {MEMORY} (func) (start 0))",
    "no other sections": f"(module {MEMORY})",
}


@pytest.mark.parametrize(
    ("memories", "expected"),
    [
        ("(memory 1 2 shared)", [Size(PAGE, 2 * PAGE)]),
        ('(memory (export "memory") 1 2 shared)', [Size(PAGE, 2 * PAGE, exported=("memory",))]),
        ("(memory 3) (memory 1 2 shared) (memory 200 300 shared)", [(3, None), (1, 2), (200, 300)]),
        (f"{MEMORY} (memory 1 2 shared)", [(129, 65536), (1, 2)]),
        ('(import "other" "name" (memory 1 2 shared))', [Size(PAGE, 2 * PAGE, exported=("memory",))]),
        ('(import "env" "other" (memory 1 2 shared))', [Size(PAGE, 2 * PAGE, exported=("memory",))]),
    ],
)
def test_of_its_own_or_by_another_name(memories: str, expected: list[object], tmp_path: Path) -> None:
    """A shared memory that the module defines, or imports by another name, is its own: the program runs."""
    code = bytes(wat2wasm(f"(module {memories} {START})"))
    own = unshare_memory(code)
    sizes = Sizes(own).memories
    assert not any(one.shared or one.imported for one in sizes)
    if isinstance(expected[0], Size):
        assert sizes == expected
    else:
        limits = [(one.minimum // PAGE, one.maximum and one.maximum // PAGE) for one in sizes]
        assert limits == expected
    assert unshare_memory(own) is own
    assert Program(code).run() == 0
    (tmp_path / "guest.wasm").write_bytes(code)
    assert inspect_file(tmp_path / "guest.wasm").runnable


@pytest.mark.parametrize("name", EXAMPLES)
def test_given_one(name: str) -> None:
    """The module's own memory has the declared limits and is exported; everything else stays the same."""
    code = bytes(wat2wasm(EXAMPLES[name]))
    own = unshare_memory(code)
    config = Config()
    config.wasm_exceptions = True
    engine = Engine(config)
    before, after = Module(engine, code), Module(engine, own)
    assert [(one.module, one.name) for one in after.imports] == [
        (one.module, one.name) for one in before.imports if one.name != "memory"
    ]
    assert {one.name for one in after.exports} == {"memory", *(one.name for one in before.exports)}
    (_, *others), (memory, *still_others) = Sizes(code).memories, Sizes(own).memories
    assert memory == Size(129 * PAGE, 65536 * PAGE, exported=("memory",))
    assert others == still_others
    assert unshare_memory(own) is own


@pytest.mark.parametrize(
    "text",
    [
        f"(module {START})",
        f'(module (memory (export "memory") 1) {START})',
        f'(module (import "env" "memory" (memory 1)) {START})',
        f'(module {MEMORY} (import "env" "more" (memory 1 2 shared)) {START})',
        f'(module (import "env" "more" (memory 1 2)) {MEMORY} {START})',
        f'(module (import "env" "memory" (func)) {START})',
    ],
)
def test_left_alone(text: str) -> None:
    """Other memories are the business of whoever can provide them; so is this one beside them."""
    code = bytes(wat2wasm(text))
    assert unshare_memory(code) is code


def test_cut_off_anywhere() -> None:
    """Bytes that are not a module stay as they are, and the compiler refuses them."""
    code = bytes(wat2wasm(EXAMPLES["other imports"])) + b"\0\5\1abcd"
    for end in range(len(code)):
        assert compiles(unshare_memory(code[:end])) is compiles(code[:end]), end


def test_more_than_its_imports() -> None:
    """A module with stray bytes after its imports stays as it is."""
    code = bytes(wat2wasm(f"(module {MEMORY})"))
    assert code[8] == 2  # the section of imports
    longer = code[:9] + bytes([code[9] + 1]) + code[10 : 10 + code[9]] + b"\0" + code[10 + code[9] :]
    assert not compiles(longer)
    assert unshare_memory(longer) is longer


def compiles(code: bytes) -> bool:
    try:
        Module(Engine(), code)
    except WasmtimeError:
        return False
    return True


def test_names_of_many_bytes() -> None:
    """A number in the binary may be written in more bytes than it takes."""
    code = bytes(wat2wasm(EXAMPLES["nothing else"]))
    position = code.index(b"\3env") - 2
    entry = code[position + 1 :].replace(b"\3env\6memory", b"\x83\x00env\x86\x80\x00memory", 1)
    padded = code[:position] + bytes([code[position] + 3]) + entry
    assert Sizes(unshare_memory(padded)).memories == [Size(129 * PAGE, 65536 * PAGE, exported=("memory",))]


def test_another_export_by_that_name() -> None:
    """Then WASI's calls find no memory, as in any such guest."""
    text = f'(module {MEMORY} (func (export "memory")) {START})'
    assert Program(text.encode()).run() == 0
    assert "memory" in {one.name for one in Module(Engine(), unshare_memory(bytes(wat2wasm(text)))).exports}


def grown(limits: Limits | None) -> int:
    """Return by how many pages such a guest can grow its memory."""
    text = f"""(module {MEMORY} {EXIT} (func (export "_start") (local $pages i32)
        (loop (if (i32.ge_s (memory.grow (i32.const 1)) (i32.const 0)) (then
            (local.set $pages (i32.add (local.get $pages) (i32.const 1)))
            (br_if 1 (i32.lt_u (local.get $pages) (i32.const 1000))))))
        (call $exit (local.get $pages))))"""
    return Program(text.encode(), limits=limits).run()


def test_limits() -> None:
    """The limit of memory is that of its memory, too: how far it grows, and whether it may begin at all."""
    assert grown(None) == 1000
    assert grown(Limits(memory=139 * PAGE)) == 10
    assert grown(Limits(memory=129 * PAGE)) == 0
    with pytest.raises(InvalidProgram, match="starts with 8454144 bytes of memory, more than the limit of 8454143"):
        grown(Limits(memory=129 * PAGE - 1))


def test_limits_that_the_module_declares() -> None:
    """The memory grows to its declared maximum, and no further."""
    text = f"""(module (import "env" "memory" (memory 2 5 shared)) {EXIT} (func (export "_start")
        (call $exit (i32.add (memory.grow (i32.const 3)) (memory.grow (i32.const 1))))))"""
    assert Program(text.encode()).run() == 2 - 1


@pytest.mark.parametrize("timeout", [-1, 0, 10**18])
def test_no_thread_can_be_blocked_by_an_instruction(timeout: int) -> None:
    """The wait traps, because nothing could end it: there is no other thread, and neither Ctrl-C nor a limit would."""
    text = f"""(module {MEMORY} (func (export "_start")
        (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const {timeout})))))"""
    with pytest.raises(Trap, match="atomic wait on non-shared memory") as raised:
        Program(text.encode(), limits=Limits(seconds=60)).run()
    assert raised.value.trap_code not in (None, TrapCode.UNREACHABLE)


def test_atomic_instructions() -> None:
    """All others do what they should."""
    text = f"""(module {MEMORY} {EXIT} (func (export "_start")
        (i32.atomic.store (i32.const 8) (i32.const 5)) (atomic.fence)
        (drop (i32.atomic.rmw.add (i32.const 8) (i32.const 6)))
        (drop (memory.atomic.notify (i32.const 8) (i32.const 1)))
        (call $exit (i32.atomic.rmw.cmpxchg (i32.const 8) (i32.const 11) (i32.const 0)))))"""
    assert Program(text.encode()).run() == 11


def test_inspection(tmp_path: Path) -> None:
    """The inspection shows the memory as in the module: imported, and provided."""
    path = tmp_path / "guest.wat"
    path.write_text(f'(module {MEMORY} (global (export "__stack_pointer") (mut i32) (i32.const 0)) {START})')
    found = inspect_file(path)
    assert found.runnable
    assert found.missing == ()
    assert [(one.name, one.kind, one.provided) for one in found.imports] == [("env.memory", "memory", True)]
    assert [one.name for one in found.exports] == ["__stack_pointer", "_start"]
    assert found.memories == (Size(129 * PAGE, 65536 * PAGE, shared=True, imported=True),)
    assert found.stack_pointer
    assert "129" not in found.as_text()
    assert "8256 KiB to 4 GiB, shared, imported" in found.as_text()


def test_still_refused(tmp_path: Path) -> None:
    """Imports that nothing provides are named before the guest starts, in the same words as in the inspection."""
    path = tmp_path / "guest.wat"
    path.write_text(f"""(module (import "wasix_32v1" "unheard_of" (func (param i32 i32) (result i32))) {MEMORY}
        (import "wasix_32v1" "sock_open" (func (param i32 i32 i32) (result i32))) {START})""")
    with pytest.raises(InvalidProgram) as raised:
        Program.from_file(path).run()
    missing = ("wasix_32v1.unheard_of", "wasix_32v1.sock_open")
    assert raised.value.reason == f"nothing provides what it imports: {', '.join(missing)}"
    assert inspect_file(path).missing == missing
