"""The WASIX imports of old and new toolchains: each function runs, returns notsup, or traps when it is called."""

from __future__ import annotations

import io
import logging
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from struct import unpack
from threading import Barrier, BrokenBarrierError
from typing import TYPE_CHECKING, Any

import pytest
from guests.wasi_guest import END, ENGINE, RESULT, WasiGuest
from processes import TIMEOUT
from wasmtime import FuncType, Module, Store, Trap, ValType, WasiConfig, WasmtimeError

from greenctx.errors import TimeLimitExceeded, WasiNotSet
from greenctx.wasix import InvalidProgram, Limits, Linker, Program, Stdio, call
from greenctx.wasix._files.wasmtime_wasi import PARAMETERS
from greenctx.wasix._linking.wasix_imports import calls_for as all_calls_for
from greenctx.wasix._program.inspection import inspect_file
from greenctx.wasix._syscalls.of_wasix.lone_process import MAX_THREAD_LOCALS
from greenctx.wasix._syscalls.of_wasix.types import wasix_types
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from greenctx.wasix._syscalls.table import SystemCall

AGAIN, BADF, CHILD, INVAL, NOTSUP, SRCH, MEMVIOLATION = 6, 8, 12, 28, 58, 71, 78
HOSTILE = [END, END - 1, 2**31 - 1, 2**31, 2**32 - 1, -1, -4, -(2**31)]
POINTERS = {"wasix_32v1": "i32", "wasix_64v1": "i64"}
each_module = pytest.mark.parametrize("module", ["wasix_32v1", "wasix_64v1"])


def parts(ty: str) -> tuple[list[str], list[str]]:
    """The types of the parameters and the results."""
    parameters, results = ty.split("->")
    return parameters.split(), results.split()


def imported(module: str, name: str, ty: str, label: str = "call") -> str:
    parameters, results = parts(ty)
    signature = f"(param {' '.join(parameters)}) (result {' '.join(results)})"
    return f'(import "{module}" "{name}" (func ${label} {signature}))'


def program(*imports: str, body: str = "", memory: str = '(memory (export "memory") 1)', **settings: Any) -> Program:
    text = f'(module {" ".join(imports)} {memory} (func (export "_start") {body}))'
    return Program(text.encode(), **{"stdin": b"", "stdout": io.BytesIO(), **settings})


def calling(module: str, name: str, ty: str, *arguments: int, **settings: Any) -> Program:
    """A program that exits with what the call returns."""
    parameters, results = parts(ty)
    values = " ".join(f"({kind}.const {value})" for kind, value in zip(parameters, arguments, strict=True))
    exits = f"(call $exit (call $call {values}))" if results else f"(call $call {values})"
    return program(imported(module, "proc_exit2", "i32 ->", "exit"), imported(module, name, ty), body=exits, **settings)


@pytest.fixture
def guest(tmp_path: Path) -> WasiGuest:
    return WasiGuest(Stdio(b"input", io.BytesIO(), io.BytesIO()), str(tmp_path))


# Functions that greenctx does not provide.


@each_module
def test_every_known_function_can_be_imported(module: str, tmp_path: Path) -> None:
    """A program that imports all of WASIX, each with each type that it has ever had, runs if it calls nothing."""
    rounds = max(map(len, wasix_types(module).values()))
    for number in range(rounds):
        imports = [
            imported(module, name, sorted(types)[number], f"f{index}")
            for index, (name, types) in enumerate(sorted(wasix_types(module).items()))
            if number < len(types)
        ]
        with program(*imports) as all_of_it:
            assert all_of_it.run() == 0
        path = tmp_path / "guest.wat"
        path.write_text(f'(module {" ".join(imports)} (memory (export "memory") 1) (func (export "_start")))')
        found = inspect_file(path)
        assert found.runnable
        assert {one.word for one in found.imports} <= {"provided", "answers ENOTSUP"}


