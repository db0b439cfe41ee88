"""Limits on contexts and memory, and the system's own on fiber stacks. (Those on time: test_interrupted_guests.py.)"""

from __future__ import annotations

import copy
import os
import pickle
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from guests.embedding import IMPORTS, Embedding, signature
from guests.wasi_guest import END, RESULT, WasiGuest
from processes import TIMEOUT, run_greenctx
from wasmtime import wat2wasm

from greenctx.cli.options import count, seconds, size
from greenctx.errors import FiberStacksExhausted, InvalidProgram
from greenctx.wasix import Limits, Program, Stdio
from greenctx.wasix._fibers import stack_limit
from greenctx.wasix._modules.binary import NotUnderstood
from greenctx.wasix._modules.sizes import Size, Sizes

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

PAGE = 65536
HEADER = b"\0asm\1\0\0\0"
AGAIN, BADF, FAULT, MFILE = 6, 8, 21, 33


def run(body: str, limits: Limits, head: str = "") -> list[int]:
    """Run a guest that calls ``$say`` with numbers; return these."""
    said: list[int] = []
    text = f"""(module {IMPORTS} (import "host" "say" (func $say (param i32))) {head}
      (func (export "_start") {body}))"""
    with Program(text.encode(), name="guest", limits=limits) as program:
        program.linker.define_func("host", "say", signature("i32 ->"), lambda number: said.append(number))
        assert program.run() == 0
    return said


CONTEXTS = """(memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $waits))
  (func $waits (loop (drop (call $switch (i64.const 0))) (br 0)))
  (func $new (call $say (call $create (i32.const 0) (i32.const 0))))"""


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
def test_contexts(limit: int) -> None:
    """At the limit context_create answers again: nothing is created or written, no id used up. A context that was
    destroyed makes room for another; main does not count."""
    body = f"""(local $n i32)
      (i64.store (i32.const 0) (i64.const -1))
      (loop (call $new) (br_if 0 (i32.le_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {limit}))))
      (call $say (i32.load (i32.const 0)))
      (drop (call $switch (i64.const 1)))
      (drop (call $destroy (i64.const 1)))
      (call $new) (call $new) (call $say (i32.load (i32.const 0)))"""
    said = run(body, Limits(contexts=limit), CONTEXTS)
    if limit == 0:
        assert said == [AGAIN, -1, AGAIN, AGAIN, -1]
    else:
        assert said == [0] * limit + [AGAIN, limit, 0, AGAIN, limit + 1]


def test_memory() -> None:
    """memory.grow fails beyond the limit, where the memory's own maximum would allow more, and not before."""
    body = """(call $say (memory.grow (i32.const 7))) (call $say (memory.grow (i32.const 1)))
      (call $say (memory.grow (i32.const -1))) (call $say (memory.size))"""
    for head in ("(memory 3)", "(memory 3 1000)", "(memory i64 3)"):
        text = body.replace("(i32.const 7)", "(i64.const 7)") if "i64" in head else body
        if "i64" in head:
            text = """(call $say (i32.wrap_i64 (memory.grow (i64.const 7)))) (call $say (i32.wrap_i64 (memory.grow
              (i64.const 1)))) (call $say (i32.wrap_i64 (memory.grow (i64.const -1)))) (call $say (i32.wrap_i64
              (memory.size)))"""
        assert run(text, Limits(memory=10 * PAGE), head) == [3, -1, -1, 10]
        assert run(text, Limits(memory=11 * PAGE - 1), head) == [3, -1, -1, 10]
    assert run(body, Limits(memory=10 * PAGE), "(memory 3 5)") == [-1, 3, -1, 4]
    assert run(body, Limits(), "(memory 3)") == [3, 10, -1, 11]
    assert run(body, Limits(memory=10**30), "(memory 3)") == [3, 10, -1, 11]


GROW_ALL = """(func $grow (param $which i32) (result i32)
  (if (result i32) (local.get $which) (then (memory.grow 1 (i32.const 1))) (else (memory.grow 0 (i32.const 1)))))
  (func $fill (param $which i32) (loop (br_if 0 (i32.ne (call $grow (local.get $which)) (i32.const -1)))))"""


