"""Program: loads and runs a WASI command, as often as one likes, alone, nested, and side by side."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest
from c_guests import compile_guest
from embedding import IMPORTS, signature
from wasmtime import Trap, WasmtimeError

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment, NotTheActiveContext, current_environment
from greenctx.wasix import InvalidProgram, Program, call

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasmtime import Func

    from greenctx.wasix import Caller

# Two contexts count, in turns, to what the host says, and exit with the sum.
COUNTERS = f"""(module {IMPORTS}
  (import "host" "limit" (func $limit (result i32)))
  (import "host" "turn" (func $turn))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $other))
  (global $sum (mut i32) (i32.const 0))
  (func $count (param $id i64)
    (global.set $sum (i32.add (global.get $sum) (i32.const 1)))
    (call $turn)
    (if (i32.ge_u (global.get $sum) (call $limit)) (then (call $exit (global.get $sum))))
    (if (call $switch (local.get $id)) (then unreachable)))
  (func $other (loop (call $count (i64.const 0)) (br 0)))
  (func (export "_start")
    (if (call $create (i32.const 0) (i32.const 0)) (then unreachable))
    (loop (call $count (i64.const 1)) (br 0))))
"""


def counters(limit: int, turn: Callable[[], object] = lambda: None) -> Program:
    program = Program(COUNTERS.encode())
    program.linker.define_func("host", "limit", signature("-> i32"), lambda: limit)
    program.linker.define_func("host", "turn", signature("->"), lambda: turn() and None)
    return program


def test_every_run_is_a_fresh_one() -> None:
    """A program may run again and again, its memory, contexts and globals new each time."""
    program = counters(10)
    assert [program.run() for _ in range(20)] == [10] * 20


def test_programs_one_after_the_other() -> None:
    """However one of them ended, the next is not touched by it."""
    endings = compile_guest("endings")
    for _ in range(3):
        with pytest.raises(Trap, match="fall_into_the_trap"):
            Program.from_file(endings, argv=["endings", "trap-in-context"]).run()
        assert counters(7).run() == 7
        with pytest.raises(ContextEntrypointReturned, match="context 2 returned"):
            Program.from_file(endings, argv=["endings", "return-from-entrypoint"]).run()
        assert Program.from_file(endings, argv=["endings", "exit-in-context", "43"]).run() == 43
        assert Program.from_file(endings, argv=["endings", "leave-suspended", "3"]).run() == 3


def test_nested_programs() -> None:
    """A host function, in whichever context, may run another program, whose contexts are its own."""
    statuses: list[int] = []

    def turn() -> None:
        env = current_environment()
        me = env.active_context_id
        statuses.append(counters(me + 3).run())
        assert current_environment() is env
        assert env.active_context_id == me

    assert counters(6, turn).run() == 6
    assert statuses == [3, 4, 3, 4, 3, 4]


def test_deeply_nested_programs() -> None:
    """Twenty programs, each run by a host function of the one before, and the innermost one fails."""
    entered: list[int] = []

    def nest() -> None:
        entered.append(len(entered))
        if len(entered) == 20:
            raise LookupError("innermost")
        counters(2, nest).run()

    with pytest.raises(LookupError, match="innermost") as raised:
        counters(2, nest).run()
    assert entered == [*range(20)]
    assert len(raised.value.__notes__) == 20


def test_programs_interleaved() -> None:
    """Programs that run in the contexts of an outer environment take turns, each in the middle of its own main. From a
    program's other contexts the outer environment cannot be switched: its active context is that of their main."""
    env, told, finished = ContextSwitchingEnvironment(), [], []

    def run(limit: int) -> None:
        def turn() -> None:
            own = current_environment()
            told.append((me, own.active_context_id))
            if own.active_context_id == 0:
                env.switch_context(3 - me)
                assert current_environment() is own
            else:
                with pytest.raises(NotTheActiveContext, match=f"context {me} is the active one"):
                    env.switch_context(3 - me)

        me = env.active_context_id
        assert counters(limit, turn).run() == limit
        finished.append(me)
        while True:
            env.switch_context(0 if len(finished) == 2 else 3 - me)

    def main() -> None:
        env.create_context(lambda: run(4))
        env.create_context(lambda: run(5))
        env.switch_context(1)

    env.run_main_context(main)
    assert finished == [1, 2]
    assert told == [(1, 0), (2, 0), (1, 1), (1, 0), (2, 1), (2, 0), (1, 1), (2, 1), (2, 0)]