@each_module
@pytest.mark.parametrize("name", ["sock_open", "proc_fork", "thread_spawn_v2", "proc_spawn2", "resolve", "dlopen"])
def test_notsup(module: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A function that greenctx does not provide returns notsup, whatever its arguments; the first call is logged."""
    (ty,) = [one for one in wasix_types(module)[name] if one != f"{POINTERS[module]} -> i32"]
    with caplog.at_level(logging.INFO, "greenctx"):
        with calling(module, name, ty, *[-1] * len(parts(ty)[0])) as refused:
            assert refused.run() == NOTSUP
            assert caplog.messages == [f"the guest called {module}.{name}, which greenctx does not provide"]
            assert refused.run() == NOTSUP
        assert len(caplog.messages) == 2
        caplog.clear()
        twice = "(drop (call $call)) (drop (call $call))"
        with program(imported(module, "port_unbridge", "-> i32"), body=twice) as called_twice:
            called_twice.run()
        assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("name", "ty"),
    [("proc_exec", "i32 i32 i32 i32 ->"), ("stack_forget", "i32 ->"), ("stack_save", "-> i64")],
)
def test_trap(name: str, ty: str) -> None:
    """A function without an errno traps, and the trap names it."""
    with (
        calling("wasix_32v1", name, ty, *[0] * len(parts(ty)[0]))
        if ty.endswith(">")
        else program(imported("wasix_32v1", name, ty), body="(drop (call $call))") as refused,
        pytest.raises(Trap, match=rf"^the guest called wasix_32v1\.{name}, which greenctx does not provide"),
    ):
        refused.run()


@pytest.mark.parametrize(
    ("name", "ty"),
    [
        ("unheard_of", "-> i32"),
        ("sock_open", "-> i32"),
        ("sock_open", "i32 i32 i32 i64 -> i32"),
        ("thread_id", "i64 -> i32"),
        ("fd_close", "i64 -> i32"),
        ("fd_close", "i32 ->"),
        ("proc_exit", "i32 -> i32"),
    ],
)
def test_refused(name: str, ty: str, tmp_path: Path) -> None:
    """An unknown name is refused before the program starts, and so is a type that the function never had."""
    with program(imported("wasix_32v1", name, ty)) as refused, pytest.raises(InvalidProgram) as raised:
        refused.run()
    assert raised.value.reason == f"nothing provides what it imports: wasix_32v1.{name}"
    path = tmp_path / "guest.wat"
    path.write_text(f'(module {imported("wasix_32v1", name, ty)} (func (export "_start")))')
    assert [one.word for one in inspect_file(path).imports] == ["unknown"]


def test_own_definitions_come_first() -> None:
    """A function that the host defined is not replaced. Without `define_wasix` no function is defined."""
    ty = FuncType([ValType.i32()] * 4, [ValType.i32()])
    with calling("wasix_32v1", "sock_open", "i32 i32 i32 i32 -> i32", 1, 2, 3, 4) as own:
        own.linker.define_func("wasix_32v1", "sock_open", ty, lambda *args: sum(args))
        assert own.run() == 10
    module = Module(ENGINE, f"(module {imported('wasix_32v1', 'sock_open', 'i32 i32 i32 i32 -> i32')})")
    linker = Linker(ENGINE)
    with pytest.raises(WasmtimeError, match="sock_open"):
        linker.instantiate(Store(ENGINE), module)
    linker.define_wasix()
    linker.define_unknown_imports_as_traps(module)
    linker.instantiate(Store(ENGINE), module)
    linker.instantiate_pre(module).instantiate(Store(ENGINE))


def test_wasi_needs_wasi() -> None:
    """WASI under WASIX's name takes a linker with WASI."""
    module = Module(ENGINE, f"(module {imported('wasix_32v1', 'fd_close', 'i32 -> i32')})")
    linker = Linker(ENGINE)
    linker.define_wasix()
    with pytest.raises(WasmtimeError, match="fd_close"):
        linker.instantiate(Store(ENGINE), module)


# WASI under WASIX's name.


def test_all_of_wasi() -> None:
    """Each function of WASI preview 1 is there, and works for a program that imports nothing else."""
    imports = [imported("wasix_32v1", name, f"{ty} -> i32", f"f{i}") for i, (name, ty) in enumerate(PARAMETERS.items())]
    others = [
        imported("wasix_32v1", "poll_oneoff", "i32 i32 i32 i32 -> i32", "poll"),
        imported("wasix_32v1", "proc_exit", "i32 ->", "exit"),
    ]
    with program(*imports, *others, body="(call $exit (i32.const 300))") as all_of_it:
        assert all_of_it.run() == 300


def test_hello(tmp_path: Path) -> None:
    """A program of an old toolchain: arguments, environment, a file by a path from the root, output."""
    stdout = io.BytesIO()
    (tmp_path / "file").write_text("content")
    text = f"""(module
      {imported("wasix_32v1", "args_sizes_get", "i32 i32 -> i32", "args_sizes_get")}
      {imported("wasix_32v1", "environ_get", "i32 i32 -> i32", "environ_get")}
      {imported("wasix_32v1", "path_open", "i32 i32 i32 i32 i32 i64 i64 i32 i32 -> i32", "path_open")}
      {imported("wasix_32v1", "fd_read", "i32 i32 i32 i32 -> i32", "fd_read")}
      {imported("wasix_32v1", "fd_renumber", "i32 i32 -> i32", "fd_renumber")}
      {imported("wasix_32v1", "fd_write", "i32 i32 i32 i32 -> i32", "fd_write")}
      {imported("wasix_32v1", "proc_exit", "i32 ->", "exit")}
      (memory (export "memory") 1)
      (data (i32.const 0) "/data/file")
      (data (i32.const 16) "\\00\\01\\00\\00\\64\\00\\00\\00")
      (func $check (param i32) (if (local.get 0) (then (call $exit (local.get 0)))))
      (func (export "_start")
        (call $check (call $args_sizes_get (i32.const 32) (i32.const 36)))
        (if (i32.ne (i32.load (i32.const 32)) (i32.const 2)) (then (call $exit (i32.const 100))))
        (call $check (call $environ_get (i32.const 40) (i32.const 512)))
        (call $check (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 10) (i32.const 0)
          (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 48)))
        (call $check (call $fd_read (i32.load (i32.const 48)) (i32.const 16) (i32.const 1) (i32.const 20)))
        (call $check (call $fd_renumber (i32.const 1) (i32.const 2)))
        (call $check (call $fd_write (i32.const 2) (i32.const 16) (i32.const 1) (i32.const 52)))
        (call $check (call $fd_write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 52)))
        (call $exit (i32.load8_u (i32.const 512)))))"""
    with Program(
        text.encode(), argv=["a", "b"], env={"K": "V"}, preopens={"/data": tmp_path}, stdin=b"", stdout=stdout
    ) as hello:
        assert hello.run() == ord("K")
    assert stdout.getvalue() == b"contentcontent", "dup2 leaves the first descriptor open"


@pytest.mark.parametrize("pointer", [65536, 65533, -1, -8, 2**31])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("args_sizes_get", ["bad", 0]),
        ("environ_sizes_get", [0, "bad"]),
        ("random_get", ["bad", 8]),
        ("clock_time_get", [0, 1, "bad"]),
        ("clock_time_get", [2, 1, "bad"]),
        ("clock_res_get", [3, "bad"]),
        ("fd_write", [1, "bad", 1, 0]),
        ("fd_prestat_get", [3, "bad"]),
        ("fd_fdstat_get", [3, "bad"]),
        ("path_unlink_file", [3, "bad", 16]),
        ("path_filestat_get", [3, 0, "bad", 16, 0]),
    ],
)
def test_bad_pointers(name: str, arguments: list[Any], pointer: int, tmp_path: Path) -> None:
    """A pointer to outside memory is memviolation, also where wasmtime ends a program."""
    values = [pointer if isinstance(one, str) else one for one in arguments]
    settings = {"preopens": {"/": tmp_path}}
    with calling("wasix_32v1", name, f"{PARAMETERS[name]} -> i32", *values, **settings) as guest:
        assert guest.run() == MEMVIOLATION


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fd_advise", [3, 0, 0, 99]),
        ("fd_seek", [3, 0, 99, 16]),
        ("path_filestat_get", [3, 99, 0, 1, 16]),
        ("clock_time_get", [4, 1, 16]),
        ("clock_res_get", [2**31, 16]),
    ],
)
def test_unknown_values(name: str, arguments: list[int], tmp_path: Path) -> None:
    """Clocks and flags unknown to wasmtime are inval, where wasmtime itself ends the program."""
    settings = {"preopens": {"/": tmp_path}}
    with calling("wasix_32v1", name, f"{PARAMETERS[name]} -> i32", *arguments, **settings) as guest:
        assert guest.run() == INVAL


