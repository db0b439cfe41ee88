"""Program: loads and runs a WASI command, as often as one likes, alone, nested, and side by side."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

import pytest
from guests.compile import compile_guest
from guests.embedding import IMPORTS, signature
from processes import check_embedder, check_script
from wasmtime import Trap, WasmtimeError

from greenctx import (
    ContextEntrypointReturned,
    ContextSwitchingEnvironment,
    NoEnvironment,
    NotTheActiveContext,
    current_environment,
)
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


def test_the_end_of_a_long_chain() -> None:
    """The epoch thread is freed once, even in a chain of objects so long that CPython defers parts of its end."""
    check_script("""
        from wasmtime import Engine
        from greenctx.wasix._clock.epochs import epoch_thread

        engine = Engine()
        for length in range(200):
            chain = epoch_thread(engine)
            for _ in range(length):
                chain = (chain,)
            del chain
    """)


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


@pytest.mark.parametrize("status", [0, 1, 125, 126, 255, 256, 2**31 - 1, 2**31, 2**32 - 1])
def test_status(status: int) -> None:
    """The status is what the guest gave, as an unsigned number of 32 bits: exit(-1) is 2**32 - 1."""
    text = """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
      (memory (export "memory") 0) (func (export "_start") (call $exit (i32.const STATUS))))"""
    assert Program(text.replace("STATUS", str(status)).encode()).run() == status


NOTSUP = 58
EVERY_CALL = f"""(module {IMPORTS} (import "host" "before" (func $before))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $f)) (func $f)
  (func (export "_start")
    (call $before)
    (call $exit (i32.or (call $create (i32.const 0) (i32.const 0))
      (i32.or (i32.shl (call $switch (i64.const 0)) (i32.const 8))
        (i32.shl (call $destroy (i64.const 1)) (i32.const 16)))))))"""


@pytest.mark.parametrize("within", ["nothing", "an environment", "a program"])
def test_without_contexts(within: str) -> None:
    """With contexts=False the three calls answer notsup, also within an outer environment, which is not touched."""
    seen: list[object] = []

    def ask() -> None:
        with pytest.raises(NoEnvironment):
            current_environment()
        seen.append("asked")

    def run() -> None:
        program = Program(EVERY_CALL.encode(), contexts=False)
        program.linker.define_func("host", "before", signature("->"), ask)
        assert program.run() == NOTSUP * 0x010101
        seen.append("ran")

    if within == "nothing":
        run()
    elif within == "an environment":
        env = ContextSwitchingEnvironment()

        def other() -> None:
            run()
            env.switch_context(0)

        def main() -> None:
            run()
            assert current_environment() is env
            env.switch_context(env.create_context(other))

        env.run_main_context(main)
    else:
        outer = Program(EVERY_CALL.encode())
        outer.linker.define_func("host", "before", signature("->"), run)
        assert outer.run() == 0
    assert seen == ["asked", "ran"] * (2 if within == "an environment" else 1)


def test_without_contexts_a_host_function_may_run_a_program_with_them() -> None:
    """Each program is what it was loaded as, whatever it is nested in."""
    program = Program(EVERY_CALL.encode(), contexts=False)
    program.linker.define_func("host", "before", signature("->"), lambda: counters(5).run() and None)
    assert program.run() == NOTSUP * 0x010101


@pytest.mark.parametrize("contexts", [True, False])
def test_outer_environment_while_an_inner_guest_runs(contexts: bool) -> None:
    """Python of a plain wasmtime.Func, on the inner guest's fiber, is refused by the outer environment as well."""
    check_embedder(
        f"""
        seen = []
        def plain():
            for call in (env.switch_context, env.destroy_context):
                seen.append(refused(NotTheActiveContext, call, 1))
            seen.append(refused(NotTheActiveContext, env.create_context, print))
        def host(caller):
            # A plain function of the inner store, which only a host function of the program's gets to see.
            inner = Linker(caller.store.engine)
            inner.define(caller, "host", "plain", Func(caller.store, NOTHING, plain))
            text = '(module (import "host" "plain" (func $f)) (func (export "f") (call $f)))'
            module = Module(caller.store.engine, text)
            call(caller, inner.instantiate(caller, module).exports(caller)["f"])
        program = Program(b'(module (import "host" "f" (func $f)) (func $g (call $f)) (export "_start" (func $g)))',
                          contexts={contexts})
        program.linker.define_func("host", "f", NOTHING, host, access_caller=True)
        def main():
            env.create_context(lambda: env.switch_context(0))
            assert program.run() == 0
            env.switch_context(1)
        env.run_main_context(main)
        assert len(seen) == 3 and all("guest code on its fiber" in message for message in seen), seen
        """
    )


def test_start_function_that_switches() -> None:
    """A module's start function may call imports, create contexts and switch, before _start does."""
    told: list[int] = []
    program = Program(
        f"""(module {IMPORTS} (import "host" "tell" (func $tell (param i32)))
          (memory (export "memory") 1) (table (export "__indirect_function_table") funcref (elem $other))
          (func $other (call $tell (i32.const 1)) (drop (call $switch (i64.const 0)))
            (call $tell (i32.const 3)) (drop (call $switch (i64.const 0))))
          (func $first (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1))))
          (start $first)
          (func (export "_start") (call $tell (i32.const 2)) (drop (call $switch (i64.const 1)))))""".encode()
    )
    program.linker.define_func("host", "tell", signature("i32 ->"), lambda number: told.append(number))
    assert [program.run(), program.run()] == [0, 0]
    assert told == [1, 2, 3] * 2


def test_directory_that_goes_away(tmp_path: Path) -> None:
    """A directory that has vanished when the program runs is named."""
    (tmp_path / "gone").mkdir()
    program = Program(b'(module (func (export "_start")))', preopens={"/d": tmp_path / "gone"})
    assert program.run() == 0
    (tmp_path / "gone").rmdir()
    with pytest.raises(InvalidProgram, match=r"the directory '.*gone' cannot be opened"):
        program.run()


@pytest.mark.parametrize("code", ["(module)", None, bytearray(b"")])
def test_what_is_no_code(code: object) -> None:
    """Code is bytes; a path, say, is not taken for it."""
    with pytest.raises(TypeError, match=r"code must be the bytes of a module, .* use Program\.from_file"):
        Program(code)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1])
def test_shadow_stack_that_is_none(size: int) -> None:
    with pytest.raises(ValueError, match="shadow_stack must be None or a positive number of bytes"):
        Program(b"(module)", shadow_stack=size)
