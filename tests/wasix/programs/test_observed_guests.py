"""Guests in instruments and dumps of stacks: names, host calls, and where guests wait."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest
import wasmtime
from greenlet import getcurrent
from guests.context_calls import INVAL
from guests.embedding import ENGINE, IMPORTS, Embedding, compiled, signature
from hypothesis import given
from hypothesis import strategies as st
from leakcheck import assert_no_leak
from recorder import Recorder
from wasmtime import Engine, Func, FuncType, Module, Store, ValType

from greenctx import ContextSwitchingEnvironment, Instrument, Trace, current_environment
from greenctx.wasix import GuestExit, Linker, Program, call
from greenctx.wasix._fibers import host_functions
from greenctx.wasix._modules.compile import to_binary
from greenctx.wasix._modules.names import EntrypointNames

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class HostCalls(Instrument):
    """Keeps host calls, by context, with how they ended."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.names: list[str] = []

    def context_created(self, environment: ContextSwitchingEnvironment, context_id: int, _: object) -> None:
        self.names += [info.name for info in environment.contexts() if info.id == context_id]

    def host_call_started(self, _: ContextSwitchingEnvironment, context_id: int, name: str) -> None:
        self.events.append((context_id, name.partition(".")[2]))

    def host_call_ended(
        self, _: ContextSwitchingEnvironment, context_id: int, name: str, error: BaseException | None
    ) -> None:
        self.events.append((context_id, name.partition(".")[2], type(error).__name__ if error else "returned"))


class Interfering(HostCalls):
    """Lets other code run at the beginning of a host call, once."""

    interfere: Callable[[], object] | None = None

    def host_call_started(self, _: ContextSwitchingEnvironment, context_id: int, name: str) -> None:
        super().host_call_started(_, context_id, name)
        interfere, self.interfere = self.interfere, None
        if interfere is not None:
            interfere()


GUEST = f"""(module {IMPORTS}
  (import "host" "work" (func $work))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 3 funcref)
  (elem (i32.const 1) $worker $other)
  (func $worker (call $work) (drop (call $switch (i64.const 0))) (call $work))
  (func $other (call $work))
  (func (export "_start")
    (drop (call $create (i32.const 0) (i32.const 1)))
    (drop (call $switch (i64.const 1)))))"""


def test_host_calls_are_told() -> None:
    """Each call of a program's host functions is told with its context, its end after all that happened in between."""
    calls = HostCalls()
    with Program(GUEST.encode(), instruments=[calls]) as program:
        program.linker.define_func("host", "work", FuncType([], []), lambda: None)
        assert program.run() == 0
        first, calls.events = calls.events, []
        assert first == [
            (0, "context_create"),
            (0, "context_create", "returned"),
            (0, "context_switch"),
            (1, "work"),
            (1, "work", "returned"),
            (1, "context_switch"),
            (0, "context_switch", "returned"),
            (1, "context_switch", "ContextCanceled"),
        ]
        assert calls.names == ["worker"]
        program.run()
        assert calls.events == first


def test_host_calls_that_raise(tmp_path: Path) -> None:
    """An error of a host function is reported for each call that it leaves; a guest's exit is not an error."""
    calls = HostCalls()
    for error in (ZeroDivisionError("x"), GuestExit(3)):

        def work(error: BaseException = error) -> None:
            raise error

        with Trace(tmp_path / "out.json") as trace, Program(GUEST.encode(), instruments=[calls, trace]) as program:
            program.linker.define_func("host", "work", FuncType([], []), work)
            if isinstance(error, GuestExit):
                assert program.run() == 3
            else:
                with pytest.raises(ZeroDivisionError):
                    program.run()
        assert calls.events[-2:] == [(1, "work", type(error).__name__), (0, "context_switch", type(error).__name__)]
        text = (tmp_path / "out.json").read_text()
        assert ('"host.work failed"' in text) == (error.__class__ is ZeroDivisionError)
        assert ('"exited"' in text) == (error.__class__ is GuestExit)


def test_a_linker_of_ones_own_reports_if_it_is_to() -> None:
    """Host calls are told where the linker and the environment both say so."""
    for report in (False, True):
        engine = Engine()
        store, linker = Store(engine), Linker(engine, report_host_calls=report)
        linker.define_wasix()
        linker.define_func("host", "work", FuncType([], []), lambda: None)
        exports = linker.instantiate(store, Module(engine, GUEST)).exports(store)
        start = exports["_start"]
        assert isinstance(start, wasmtime.Func)
        calls = HostCalls()
        for env in (ContextSwitchingEnvironment(instruments=[calls]), ContextSwitchingEnvironment()):
            env.run_main_context(call, store, start)
        assert (len(calls.events) == 8) is report
        assert calls.names == ["table[1]"]  # nobody knows the code