@pytest.mark.parametrize("module", ["wasix_32v1", "wasi_snapshot_preview1"])
@pytest.mark.parametrize("clock", [2, 3])
def test_processor_time(module: str, clock: int) -> None:
    """A WASIX program can ask for the processor time, by either name: it goes on while the guest computes."""
    body = f"""(local $i i32)
      (drop (call $call (i32.const {clock}) (i64.const 1) (i32.const 0)))
      (loop $on (br_if $on (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3000000))))
      (drop (call $call (i32.const {clock}) (i64.const 1) (i32.const 8)))
      (call $exit (i32.and (i64.gt_u (i64.load (i32.const 8)) (i64.load (i32.const 0)))
        (i64.lt_u (i64.load (i32.const 8)) (i64.const 60000000000))))"""
    with program(
        imported(module, "clock_time_get", "i32 i64 i32 -> i32"),
        imported("wasix_32v1", "proc_exit2", "i32 ->", "exit"),
        body=body,
    ) as guest:
        assert guest.run() == 1


# One thread, one process.


@each_module
@pytest.mark.parametrize(
    ("name", "arguments"), [("thread_id", [16]), ("thread_parallelism", [16]), ("thread_sleep", [1000]),
    ("proc_parent", [1, 16]), ("proc_raise", [0]), ("proc_signal", [1, 0]), ("proc_raise_interval", [14, 0, 0]),
    ("stack_checkpoint", [16, 48]),
    ("thread_local_create", [7, 16]), ("thread_local_get", [1, 16]), ("tty_get", [16]), ("tty_set", [16]),
    ("proc_id", [16]), ("proc_signals_get", [16]), ("futex_wake", [16, 20])],
)  # fmt: skip
def test_both_widths(module: str, name: str, arguments: list[int]) -> None:
    """These calls are the same for pointers of 64 bits. A pointer to outside memory is memviolation."""
    memory = '(memory (export "memory") 1)' if module == "wasix_32v1" else '(memory (export "memory") i64 1)'
    (ty,) = [one for one in wasix_types(module)[name] if len(parts(one)[0]) == len(arguments) and one[-3:] == "i32"]
    with calling(module, name, ty, *arguments, memory=memory) as guest:
        assert guest.run() == 0
    for bad in (65536, -1) if 16 in arguments and name != "proc_signals_get" else ():
        last = [*arguments[:-1], bad]
        with calling(module, name, ty, *last, memory=memory) as guest:
            assert guest.run() == MEMVIOLATION