def test_a_program_per_thread() -> None:
    """Programs run in parallel, one a thread, and none notices the others: not their switches, exits or traps."""
    statuses: dict[int, object] = {}
    barrier = threading.Barrier(8)

    def run(number: int) -> None:
        program = counters(200 + number)
        barrier.wait()
        if number % 4 == 3:
            with pytest.raises(Trap, match="this_one_traps"):
                Program(b'(module (func $this_one_traps unreachable) (export "_start" (func $this_one_traps)))').run()
        statuses[number] = [program.run() for _ in range(5)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {number: [200 + number] * 5 for number in range(8)}


def test_one_program_in_several_threads() -> None:
    """One and the same program may run in several threads at once."""
    program, statuses = counters(100), []
    threads = [threading.Thread(target=lambda: statuses.append(program.run())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [100] * 4


def test_settings(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """argv, env and preopens are what the guest gets; without argv it is the program's name."""
    process = compile_guest("process")
    assert Program.from_file(process, argv=["name", "a b"]).run() == 0
    assert Program.from_file(process).run() == 0
    assert Program(process.read_bytes(), name="called").run() == 0
    assert Program.from_file(process, argv=["name", "env"], env={"A": "1", "B": ""}).run() == 0
    (tmp_path / "in").write_text("text")
    assert Program.from_file(process, argv=["name", "copy", "/d/in", "/d/out"], preopens={"/d": tmp_path}).run() == 0
    assert (tmp_path / "out").read_text() == "text"
    stdout, stderr = capfd.readouterr()
    assert (stdout, stderr) == (f"[name]\n[a b]\n[{process}]\n[called]\nA=1\nB=\n", "")


def test_invalid_programs(tmp_path: Path) -> None:
    """InvalidProgram has the program's name and the reason; what can be found out before a run is."""
    with pytest.raises(InvalidProgram, match=r"^it\.wasm: it is empty$") as raised:
        Program(b"", name="it.wasm")
    assert (raised.value.name, raised.value.reason) == ("it.wasm", "it is empty")
    with pytest.raises(InvalidProgram, match="No such file") as raised:
        Program.from_file(tmp_path / "no.wasm")
    assert raised.value.name == str(tmp_path / "no.wasm")
    assert isinstance(raised.value.__cause__, FileNotFoundError)
    with pytest.raises(InvalidProgram, match="does not compile") as raised:
        Program(b"(module (func $f (call $g)))")
    assert isinstance(raised.value.__cause__, WasmtimeError)
    nothing = b'(module (func (export "_start")))'
    with pytest.raises(InvalidProgram, match="to preopen is not there"):
        Program(nothing, preopens={"/d": tmp_path / "missing"})
    for wrong in ("a\0b", "\udc80"):
        with pytest.raises(InvalidProgram, match="cannot be given to a guest"):
            Program(nothing, argv=[wrong])
        with pytest.raises(InvalidProgram, match="cannot be given to a guest"):
            Program(nothing, env={"K": wrong})


def test_missing_import_is_found_at_run() -> None:
    """Host functions may be defined until run, which names what is still missing and starts nothing."""
    program = Program(COUNTERS.encode())
    program.linker.define_func("host", "limit", signature("-> i32"), lambda: 5)
    for _ in range(2):
        with pytest.raises(InvalidProgram, match=r"nothing provides what it imports: host\.turn$"):
            program.run()
    program.linker.define_func("host", "turn", signature("->"), lambda: None)
    assert program.run() == 5


def test_host_functions_of_programs() -> None:
    """Program.linker takes host functions, too; the store for a nested call comes with access_caller."""
    program = Program(
        b"""(module
          (import "host" "twice" (func $twice))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (global $n (mut i32) (i32.const 0))
          (memory (export "memory") 0)
          (func (export "step") (global.set $n (i32.add (global.get $n) (i32.const 1))))
          (func (export "_start") (call $twice) (call $exit (global.get $n))))"""
    )

    def twice(caller: Caller) -> None:
        for _ in range(2):
            call(caller, cast("Func", caller["step"]))

    program.linker.define_func("host", "twice", signature("->"), twice, access_caller=True)
    assert [program.run(), program.run()] == [2, 2]
