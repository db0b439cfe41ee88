"""Guests of a `Program`: switches beside a busy Python thread, rings, lives, and the time left for other threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
from bare import ping_pong
from greenlet import getcurrent, greenlet
from guests.compile import compile_guest
from wasmtime import FuncType, ValType

from greenctx.wasix import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Baseline

TIMES = 20_000

HEAD = """(module
  (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
  (import "wasix_32v1" "context_destroy" (func $destroy (param i64) (result i32)))
  (import "host" "times" (func $times (result i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 2 funcref)
  (elem (i32.const 1) $other)
"""
# Each guest runs as many rounds as the host wants: it asks for the number of times, until that is 0.
PING_PONG = (
    HEAD
    + """(func $other (loop $again (drop (call $switch (i64.const 0))) (br $again)))
  (func (export "_start") (local $left i32)
    (drop (call $create (i32.const 0) (i32.const 1)))
    (loop $round
      (if (local.tee $left (call $times)) (then
        (loop $again
          (drop (call $switch (i64.const 1)))
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 2)))))
        (br $round))))))"""
)
RING = (
    HEAD
    + """(global $next (mut i64) (i64.const 0))
  (func $other (local $me i64) (local $to i64)
    (local.set $me (global.get $next))
    (local.set $to (i64.rem_u (i64.add (local.get $me) (i64.const 1)) (i64.const 1001)))
    (drop (call $switch (i64.const 0)))
    (loop $again (drop (call $switch (local.get $to))) (br $again)))
  (func (export "_start") (local $left i32)
    (loop $more
      (drop (call $create (i32.const 0) (i32.const 1)))
      (global.set $next (i64.load (i32.const 0)))
      (br_if $more (i64.lt_u (global.get $next) (i64.const 1000))))
    (global.set $next (i64.const 0))
    (loop $start
      (global.set $next (i64.add (global.get $next) (i64.const 1)))
      (drop (call $switch (global.get $next)))
      (br_if $start (i64.lt_u (global.get $next) (i64.const 1000))))
    (loop $round
      (if (local.tee $left (call $times)) (then
        (loop $again
          (drop (call $switch (i64.const 1)))
          (br_if $again (i32.gt_s (local.tee $left (i32.sub (local.get $left) (i32.const 1001))) (i32.const 0))))
        (br $round))))))"""
)
LIVES = (
    HEAD
    + """(func $other (drop (call $switch (i64.const 0))))
  (func (export "_start") (local $left i32)
    (loop $round
      (if (local.tee $left (call $times)) (then
        (loop $again
          (drop (call $create (i32.const 0) (i32.const 1)))
          (drop (call $switch (i64.load (i32.const 0))))
          (drop (call $destroy (i64.load (i32.const 0))))
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (br $round))))))"""
)
COMPUTE = (
    HEAD
    + """(func $other) (global $sum (mut i64) (i64.const 1))
  (func (export "_start") (local $left i32)
    (loop $round
      (if (local.tee $left (call $times)) (then
        (loop $again
          (global.set $sum (i64.mul (global.get $sum) (i64.const 6364136223846793005)))
          (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (br $round))))))"""
)


def run_rounds(text: str, times: int, benchmark: Callable[[Callable[[], float]], None]) -> None:
    """Run a guest on this greenlet, the thread's first, as most programs do, and ``benchmark`` on another greenlet.

    ``benchmark`` gets a function that runs one more round of so many, and returns the seconds of one.
    """
    me = getcurrent()

    def seconds_each() -> float:
        began = perf_counter()
        me.switch(times)
        return (perf_counter() - began) / times

    def rounds() -> int:
        benchmark(seconds_each)
        return 0

    beside = greenlet(rounds)
    with Program(text.encode()) as program:
        program.linker.define_func("host", "times", FuncType([], [ValType.i32()]), beside.switch)
        program.run()


@contextmanager
def busy_thread() -> Iterator[Callable[[], float]]:
    """Run a thread that computes in Python; yield a function that returns its turns per second since the last call."""
    work, stop = 0, False

    def compute() -> None:
        nonlocal work
        while not stop:
            work += 1

    thread = threading.Thread(target=compute)
    thread.start()
    since, before = perf_counter(), 0

    def speed() -> float:
        nonlocal since, before
        now, done = perf_counter(), work
        each = (done - before) / (now - since)
        since, before = now, done
        return each

    try:
        yield speed
    finally:
        stop = True
        thread.join()


def test_bare_greenlets_beside_a_busy_thread(record: Callable[..., None]) -> None:
    """Two greenlets, while another thread computes in Python."""
    with busy_thread():
        record(lambda: ping_pong(TIMES))


@pytest.mark.parametrize("beside", ["", "beside a busy thread"])
def test_program_switch(beside: str, record: Callable[..., None]) -> None:
    """Two contexts of a program's, alone and while another thread computes in Python."""
    alone = ("bare_greenlet_switch", "jspi_switch")
    baseline: Baseline = "bare_greenlets_beside_a_busy_thread" if beside else alone
    with busy_thread() if beside else nullcontext():
        run_rounds(PING_PONG, TIMES, lambda seconds_each: record(seconds_each, baseline=baseline))


def test_ring_of_1000(record: Callable[..., None]) -> None:
    """A thousand contexts and main, each of which switches to the next."""
    run_rounds(RING, 20 * 1001, lambda seconds_each: record(seconds_each, baseline="bare_greenlet_switch"))


def test_guest_life(record: Callable[..., None]) -> None:
    """Create, first switch and destroy, by a guest."""
    run_rounds(LIVES, 200, lambda seconds_each: record(seconds_each, baseline="life_of_a_bare_greenlet"))


def test_busy_thread_alone(record: Callable[..., None]) -> None:
    """Measure a thread's turn of work while no other thread runs."""
    with busy_thread() as speed:
        record(lambda: wait_and(speed))


def test_busy_thread_beside_a_computing_guest(record: Callable[..., None]) -> None:
    """Measure the turn while a guest computes in the main thread."""

    def turn(compute: Callable[[], float], speed: Callable[[], float]) -> float:
        speed()
        compute()
        return 1 / speed()

    with busy_thread() as speed:
        run_rounds(
            COMPUTE, 300_000_000, lambda compute: record(lambda: turn(compute, speed), baseline="busy_thread_alone")
        )


def wait_and(speed: Callable[[], float]) -> float:
    speed()
    threading.Event().wait(0.3)
    return 1 / speed()


HELLO = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "hello\\n")
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 6))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"""

PLAIN = """
import sys
from wasmtime import Config, Engine, Linker, Module, Store, WasiConfig
engine = Engine()
module = Module.from_file(engine, sys.argv[1])
linker = Linker(engine)
linker.define_wasi()
store = Store(engine)
wasi = WasiConfig()
wasi.argv = sys.argv[1:]
wasi.inherit_stdin()
wasi.inherit_stdout()
wasi.inherit_stderr()
store.set_wasi(wasi)
linker.instantiate(store, module).exports(store)["_start"](store)
"""


@pytest.mark.parametrize("guest", ["small", "in C"])
@pytest.mark.parametrize("what", ["wasmtime", "greenctx", "greenctx --no-cache"])
def test_start_to_end(what: str, guest: str, tmp_path: Path, record: Callable[..., None]) -> None:
    """A process that runs a guest: with wasmtime's Python package alone, and by ``greenctx run``."""
    file, output = tmp_path / "hello.wat", b"hello\n"
    file.write_text(HELLO)
    if guest == "in C":
        file, output = compile_guest("process"), b"[hello]\n"
    command = [sys.executable, *(["-c", PLAIN] if what == "wasmtime" else ["-m", "greenctx", "run"])]
    command += [*what.split()[1:], str(file), "hello"]
    # Python compiles what is installed; here it may be a checkout, which is compiled in the warm-up.
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}

    def run() -> float:
        began = perf_counter()
        ran = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
        seconds = perf_counter() - began
        assert ran.stdout.endswith(output)
        return seconds

    record(run, baseline=None if what == "wasmtime" else f"start_to_end[wasmtime-{guest}]")