def test_thread(guest: WasiGuest) -> None:
    """The thread has the id of the process; there is one, and no other process."""
    for name, expected in [("thread_id", 1), ("thread_parallelism", 1)]:
        assert guest.call(name, RESULT) == 0
        assert guest.result() == expected
    guest.put(RESULT, b"\xff" * 8)
    assert guest.call("proc_parent", 1, RESULT) == 0
    assert guest.get(RESULT, 8) == b"\0\0\0\0\xff\xff\xff\xff"
    assert guest.call("proc_parent", 2, RESULT) == BADF
    assert guest.call("proc_signal", 2, 10) == SRCH
    assert guest.call("proc_raise", 65) == INVAL
    assert calling("wasix_32v1", "proc_join", "i32 i32 i32 -> i32", 0, 0, 0).run() == CHILD


def test_sleep() -> None:
    """Sleeping takes as long as asked for, and can be interrupted by the limit of time."""
    begin = time.monotonic()
    with calling("wasix_32v1", "thread_sleep", "i64 -> i32", 20_000_000) as guest:
        assert guest.run() == 0
    assert time.monotonic() - begin >= 0.02
    for_ever = calling("wasix_32v1", "thread_sleep", "i64 -> i32", -1, limits=Limits(seconds=0.05))
    with for_ever as guest, pytest.raises(TimeLimitExceeded):
        guest.run()