@pytest.mark.parametrize(("first", "second"), [(1, 1), (5, 1), (0, 9), (3, 4)])
def test_several_memories(first: int, second: int) -> None:
    """The limit holds for all memories together, whichever of them grows."""
    head = f"(memory $a {first}) (memory $b {second}) {GROW_ALL}"
    for order in ((0, 1), (1, 0)):
        body = "".join(f"(call $fill (i32.const {which}))" for which in order)
        ends = run(f"{body} (call $say (memory.size 0)) (call $say (memory.size 1))", Limits(memory=20 * PAGE), head)
        assert sum(ends) == 20, ends
    ends = run(f"{body} (call $say (memory.size 0)) (call $say (memory.size 1))", Limits(memory=1000 * PAGE), head)
    assert sum(ends) == 1000
    fixed = f"(memory $a {first} {first}) (memory $b {second}) {GROW_ALL}"
    ends = run(f"{body} (call $say (memory.size 0)) (call $say (memory.size 1))", Limits(memory=20 * PAGE), fixed)
    assert ends == [first, 20 - first]


def test_tables() -> None:
    """table.grow fails, too: an element counts as eight bytes, and all tables and memories count together."""
    grow = "(call $say (table.grow {} (ref.null func) (i32.const {})))"
    body = grow.format(0, 20_000_000) + grow.format(0, 131_000) + grow.format(0, 100) + "(call $say (table.size 0))"
    assert run(body, Limits(memory=PAGE * 16), "(table 2 funcref)") == [-1, 2, -1, 131_002]
    assert run(body, Limits(), "(table 2 funcref)")[0] == 2
    head = "(memory 8) (table $a 1 funcref) (table $b 100 funcref) (table 50 50 externref)"
    grow_all = "".join(
        f"(loop (br_if 0 (i32.ne (table.grow {n} (ref.null func) (i32.const 1)) (i32.const -1))))" for n in (0, 1)
    )
    grow_all += "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))"
    ask = "(call $say (table.size 0)) (call $say (table.size 1)) (call $say (memory.size))"
    a, b, pages = run(grow_all + ask, Limits(memory=16 * PAGE), head)
    assert min(a, b) > 100
    assert pages == 14
    assert 8 * (a + b + 50) + PAGE * pages <= 16 * PAGE


def test_a_table_that_cannot_grow_takes_nothing_away() -> None:
    """A table that cannot grow, as in every C program, takes no room: memory may grow right up to the limit."""
    body = "(call $say (memory.grow (i32.const 5))) (call $say (memory.grow (i32.const 1)))"
    head = "(memory 4) (table 100 100 funcref)"
    assert run(body, Limits(memory=9 * PAGE + 800), head) == [4, -1]
    assert run(body, Limits(memory=9 * PAGE + 799), head) == [-1, 4]


@pytest.mark.parametrize(
    ("head", "starts"),
    [
        ("(memory 11)", 11 * PAGE),
        ("(memory 6) (memory 5)", 11 * PAGE),
        ("(memory i64 11)", 11 * PAGE),
        ("(memory 10) (table 1 funcref)", 10 * PAGE + 8),
        ("(table 100_000 externref) (table 1 funcref)", 800_008),
    ],
)
def test_programs_that_start_too_large(head: str, starts: int, tmp_path: Path) -> None:
    """Programs that start too large are refused before anything runs, with the numbers."""
    with pytest.raises(InvalidProgram) as raised:
        run("", Limits(memory=10 * PAGE), head)
    assert str(raised.value) == (f"guest: it starts with {starts} bytes of memory, more than the limit of {10 * PAGE}")
    path = tmp_path / "large.wat"
    path.write_text(f'(module {head} (func (export "_start")))')
    ran = run_greenctx("run", "--max-memory", "640KiB", path)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.decode().endswith(f"it starts with {starts} bytes of memory, more than the limit of 655360\n")
    assert ran.stderr.count(b"\n") == 1
    assert run("", Limits(memory=starts), head) == []


def test_shared_memory() -> None:
    """A shared memory's maximum, which it must have, is lowered."""
    code = bytes(wat2wasm('(module (memory 2 1000 shared) (memory 1 5 shared) (func (export "_start")))'))
    limited = Sizes(Limits(memory=10 * PAGE).cap("guest", code))
    assert [one.maximum for one in limited.memories] == [5 * PAGE, 5 * PAGE]