OBEDIENT = f"""(module {IMPORTS}
  (import "host" "next" (func $next (result i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $obey)
  (func $obey (local $next i32)
    (loop $again
      (if (i32.lt_s (local.tee $next (call $next)) (i32.const 0)) (then (return)))
      (if (i32.lt_s (local.get $next) (i32.const 10))
        (then (drop (call $switch (i64.extend_i32_s (local.get $next)))))
        (else (if (i32.lt_s (local.get $next) (i32.const 20))
          (then (drop (call $destroy (i64.extend_i32_s (i32.sub (local.get $next) (i32.const 10))))))
          (else (drop (call $create (i32.const 8) (i32.const 0)))))))
      (br $again)))
  (func (export "_start") (call $obey)))"""
RETURN, CREATE = -1, 20


class Everything(Recorder):
    """Keeps host calls as well. It can be told to raise at one of its events, once."""

    def __init__(self, raises_at: int) -> None:
        super().__init__()
        self.left = raises_at

    def host_call_started(self, _: ContextSwitchingEnvironment, context_id: int, name: str) -> None:
        self.events.append(("called", context_id, name))
        self.count()

    def host_call_ended(
        self, _: ContextSwitchingEnvironment, context_id: int, name: str, error: BaseException | None
    ) -> None:
        self.events.append(("call ended", context_id, name, None if error is None else repr(error)))
        self.count()

    def context_switched(self, _: ContextSwitchingEnvironment, from_id: int, to_id: int) -> None:
        super().context_switched(_, from_id, to_id)
        self.count()

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class WithAnotherSwitch(ContextSwitchingEnvironment):
    """Its guests' switches take the long way, through Python."""

    def switch_context(self, context_id: int) -> None:
        super().switch_context(context_id)


@pytest.mark.parametrize("report", [False, True])
@given(
    script=st.lists(st.sampled_from([*range(5), *range(5), 10, 11, 12, CREATE, CREATE, RETURN, 9]), max_size=40),
    raises_at=st.integers(0, 40),
)
def test_switches_of_guests_are_told_as_those_of_python(report: bool, script: list[int], raises_at: int) -> None:
    """Whether a guest's switch takes the short cut or not, instruments are told the same events in the same order."""
    told = []
    for cls in (ContextSwitchingEnvironment, WithAnotherSwitch):
        store, linker, steps = Store(ENGINE), Linker(ENGINE, report_host_calls=report), iter([CREATE, 1, *script])
        linker.define_wasix()
        linker.define_func("host", "next", FuncType([], [ValType.i32()]), partial(next, steps, RETURN))
        start = linker.instantiate(store, compiled(OBEDIENT)).exports(store)["_start"]
        everything = Everything(raises_at)
        try:
            cls(instruments=[everything]).run_main_context(partial(call, store, cast("Func", start)))
        except BaseException as error:
            everything.events.append(("raised", repr(error)))
        told.append(everything.events)
        store.close()
    assert told[0] == told[1]


@pytest.mark.parametrize("cls", [ContextSwitchingEnvironment, WithAnotherSwitch])
def test_another_greenlet_runs_while_a_switch_is_told(cls: type[ContextSwitchingEnvironment]) -> None:
    """It may take the switch's target away, as gevent's might. Then the call returns inval, and its end is told."""
    env, others = cls(instruments=[calls := Interfering()]), []
    store, linker = Store(ENGINE), Linker(ENGINE, report_host_calls=True)
    linker.define_wasix()
    switch = f"""(module {IMPORTS} (memory (export "memory") 1)
      (func (export "switch") (param i64) (result i32) (call $switch (local.get 0))))"""
    exports = linker.instantiate(store, compiled(switch)).exports(store)

    def main() -> None:
        def other() -> None:
            others.append(getcurrent())
            env.switch_context(0)
            assert env.destroy_context(1)
            main_greenlet.switch()

        main_greenlet = getcurrent()
        for _ in range(2):
            env.switch_context(env.create_context(other))
        calls.interfere = others[1].switch
        assert call(store, cast("Func", exports["switch"]), 1) == INVAL

    env.run_main_context(main)
    assert calls.events[:2] == [(0, "context_switch"), (0, "context_switch", "returned")]


def test_a_program_without_instruments_defines_the_functions_themselves() -> None:
    """The module that reports is not even imported."""

    def work() -> None: ...

    defined: list[host_functions.HostFunction] = []
    define_func = host_functions.define_func

    def spy(*args: Any) -> host_functions.HostFunction:
        defined.append(define_func(*args))
        return defined[-1]

    program = Program(GUEST.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_functions, "define_func", spy)
        program.linker.define_func("host", "work", signature("->"), work)
    assert [host_function.function for host_function in defined] == [work]


TABLES = """(module
  (import "m" "imported" (func $imported))
  (import "m" "table" (table 9 funcref))
  (table $own (export "__indirect_function_table") 20 funcref)
  (func $a) (func $b) (func (export "exported")) (func)
  (global $offset i32 (i32.const 5))
  (elem (i32.const 0) $b $b $b)
  (elem (table $own) (i32.const 1) func $a $b $imported)
  (elem (table $own) (i32.const 4) funcref (ref.func $b) (ref.null func) (item (ref.func 3)))
  (elem func $a)
  (elem funcref (ref.func $b))
  (elem declare func $a)
  (elem (table $own) (i32.const 10) func 3 4)
  (elem (table $own) (global.get $offset) func $a))"""