def test_thread_locals(guest: WasiGuest) -> None:
    """Each has a key and 64 bits, 0 at first. A destroyed one is gone, and its key may be given out again."""
    assert guest.call("thread_local_create", 5, RESULT) == 0
    first = guest.result()
    assert guest.call("thread_local_create", 5, RESULT) == 0
    second = guest.result()
    assert first != second
    assert guest.call("thread_local_set", first, -2) == 0
    values = []
    for key in (first, second, 999):
        assert guest.call("thread_local_get", key, RESULT) == 0
        values.append(unpack("<Q", guest.get(RESULT, 8))[0])
    assert values == [2**64 - 2, 0, 0]
    assert guest.call("thread_local_destroy", first) == 0
    assert guest.call("thread_local_destroy", first) == INVAL
    assert guest.call("thread_local_set", first, 1) == INVAL
    assert guest.call("thread_local_create", 5, RESULT) == 0
    assert guest.result() == first


def test_too_many_thread_locals(guest: WasiGuest) -> None:
    """A guest cannot fill the host's memory with them."""
    for _ in range(MAX_THREAD_LOCALS):
        assert guest.call("thread_local_create", 0, RESULT) == 0
    assert guest.call("thread_local_create", 0, RESULT) == AGAIN


HOSTILE_CALLS: dict[str, list[Any]] = {
    "thread_id": ["bad"],
    "thread_parallelism": ["bad"],
    "thread_local_create": [0, "bad"],
    "thread_local_get": [1, "bad"],
    "proc_parent": [1, "bad"],
    "tty_get": ["bad"],
    "tty_set": ["bad"],
    "stack_checkpoint": ["bad", RESULT],
}


@pytest.mark.parametrize("pointer", HOSTILE)
@pytest.mark.parametrize("name", HOSTILE_CALLS)
def test_hostile_pointers(name: str, pointer: int, guest: WasiGuest) -> None:
    """A pointer to outside of the memory writes and creates nothing."""
    before = guest.get(0, END)
    assert guest.call(name, *(pointer if one == "bad" else one for one in HOSTILE_CALLS[name])) == MEMVIOLATION
    assert guest.get(0, END) == before
    assert guest.call("thread_local_create", 0, RESULT) == 0
    assert guest.result() == 1


def test_stack_checkpoint(guest: WasiGuest) -> None:
    """stack_checkpoint returns for the first time: its 64-bit value is 0."""
    guest.put(RESULT, b"\xff" * 16)
    assert guest.call("stack_checkpoint", 256, RESULT) == 0
    assert guest.get(RESULT, 16) == b"\0" * 8 + b"\xff" * 8


# The terminal.

TTY = "<4I 6? 2x"


