"""Shadow stacks in C programs: sharing one corrupts address-taken locals, and a region for each context does not."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from guests.compile import TOOLCHAIN, compile_guest
from guests.embedding import IMPORTS
from leakcheck import own_memory
from processes import run_greenctx
from wasmtime import Trap

from greenctx import ContextSwitchingEnvironment
from greenctx.wasix import InvalidProgram, Limits, Program, ShadowStackOverflow

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 65536
POINTER, MALLOC = "-Wl,--export=__stack_pointer", "-Wl,--export=malloc"

each_level = pytest.mark.parametrize("level", ["-O0", "-O1", "-O2"])
each_source = pytest.mark.parametrize("source", [(), (MALLOC,), TOOLCHAIN], ids=["memory.grow", "malloc", "toolchain"])


def program(*argv: str, level: str = "-O1", source: tuple[str, ...] = (), size: int | None = SIZE) -> Program:
    """The guest that counts what has become of its locals; it prints "changed/checked" to its stdout."""
    guest = compile_guest("shadow", level, POINTER, *source)
    return Program.from_file(guest, argv=["shadow", *argv], shadow_stack=size, stdout=io.BytesIO(), cache=True)


def printed(ran: Program) -> str:
    sink = ran._stdio._stdout
    assert isinstance(sink, io.BytesIO)
    return sink.getvalue().decode().strip()


def counts(*argv: str, level: str, source: tuple[str, ...] = (), size: int | None = SIZE) -> tuple[int, int]:
    """How many bytes of locals have changed across switches, of how many."""
    with program(*argv, level=level, source=source, size=size) as one:
        assert one.run() == 0
        changed, checked = map(int, printed(one).split("/"))
    return changed, checked


@pytest.mark.parametrize(
    ("mode", "changed", "checked"), [("generator", 320, 320), ("own-frame", 1024, 2048), ("helper", 2048, 2048)]
)
@each_level
def test_shared(mode: str, changed: int, checked: int, level: str) -> None:
    """By default all contexts share the stack, as in WASIX. Unprepared C guests overwrite each other's locals: at -O0
    those that hold addresses as well, which then traps."""
    try:
        assert counts(mode, level=level, size=None) == (changed, checked)
    except Trap:
        assert level == "-O0"


@pytest.mark.parametrize(("mode", "checked"), [("generator", 320), ("own-frame", 2048), ("helper", 2048)])
@each_source
@each_level
def test_own_regions(mode: str, checked: int, level: str, source: tuple[str, ...]) -> None:
    """With a region each, no byte of any local changes."""
    assert counts(mode, level=level, source=source) == (0, checked)


@each_level
def test_guest_that_moves_the_pointer(level: str) -> None:
    """A guest that gives its contexts stacks of its own works with the default; with regions it is stopped."""
    assert counts("moves-the-pointer", level=level, size=None) == (0, 2048)
    with pytest.raises(ShadowStackOverflow):
        program("moves-the-pointer", level=level).run()


@each_source
@each_level
def test_many_at_once(level: str, source: tuple[str, ...]) -> None:
    """A thousand regions at once, none of which touches another."""
    assert counts("together", "1000", level=level, source=source, size=4096) == (0, 128_000)


@each_source
def test_used_again(source: tuple[str, ...]) -> None:
    """Regions of destroyed contexts, begun or not, are used again: thousands of contexts need few of them."""
    # 64 regions of 64 KiB are 4 MiB; the guest starts with 17.
    one = Program.from_file(
        compile_guest("shadow", "-O1", POINTER, *source),
        argv=["shadow", "one-after-the-other", "3000"],
        shadow_stack=SIZE,
        stdout=io.BytesIO(),
        cache=True,
        limits=Limits(memory=21 * 2**20),
    )
    assert one.run() == 0
    assert printed(one) == "0/0"


def test_memory_stays_flat(long: bool) -> None:
    """So many contexts, one after the other, leave the process as large as it was."""
    assert program("one-after-the-other", "2000").run() == 0
    before = own_memory()
    assert program("one-after-the-other", "50000" if long else "5000").run() == 0
    assert own_memory() - before < 4 * 2**20


@each_source
@each_level
@pytest.mark.parametrize("mode", ["wait-below", "dive-and-wait"])
def test_overflow(mode: str, level: str, source: tuple[str, ...]) -> None:
    """A context whose locals outgrow its region is stopped where it next calls the host: when it is deep down then, and
    also when it has come back up. The error says which context and how large its region was."""
    assert program(mode, "100", level=level, source=source).run() == 0
    with pytest.raises(ShadowStackOverflow, match="shadow stack of context 2 has overflowed its 65536 bytes") as raised:
        program(mode, "3000", level=level, source=source).run()
    assert (raised.value.context_id, raised.value.size) == (2, SIZE)
    assert "context_switch" in raised.value.__notes__[0] or "dive" in raised.value.__notes__[0]
    assert program(mode, "3000", level=level, source=source, size=4 * SIZE).run() == 0


def test_command_line() -> None:
    """--shadow-stack SIZE is the option; an overflow ends the program with 134 and one line."""
    guest = compile_guest("shadow", "-O1", POINTER)
    ran = run_greenctx("run", "--shadow-stack", "64KiB", guest, "helper")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"0/2048\n", b"")
    ran = run_greenctx("run", "--shadow-stack=64KiB", guest, "wait-below", "3000")
    assert (ran.returncode, ran.stdout) == (134, b"")
    assert ran.stderr == b"greenctx: the shadow stack of context 2 has overflowed its 65536 bytes; give it more\n"


@each_source
def test_no_memory(source: tuple[str, ...]) -> None:
    """Where there is no memory for a region, context_create answers nomem (48), after as many as there was room for."""
    one = Program.from_file(
        compile_guest("shadow", "-O1", POINTER, *source),
        argv=["shadow", "together", "1000"],
        shadow_stack=2**20,
        stdout=io.BytesIO(),
        limits=Limits(memory=32 * 2**20),
    )
    assert one.run() == 0
    found = re.match(r"errno 48 after (\d+) contexts\n", printed(one))
    assert found
    # 32 MiB hold the guest's 17, or the toolchain's 8; malloc asks for more at once than it needs.
    assert 4 <= int(found[1]) < (24 if source == TOOLCHAIN else 16)


POINTER_WAT = '(global (export "__stack_pointer") (mut i32) (i32.const 65536))'
MEMORY_WAT = '(memory (export "memory") 2)'


@pytest.mark.parametrize(
    ("exports", "said"),
    [
        (MEMORY_WAT, "link it with -Wl,--export=__stack_pointer"),
        (f'(global (export "__stack_pointer") i32 (i32.const 0)) {MEMORY_WAT}', "link it with -Wl,--export"),
        (f'(global (export "__stack_pointer") (mut f64) (f64.const 0)) {MEMORY_WAT}', "link it with -Wl,--export"),
        (f'(func (export "__stack_pointer")) {MEMORY_WAT}', "link it with -Wl,--export=__stack_pointer"),
        (POINTER_WAT, "exported as 'memory'"),
        (f'{POINTER_WAT} (func (export "memory"))', "exported as 'memory'"),
    ],
)
def test_guest_without_what_it_takes(exports: str, said: str, tmp_path: Path) -> None:
    """A guest that does not export the pointer, as a mutable integer, and its memory, is refused before it runs. The
    message says how to link it: status 2, one line. Without shadow stacks it runs."""
    text = f'(module {exports} (func (export "_start")))'
    assert Program(text.encode()).run() == 0
    with pytest.raises(InvalidProgram, match=said):
        Program(text.encode(), shadow_stack=SIZE)
    Program(text.encode(), shadow_stack=SIZE, contexts=False).close()
    path = tmp_path / "guest.wat"
    path.write_text(text)
    ran = run_greenctx("run", "--shadow-stack", "64KiB", path)
    assert (ran.returncode, ran.stdout, ran.stderr.count(b"\n")) == (2, b"", 1)
    assert said.encode() in ran.stderr


@pytest.mark.parametrize("size", [0, -1])
def test_size_that_is_none(size: int) -> None:
    """A region of no bytes is an error at once."""
    with pytest.raises(ValueError, match="shadow_stack must be None or a positive number"):
        Program(b"(module)", shadow_stack=size)


def test_start_function_that_starts_contexts() -> None:
    """Contexts begun before there can be regions are refused, and not left on a stack that others write to."""
    text = f"""(module {IMPORTS} {POINTER_WAT} {MEMORY_WAT}
      (table (export "__indirect_function_table") funcref (elem $entry))
      (func $entry (drop (call $switch (i64.const 0))))
      (func $start (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1))))
      (start $start) (func (export "_start")))"""
    assert Program(text.encode()).run() == 0
    with pytest.raises(InvalidProgram, match="its start function starts contexts"):
        Program(text.encode(), shadow_stack=SIZE).run()


def test_programs_side_by_side() -> None:
    """Each program has regions of its own; within an outer environment, too."""

    def main() -> None:
        assert counts("helper", level="-O1") == (0, 2048)
        assert counts("helper", level="-O1", size=None) == (2048, 2048)

    ContextSwitchingEnvironment().run_main_context(main)