def test_names_of_table_elements() -> None:
    """Names come from the name section, else from an export, else from the number of the function."""
    names = EntrypointNames(to_binary("x", TABLES.encode()))
    assert [names.at(index) for index in range(12)] == [
        None,
        "a",
        "b",
        "imported",
        "b",
        None,
        "exported",
        None,
        None,
        None,
        "exported",
        "function[4]",
    ]


def test_names_where_none_can_be_read() -> None:
    """Code in an unknown form has no names, and does no harm, wherever it ends and whatever its bytes are."""
    binary = to_binary("x", TABLES.encode())
    assert EntrypointNames(binary).at(1) == "a"
    for length in range(8, len(binary)):
        EntrypointNames(binary[:length]).at(1)
    for position in range(8, len(binary)):
        EntrypointNames(binary[:position] + b"\xff" + binary[position + 1 :]).at(1)


def test_stacks_of_guests() -> None:
    """A dump names the host functions in which guests wait, between the frames that called the guest and theirs."""
    texts: list[str] = []

    def work() -> None:
        environment = current_environment()
        if environment.active_context_id == 1:
            environment.switch_context(0)
        else:
            texts.append(environment.format_stacks())

    guest = GUEST.replace("(drop (call $switch (i64.const 1)))))", "(drop (call $switch (i64.const 1))) (call $work)))")
    with Program(guest.encode()) as program:
        program.linker.define_func("host", "work", FuncType([], []), work)
        program.run()
    [text] = texts
    main, context = text.split("context 1 (worker), suspended, ")
    assert main.startswith("context 0 (main), active, ")
    for part, innermost in ((main, "work"), (context, "work")):
        lines = part.splitlines()
        [position] = [n for n, line in enumerate(lines) if line == "  (a guest, which has called host.work)"]
        after = [line for line in lines[position:] if line.startswith("  File")]
        assert after[0].endswith(" in work")
        assert after[-1].endswith(f" in {innermost}")
        assert not any(line.endswith(" in _poll_to_the_end") for line in lines)


def test_wasmtime_sees_no_frames_of_a_suspended_guest() -> None:
    """So a dump has none. wasmtime's profiler samples a store's stack, and finds the guest only on the thread's own."""
    import json
    from ctypes import byref, cast, create_string_buffer, pointer

    from wasmtime import _bindings as ffi

    def sampled(linker: wasmtime.Linker, engine: Engine) -> list[str]:
        found: list[str] = []

        def sample() -> None:
            name, text = ffi.wasm_name_t(), create_string_buffer(b"x")
            name.size, name.data = 1, cast(text, type(name.data))
            entry = ffi.wasmtime_guestprofiler_modules_t()
            entry.name, entry.mod = pointer(name), cast(module.ptr(), type(entry.mod))
            profiler = ffi.wasmtime_guestprofiler_new(engine.ptr(), byref(name), 1000, byref(entry), 1)
            ffi.wasmtime_guestprofiler_sample(profiler, store.ptr(), 1000)
            out = ffi.wasm_byte_vec_t()
            assert not ffi.wasmtime_guestprofiler_finish(profiler, byref(out))
            thread = json.loads(bytes(out.data[: out.size]))["threads"][0]
            ffi.wasm_byte_vec_delete(byref(out))
            found.extend(thread["stringArray"])

        store = Store(engine)
        linker.define_func("host", "sample", FuncType([], []), sample)
        exports = linker.instantiate(store, module).exports(store)
        run = exports["run"]
        assert isinstance(run, wasmtime.Func)
        if isinstance(linker, Linker):
            call(store, run)
        else:
            run(store)
        return found

    engine = Engine()
    module = Module(
        engine,
        '(module (import "host" "sample" (func $sample)) (func $inner (call $sample))'
        ' (func (export "run") (call $inner)))',
    )
    assert "inner" in sampled(wasmtime.Linker(engine), engine)
    assert sampled(Linker(engine), engine) == []


def test_nothing_is_left_behind() -> None:
    """Names and reports of host calls leave nothing behind."""
    program = Program(GUEST.encode(), instruments=[HostCalls()])
    program.linker.define_func("host", "work", signature("->"), lambda: None)

    def scenario() -> None:
        program.instruments = [HostCalls()]
        program.run()

    assert_no_leak(scenario, repeats=20, memory_slack=512 * 1024)
    program.close()


def test_embedders_contexts_have_names() -> None:
    """A context that Python created has the name of its entrypoint, also if that calls a guest."""
    embedding = Embedding()

    def in_python() -> None:
        embedding.env.switch_context(0)

    def main() -> list[str]:
        embedding.env.switch_context(embedding.env.create_context(in_python))
        return [info.name for info in embedding.env.contexts()]

    assert embedding.run(main) == ["main", "in_python"]