def test_no_terminal(guest: WasiGuest) -> None:
    """Without a terminal there is a usual size; what the guest sets, it gets."""
    assert guest.call("tty_get", 256) == 0
    assert unpack(TTY, guest.get(256, 24)) == (80, 25, 800, 600, False, False, False, True, True, True)
    guest.put(256 + 19, b"\0\0\7")
    assert guest.call("tty_set", 256) == 0
    assert guest.call("tty_get", 512) == 0
    assert unpack(TTY, guest.get(512, 24))[7:] == (False, False, True)


@pytest.fixture
def terminal() -> Iterator[int]:
    """The descriptor of a terminal."""
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (40, 132))
    yield follower
    for descriptor in (leader, follower):
        with suppress(OSError):
            os.close(descriptor)


def modes(terminal: int) -> tuple[bool, bool, bool]:
    """Whether it echoes, waits for whole lines, and makes a line feed of a carriage return."""
    attributes = termios.tcgetattr(terminal)
    flags = attributes[3]
    return bool(flags & termios.ECHO), bool(flags & termios.ICANON), bool(attributes[0] & termios.ICRNL)


def test_terminal(terminal: int) -> None:
    """The size and the modes are the terminal's own. They are as before when the guest's store is no more."""
    before = termios.tcgetattr(terminal)
    with open(terminal, "wb", buffering=0, closefd=False) as stdout:
        guest = WasiGuest(Stdio(b"", stdout, io.BytesIO()))
        for bytes_, expected in ((b"\0\0\0", (False,) * 3), (b"\0\1\1", (False, True, True)), (b"\1\1\0", (True,) * 3)):
            guest.put(256 + 19, bytes_)
            assert guest.call("tty_set", 256) == 0
            assert modes(terminal) == expected
            assert guest.call("tty_get", 512) == 0
            stored = unpack(TTY, guest.get(512, 24))
            assert stored[:7] == (132, 40, 800, 600, False, True, False)
            assert bytes(stored[7:]) == bytes_
        assert termios.tcgetattr(terminal)[3] & termios.ISIG, "Ctrl-C stays an interruption"
        guest.put(256 + 19, b"\0\0\0")
        assert guest.call("tty_set", 256) == 0
        del guest
    assert termios.tcgetattr(terminal) == before


RAW = f"""{imported("wasix_32v1", "tty_set", "i32 -> i32", "tty_set")}
  {imported("wasix_32v1", "proc_exit2", "i32 ->", "exit")}"""
SETS = "(if (call $tty_set (i32.const 0)) (then (call $exit (i32.const 99))))"


@pytest.mark.parametrize(
    ("then", "status"),
    [("", 0), ("(call $exit (i32.const 3))", 3), ("unreachable", Trap), ("(loop $on (br $on))", TimeLimitExceeded)],
)
def test_terminal_after_a_run(then: str, status: Any, terminal: int) -> None:
    """However a program ends, the terminal is as it was before it, and the next run begins with it so."""
    before = termios.tcgetattr(terminal)
    with (
        open(terminal, "rb", buffering=0, closefd=False) as stdin,
        program(RAW, body=SETS + then, stdin=stdin, limits=Limits(seconds=0.2)) as guest,
    ):
        for _ in range(2):
            if isinstance(status, int):
                assert guest.run() == status
                assert termios.tcgetattr(terminal) == before
            else:
                with pytest.raises(status) as raised:
                    guest.run()
                assert termios.tcgetattr(terminal) == before
                assert raised.tb is not None, "the error is still there, and refers to all that the run had"


def test_terminal_that_is_gone(terminal: int) -> None:
    """A terminal that has been closed is no terminal; there is nothing to set again then."""
    with open(terminal, "wb", buffering=0, closefd=False) as stdout:
        guest = WasiGuest(Stdio(b"", stdout, io.BytesIO()))
        assert guest.call("tty_set", 256) == 0
        os.close(terminal)
        assert guest.call("tty_set", 256) == guest.call("tty_get", 256) == 0
        assert unpack(TTY, guest.get(256, 24))[:7] == (80, 25, 800, 600, False, False, False)
        process_of(guest.store).terminal.restore()