def test_collected_objects() -> None:
    """The heap of garbage-collected objects is limited, too."""
    text = b"""(module (type $a (array (mut i8))) (type $l (struct (field (ref null $l)) (field (ref $a))))
      (global $l (mut (ref null $l)) (ref.null $l))
      (func (export "_start")
        (loop
          (global.set $l (struct.new $l (global.get $l) (array.new $a (i32.const 1) (i32.const 100000))))
          (br 0))))"""
    try:
        program = Program(text, limits=Limits(memory=2**22, seconds=100))
    except InvalidProgram:
        pytest.skip("this wasmtime has no garbage collection")
    with pytest.raises(Exception, match="GC heap out of memory"):
        program.run()


def test_command_line(tmp_path: Path) -> None:
    """--max-contexts and --max-memory."""
    path = tmp_path / "guest.wat"
    path.write_text(
        f"""(module {IMPORTS} (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $f)) (func $f)
          (func (export "_start")
            (if (call $create (i32.const 0) (i32.const 0)) (then (call $exit (i32.const 100))))
            (drop (call $create (i32.const 0) (i32.const 0)))
            (call $exit (i32.add (call $create (i32.const 0) (i32.const 0))
              (i32.mul (i32.const 10) (i32.eq (memory.grow (i32.const 16)) (i32.const -1)))))))"""
    )
    for options, status in (
        ([], 0), (["--max-contexts", "2"], AGAIN), (["--max-contexts=3"], 0), (["--max-contexts", "0"], 100),
        (["--max-memory", "1MiB"], 10), (["--max-memory", "1.0625m", "--max-contexts", "2"], 10 + AGAIN),
        (["--max-memory=1089 KiB"], 0),
    ):  # fmt: skip
        ran = run_greenctx("run", *options, path)
        assert (ran.returncode, ran.stderr) == (status, b""), options


