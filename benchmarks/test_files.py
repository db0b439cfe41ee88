"""What reading and writing costs by WASI: 64 bytes of a file, and of standard streams that are ready.

Each figure stands beside wasmtime's own package, which runs the same guest. The guest reads the clock itself, so that
the start of a program does not count. wasmtime reads stdin ahead, in a thread of its own; greenctx leaves what the
guest has not asked for to whoever reads next.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, TYPE_CHECKING, cast

import pytest
import wasmtime
from wasmtime import Config, Engine, Module, Store, WasiConfig

from greenctx.wasix import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIMES = 20_000  # one of 4,096 calls goes through Python

# go(function, descriptor, times) returns nanoseconds. Descriptor 3 stands for "file" in the preopened directory.
GUEST = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\40\\00\\00\\00\\40\\00\\00\\00") (data (i32.const 256) "file")
  (func $now (result i64)
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 512))) (i64.load (i32.const 512)))
  (func $check (param $errno i32) (if (local.get $errno) (then unreachable)))
  (func (export "go") (param $reads i32) (param $fd i32) (param $left i32) (result i64) (local $begin i64)
    (if (i32.eq (local.get $fd) (i32.const 3)) (then
      (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 256) (i32.const 4) (i32.const 1)
        (i64.const 66) (i64.const 66) (i32.const 0) (i32.const 16)))
      (local.set $fd (i32.load (i32.const 16)))))
    (local.set $begin (call $now))
    (loop $again
      (if (local.get $reads)
        (then (call $check (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16))))
        (else (call $check (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16)))))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i64.sub (call $now) (local.get $begin))))"""

FILE, STDIN, STDOUT = 3, 0, 1
CASES: dict[str, tuple[int, int, str | list[str] | None]] = {
    "write_to_a_file": (0, FILE, None),
    "read_from_a_file": (1, FILE, None),
    "write_to_dev_null": (0, STDOUT, os.devnull),
    "write_to_a_redirected_stdout": (0, STDOUT, "stream"),
    "write_to_a_pipe": (0, STDOUT, ["cat"]),
    "read_from_a_redirected_stdin": (1, STDIN, "stream"),
    "read_from_a_pipe": (1, STDIN, ["cat", "stream"]),
}
"""For each: whether it reads, the descriptor, and the file or the process at the other end of a stream."""
each_case = pytest.mark.parametrize("case", CASES)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("file", "stream"):
        (tmp_path / name).write_bytes(bytes(64 * TIMES))
    return tmp_path


@contextmanager
def redirected(fd: int, target: str | list[str] | None, directory: Path) -> Iterator[None]:
    """Let the process's standard stream be that file, from its beginning, or a pipe from or to that process."""
    if target is None:
        yield
        return
    with ExitStack() as stack:
        file: IO[bytes] | None
        if isinstance(target, str):
            file = stack.enter_context(open(directory / target, "r+b"))
        elif fd == STDIN:
            process = stack.enter_context(Popen(target, cwd=directory, stdout=PIPE))
            file = process.stdout
        else:
            process = stack.enter_context(Popen(target, cwd=directory, stdin=PIPE, stdout=DEVNULL))
            file = process.stdin
        assert file is not None
        saved = os.dup(fd)
        os.dup2(file.fileno(), fd)
        try:
            yield
        finally:
            os.dup2(saved, fd)
            os.close(saved)


def seconds_of(case: str, directory: Path, go: Callable[..., object]) -> Callable[[], float]:
    reads, fd, target = CASES[case]

    def run() -> float:
        with redirected(fd, target, directory):
            return cast("int", go(reads, fd, TIMES)) / 1e9 / TIMES

    return run


@each_case
def test_wasmtime(case: str, directory: Path, record: Callable[..., None]) -> None:
    """wasmtime's package, with epochs, as programs have them."""
    config = Config()
    config.epoch_interruption = True
    engine = Engine(config)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    module = Module(engine, GUEST)

    def go(*args: int) -> object:
        store, config = Store(engine), WasiConfig()
        store.set_epoch_deadline(2**60)
        config.inherit_stdin()
        config.inherit_stdout()
        config.preopen_dir(str(directory), "/")
        store.set_wasi(config)
        return cast("wasmtime.Func", linker.instantiate(store, module).exports(store)["go"])(store, *args)

    record(seconds_of(case, directory, go))


@each_case
def test_greenctx(case: str, directory: Path, record: Callable[..., None]) -> None:
    """A program."""
    with Program(GUEST.encode(), command=False, preopens={"/": directory}) as program:
        run = seconds_of(case, directory, lambda *args: program.invoke("go", *args)[0])
        record(run, baseline=f"wasmtime[{case}]")