def test_terminal_after_ctrl_c(terminal: int, tmp_path: Path) -> None:
    """Ctrl-C ends a program that has its terminal read key by key, and the terminal is as before."""
    path = tmp_path / "guest.wat"
    path.write_text(f'(module {RAW} (memory (export "memory") 1) (func (export "_start") {SETS} (loop $on (br $on))))')
    before = termios.tcgetattr(terminal)
    command = [sys.executable, "-m", "greenctx", "run", str(path)]
    with subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        while modes(terminal)[1]:
            assert running.poll() is None, running.communicate()
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        assert running.wait(TIMEOUT) == 130
    assert termios.tcgetattr(terminal) == before


def test_without_streams_of_greenctx() -> None:
    """A linker that leaves reading and writing to wasmtime has all of this, too."""
    store = Store(ENGINE)
    store.set_wasi(WasiConfig())
    linker = Linker(ENGINE)
    linker.define_wasi()
    linker.define_wasix()
    text = f"""(module {imported("wasix_32v1", "tty_get", "i32 -> i32", "tty_get")}
      {imported("wasix_32v1", "fd_fdstat_get", "i32 i32 -> i32", "fd_fdstat_get")}
      (memory (export "memory") 1)
      (func (export "tty_get") (result i32) (call $tty_get (i32.const 0)))
      (func (export "stat") (result i32) (call $fd_fdstat_get (i32.const 1) (i32.const 64))))"""
    exports = linker.instantiate(store, Module(ENGINE, text)).exports(store)
    assert [call(store, exports[name]) for name in ("tty_get", "stat")] == [0, 0]  # type: ignore[arg-type]


def test_wasi_must_be_set() -> None:
    """With traps for what is unknown, a store without WASI is still refused: wasmtime would end the process."""
    linker = Linker(ENGINE)
    linker.define_wasi()
    linker.define_wasix()
    module = Module(ENGINE, f"(module {imported('wasi_snapshot_preview1', 'sched_yield', '-> i32')})")
    linker.define_unknown_imports_as_traps(module)
    with pytest.raises(WasiNotSet):
        linker.instantiate(Store(ENGINE), module)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads may run a program at once: what it imports is defined once."""
    both = Barrier(2)

    def calls_for(*args: Any, **settings: Any) -> list[SystemCall]:
        calls = [*all_calls_for(*args, **settings)]
        with suppress(BrokenBarrierError):  # as it should be: the other thread waits
            both.wait(0.3)
        return calls

    monkeypatch.setattr("greenctx.wasix._linking.wasix_imports.calls_for", calls_for)
    shared = program(imported("wasix_32v1", "sock_open", "i32 i32 i32 i32 -> i32"))
    with shared, ThreadPoolExecutor(2) as threads:
        assert [*threads.map(lambda _: shared.run(), range(2))] == [0] * 2


def test_dup2_to_what_is_not_open(guest: WasiGuest) -> None:
    """A pipe, and a file, get a closed number. No other descriptor is open afterwards."""
    assert guest.call("proc_signals_sizes_get", RESULT) == 0  # as WASIX's libc begins
    assert guest.call("fd_pipe", RESULT, RESULT + 4) == 0
    read, write = guest.result(), guest.result(RESULT + 4)
    assert guest.call("fd_renumber", write, 20) == 0
    assert guest.write(20, b"abc") == 3
    assert guest.read(read, 10) == b"abc"
    file = guest.open("file", create=True)
    assert guest.write(file, b"content") == 7
    assert guest.call("fd_close", 0) == 0
    assert guest.call("fd_renumber", file, 0) == 0
    assert guest.write(0, b" and more") == 9
    assert guest.call("fd_renumber", 0, 255) == 0
    assert guest.call("fd_renumber", 255, 256) == 0
    opened = [fd for fd in range(300) if guest.call("fd_fdstat_get", fd, RESULT) == 0]
    assert opened == [0, 1, 2, 3, file, 20, 255, 256]