@pytest.mark.parametrize(
    ("text", "value"),
    [("65536", 65536), ("1B", 1), ("64KiB", 65536), ("64k", 65536), ("64 KB", 65536), ("1.5MiB", 1572864),
     ("2G", 2**31), ("1TiB", 2**40), ("0.5KiB", 512)],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    """Bytes, or units in powers of 1024."""
    assert size(text) == value


@pytest.mark.parametrize("option", ["--max-memory", "--max-contexts", "--timeout"])
@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1e999", "nan", "inf", "9" * 400, "0x10", "1_000", "1,5", "\u0663", "1\n"]
)
def test_values_that_are_none(option: str, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong value gives one line that quotes it, and status 2."""
    from greenctx.cli import main

    if option == "--timeout" and text in ("1_000", "\u0663", "1\n"):
        pytest.skip("a Python number")
    with pytest.raises(SystemExit) as exit:
        main(["run", f"{option}={text}", "guest.wasm"])
    stdout, stderr = capfd.readouterr()
    assert (exit.value.code, stdout, stderr.count("\n")) == (2, "", 1)
    assert option in stderr
    assert repr(text) in stderr


def test_counts_and_times() -> None:
    assert (count("0"), count("30000"), seconds("0.5"), seconds("1e3")) == (0, 30000, 0.5, 1000.0)


def test_more_seconds_than_a_float_can_have() -> None:
    with pytest.raises(ValueError, match=r"^seconds must be None or at most 1\.79"):
        Limits(seconds=10**400)
    assert Program(b'(module (func (export "_start")))', limits=Limits(seconds=10**308)).run() == 0


@pytest.mark.parametrize("name", ["contexts", "memory", "seconds", "files", "stacks"])
def test_limits_that_are_none(name: str) -> None:
    """Negative ones, and what is no number."""
    for value in (-1, -0.5, float("nan")):
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be None or"):
            Limits(**{name: value})  # type: ignore[arg-type]
    for wrong in ("1", True, [1]):
        with pytest.raises(TypeError, match=f"^{name} must be None or a number, not"):
            Limits(**{name: wrong})  # type: ignore[arg-type]
    if name != "seconds":
        with pytest.raises(TypeError):
            Limits(**{name: 1.5})  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        Limits().contexts = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        setattr(Limits(), name, None)


def test_limits_as_values() -> None:
    """Equal, and of one hash, if they limit the same; they say what they are, and can be copied and pickled."""
    limits = Limits(contexts=3, seconds=0.5)
    assert limits == Limits(seconds=0.5, contexts=3) != Limits(contexts=3)
    assert len({limits, Limits(contexts=3, seconds=0.5), Limits(contexts=3)}) == 2
    assert limits != (3, None, 0.5)
    assert repr(limits) == "Limits(contexts=3, memory=None, seconds=0.5, files=512, stacks=None)"
    assert copy.copy(limits) == copy.deepcopy(limits) == pickle.loads(pickle.dumps(limits)) == limits


def test_binary() -> None:
    """The basis of the limits: all sizes that a module declares for its memories and tables."""
    code = wat2wasm(
        """(module (type $s (struct (field f64)))
          (import "a" "f" (func)) (import "a" "g" (global (ref null func))) (import "a" "t" (table 3 9 externref))
          (import "a" "e" (tag)) (import "a" "m" (memory i64 1)) (memory 2 5) (memory 1 4 shared)
          (table 7 funcref) (table 4 5 (ref $s) (struct.new $s (f64.const 0x1p11)))
          (table i64 6 (ref i31) (ref.i31 (i32.add (i32.const 11) (i32.const 0x0b)))) (table 2 (ref null $s))
          (export "x" (memory 1)) (export "y" (memory 1)) (func))"""
    )
    sizes = Sizes(bytes(code))
    assert sizes.memories == [
        Size(PAGE, None, imported=True, is_64=True),
        Size(2 * PAGE, 5 * PAGE, exported=("x", "y")),
        Size(PAGE, 4 * PAGE, shared=True),
    ]
    assert sizes.tables == [
        Size(3, 9, imported=True),
        Size(7, None),
        Size(4, 5),
        Size(6, None, is_64=True),
        Size(2, None),
    ]


@pytest.mark.parametrize(
    "section",
    [b"\4\4\1\x70\x20\0", b"\5\3\1\x10\1", b"\2\5\1\1a\1b\x7f\0", b"\4\x09\1\x40\0\x70\0\1\xfd\x0f\x0b",
     b"\5\x40\1\0\1", b"\5\5\1\0\1\0\0", b"\4\7\1\x40\0\x70\0\1\x99", b"\5\2\2\0", b"\5\4\1\x08\1\x40",
     b"\5\3\1\0\1" * 2, b"\5" + b"\xff" * 99, b"\7\3\1\xff\x00", b"\7\4\1\1\xff\0"],
)  # fmt: skip
def test_binary_that_is_not_understood(section: bytes) -> None:
    """Is refused, and not taken for something else."""
    with pytest.raises(NotUnderstood):
        Sizes(HEADER + section)
    with pytest.raises(InvalidProgram, match=r"^guest: its memory cannot be limited: "):
        Program(HEADER + section, name="guest", limits=Limits(memory=PAGE))


def test_maxima() -> None:
    """A module with other maxima is otherwise the same, down to its initializers and its names."""
    text = """(module (import "a" "m" (memory 1)) (memory 2 500) (memory i64 3) (table 7 funcref)
      (table $t 4 5 (ref func) (ref.func $f)) (func $f (export "f") (drop (table.get $t (i32.const 0))))
      (data "abc"))"""
    code = bytes(wat2wasm(text))
    maxima = (
        ("(memory 2 500)", "(memory 2 300)"),
        ("(memory i64 3)", "(memory i64 3 400)"),
        ("(table 7 f", "(table 7 9 f"),
    )
    for old, new in (*maxima, ("(table $t 4 5", "(table $t 4 4")):
        text = text.replace(old, new)
    assert Sizes(code).with_maxima([300 * PAGE, 400 * PAGE], [9, 4]) == bytes(wat2wasm(text))
    assert Sizes(code).with_maxima([0, 0], [0, 0]) != code  # never below the minimum
    assert [one.maximum for one in Sizes(Sizes(code).with_maxima([0, 0], [0, 0])).memories[1:]] == [2 * PAGE, 3 * PAGE]


def test_unwinding() -> None:
    """It runs no code of guests, and at most a third of the lines of Python that creating them ran, the same for
    each context, however many there are. So a run ends soon after its limit."""
    counts = [lines_to_create_and_unwind(contexts) for contexts in (20, 40, 80)]
    for created, unwound in counts:
        assert unwound < created / 3, counts
    (_, first), (_, second), (_, third) = counts
    assert third - second <= 2.1 * (second - first), counts


def lines_to_create_and_unwind(contexts: int) -> tuple[int, int]:
    """Run a guest whose contexts are suspended in it when main ends; count lines of Python until then, and after."""
    lines, said = 0, []

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    text = f"""(module {IMPORTS} (import "host" "say" (func $say))
      (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $waits))
      (func $waits (drop (call $switch (i64.const 0))) (call $say) unreachable)
      (func (export "_start") (local $n i32)
        (loop
          (drop (call $create (i32.const 0) (i32.const 0)))
          (drop (call $switch (i64.load (i32.const 0))))
          (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const {contexts}))))
        (call $say)))"""
    with Program(text.encode()) as program:
        program.linker.define_func("host", "say", signature("->"), lambda: said.append(lines))
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            program.run()
        finally:
            sys.settrace(before)
    assert len(said) == 1
    return said[0], lines - said[0]


def test_fiber_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no room for another stack, the error says so and why; all is unwound, and with fewer contexts
    the same program runs."""
    monkeypatch.setattr(stack_limit, "MAX_STACKS", 10)
    monkeypatch.setattr(stack_limit, "MAX_MAP_COUNT", 65530)
    embedding, unwound = Embedding(), []

    def wait() -> None:
        me = embedding.env.active_context_id
        try:
            embedding.env.switch_context(0)
        finally:
            unwound.append(me)

    embedding.define("wait", "->", wait)
    embedding.load('(module (import "host" "wait" (func $wait)) (func (export "wait") (call $wait)))')

    def main() -> None:
        for _ in range(11):
            embedding.env.switch_context(embedding.env.create_context(lambda: embedding.call("wait")))

    with pytest.raises(FiberStacksExhausted, match=r"another context beside 10 \(vm\.max_map_count is 65530; each"):
        embedding.run(main)
    assert unwound == [*range(1, 11)]
    embedding.store.close()


MANY = f"""(module {IMPORTS} (memory (export "memory") 1)
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (table (export "__indirect_function_table") funcref (elem $waits))
  (data (i32.const 64) "\\50\\00\\00\\00\\06\\00\\00\\00") (data (i32.const 80) "30000\\n")
  (func $waits (loop (drop (call $switch (i64.const 0))) (br 0)))
  (func (export "_start")
    (loop
      (if (call $create (i32.const 0) (i32.const 0)) (then unreachable))
      (if (call $switch (i64.load (i32.const 0))) (then unreachable))
      (if (i64.eq (i64.load (i32.const 0)) (i64.const 30000))
        (then (drop (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 128)))))
      (br 0))))"""
MANY = MANY.replace('(memory (export "memory") 1)\n  (import', "(import").replace(
    "(table (export", '(memory (export "memory") 1) (table (export'
)


@pytest.mark.long  # test_limit_on_address_space ends in the same error, sooner
def test_as_many_contexts_as_the_system_allows(tmp_path: Path) -> None:
    """30,000 contexts may wait in the guest; somewhat later the kernel's limit on mappings ends the program."""
    path = tmp_path / "many.wat"
    path.write_text(MANY)
    ran = run_greenctx("run", path)
    assert ran.stdout == b"30000\n"
    assert ran.returncode == 134
    assert ran.stderr.startswith(b"greenctx: the system has no room for the stack of another context beside 3")
    assert b"vm.max_map_count is " in ran.stderr
    assert ran.stderr.count(b"\n") == 1


def test_limit_on_address_space(tmp_path: Path) -> None:
    """A limit on the process's address space ends it in the same way."""
    path = tmp_path / "many.wat"
    path.write_text(MANY)
    command: list[Any] = [sys.executable, "-m", "greenctx", "run", path]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**34, 2**34))

    ran = subprocess.run(command, preexec_fn=limit, capture_output=True, timeout=TIMEOUT, check=False)
    assert ran.returncode == 134, ran.stderr
    assert ran.stderr.startswith(b"greenctx: the system has no room for the stack of another context beside ")
    assert ran.stderr.count(b"\n") == 1


OPENS = """(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "host" "say" (func $say (param i32)))
  (memory (export "memory") 1) (data (i32.const 0) ".")
  (func (export "_start")
    (local $error i32) (local $opened i32)
    (loop
      (local.set $error (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
        (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 16)))
      (if (i32.eqz (local.get $error))
        (then (local.set $opened (i32.add (local.get $opened) (i32.const 1))) (br 1))))
    (call $say (local.get $opened)) (call $say (local.get $error)) (call $say (i32.load (i32.const 16)))))"""


@pytest.mark.parametrize(("limits", "most"), [(Limits(), 512), (Limits(files=20), 20), (Limits(files=4), 4)])
def test_files(limits: Limits, most: int, tmp_path: Path) -> None:
    """At the limit, 512 by default, opening one more is mfile. Standard streams and the preopened directory count."""
    said: list[int] = []
    open_before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with Program(OPENS.encode(), preopens={"/": tmp_path}, limits=limits) as program:
        program.linker.define_func("host", "say", signature("i32 ->"), said.append)
        assert program.run() == 0
        assert said[:2] == [most - 4, MFILE]
        assert program.run(limits=Limits(files=10)) == 0
        assert said[3:5] == [6, MFILE]
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) < open_before + 20


@pytest.mark.parametrize("stdio", [None, Stdio(b"", None, None)])
def test_files_of_an_embedder(stdio: Stdio | None, tmp_path: Path) -> None:
    """A store of an embedder's has the default limit. Closing and moving a descriptor makes room for one; an invalid
    pointer for the result opens nothing."""
    guest = WasiGuest(stdio, str(tmp_path))
    arguments = 3, 0, *guest.path(b"."), 0, 0, 0, 0
    assert guest.call("fd_close", 1) == 0
    for _ in range(5):
        assert guest.call("path_open", *arguments, END) == FAULT
    opened = 0
    while guest.call("path_open", *arguments, RESULT) == 0:
        opened += 1
    assert opened == 512 - 3
    assert guest.call("path_open", *arguments, RESULT) == MFILE
    assert guest.call("path_open2", *arguments, 0, RESULT) == MFILE
    for name, *numbers in (("fd_close", 100), ("fd_renumber", 4, 5)):
        assert guest.call(name, *numbers) == 0
        assert guest.call("path_open", *arguments, RESULT) == 0
        assert guest.call("path_open", *arguments, RESULT) == MFILE
    for number in (600, 2**20, 100_000):
        assert guest.call("fd_renumber", 5, number) == BADF
        assert guest.call("fd_renumber", 5, 5) == 0
        assert guest.call("path_open", *arguments, RESULT) == MFILE


def test_pipes_count_wherever_their_descriptors_are(tmp_path: Path) -> None:
    """A guest that moves pipes onto the descriptors of files has no more of them: 64 MiB of the host's memory."""
    guest = WasiGuest(Stdio(b"", None, None), str(tmp_path))
    arguments = 3, 0, *guest.path(b"."), 0, 0, 0, 0
    pipes = 0
    while pipes < 1000 and guest.call("fd_pipe", RESULT, RESULT + 4) == 0:
        pipes += 1
        ends = guest.result(), guest.result(RESULT + 4)
        if pipes <= 100:
            for end in ends:
                assert guest.call("path_open", *arguments, RESULT) == 0
                assert guest.call("fd_renumber", end, guest.result()) == 0
                assert guest.call("fd_close", end) == 0
    assert pipes == 512


def test_stacks() -> None:
    """There are as many contexts as have room for their stacks, or fewer by the other limit."""
    assert Limits().max_contexts is None
    assert Limits(stacks=10 * 2**20).max_contexts == 20
    assert Limits(stacks=10 * 2**20, contexts=3).max_contexts == 3
    assert Limits(stacks=0, contexts=3).max_contexts == 0
    body = "(call $new) (call $new) (call $new)"
    assert run(body, Limits(stacks=2 * 2**19), CONTEXTS) == [0, 0, AGAIN]


EXIT_WITH_COUNT = """(import "wasi_snapshot_preview1" "proc_exit" (func $say (param i32)))"""


def test_limits_of_the_command_line(tmp_path: Path) -> None:
    guest = tmp_path / "guest.wat"
    guest.write_text(OPENS.replace('(import "host" "say" (func $say (param i32)))', EXIT_WITH_COUNT))
    for options, status in (((), 508 & 0xFF), (("--max-files", "30"), 26)):
        assert run_greenctx("run", "--dir", f"{tmp_path}::/", *options, guest).returncode == status
    guest.write_text(f"""(module {IMPORTS} {EXIT_WITH_COUNT} {CONTEXTS} (func (export "_start") (call $new)))""")
    for room, status in (("512KiB", 0), ("511KiB", AGAIN)):
        assert run_greenctx("run", "--max-stacks", room, guest).returncode == status
