"""Wasmer itself beside greenctx, on the same guests: a context's switch, life and memory, and the start of a program.

The guests take the time by themselves, with WASI's clock, so that nothing counts but what happens inside.
"""

from __future__ import annotations

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import pytest
from guests.oracle.wasmer import needs_wasmer, running_wasmer
from test_guests import HELLO
from wasmtime import wat2wasm

from greenctx.wasix import Program

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_wasmer

HEAD = """(module
  (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
  (import "wasix_32v1" "context_destroy" (func $destroy (param i64) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\\08\\00\\00\\00\\08\\00\\00\\00")
  (table (export "__indirect_function_table") 2 funcref)
  (elem (i32.const 1) $other)
  (global $left (mut i32) (i32.const 0))
  (func $now (result i64)
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))
    (i64.load (i32.const 8)))
  (func $say (param $number i64)
    (i64.store (i32.const 8) (local.get $number))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24))))
  (func $repeat (param $times i32)
    (global.set $left (local.get $times))
    (loop $again
      (call $once)
      (global.set $left (i32.sub (global.get $left) (i32.const 1)))
      (br_if $again (global.get $left))))
"""
TIMED = """(func (export "_start") (local $began i64)
    (drop (call $create (i32.const 0) (i32.const 1)))
    (call $repeat (i32.const 10))
    (local.set $began (call $now))
    (call $repeat (i32.const {}))
    (call $say (i64.sub (call $now) (local.get $began)))))"""
PING_PONG = """(func $other (loop $again (drop (call $switch (i64.const 0))) (br $again)))
  (func $once (drop (call $switch (i64.const 1))))"""
LIFE = """(func $other (drop (call $switch (i64.const 0))))
  (func $once
    (drop (call $create (i32.const 0) (i32.const 1)))
    (drop (call $switch (i64.load (i32.const 0))))
    (drop (call $destroy (i64.load (i32.const 0)))))"""
ALIVE = """(func $other (drop (call $switch (i64.const 0))))
  (func $once
    (drop (call $create (i32.const 0) (i32.const 1)))
    (drop (call $switch (i64.load (i32.const 0)))))
  (func (export "_start")
    (if (i32.const {}) (then (call $repeat (i32.const {}))))
    (call $say (i64.const 0))
    (drop (call $read (i32.const 0) (i32.const 16) (i32.const 1) (i32.const 24)))))"""

TIMES = {"switch": 20_000, "life": 1_000}
GUESTS = {
    "switch": HEAD + PING_PONG + TIMED.format(TIMES["switch"] // 2),
    "life": HEAD + LIFE + TIMED.format(TIMES["life"]),
}
SIDES = ("wasmer", "greenctx")
COUNT = 1_000
"""How many contexts are alive at once. Wasmer panics at some 20,000."""

ON_WASMER = """
import asyncio, sys
from pathlib import Path
from wasmer_sdk import Wasmer

async def main():
    async with Wasmer(cache_root=sys.argv[2]) as wasmer:
        package = await wasmer.packages.load(Path(sys.argv[1]).read_bytes())
        async with await wasmer.sandboxes.create(packages=[package]) as sandbox:
            process = await sandbox.command(package).spawn(stdin="pipe")
            async for part in process.stdout:
                sys.stdout.buffer.write(part)
                sys.stdout.flush()
                if len(sys.argv) > 3:
                    sys.stdin.readline()
                    return
            sys.exit((await process.wait()).exit_code)

asyncio.run(main())
"""


def command(side: str, module: Path, *arguments: str) -> list[str]:
    """The command that runs a module, and keeps what it has compiled."""
    if side == "wasmer":
        return [sys.executable, "-c", ON_WASMER, str(module), str(module.with_suffix(".cache")), *arguments]
    return [sys.executable, "-m", "greenctx", "run", str(module)]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", GUESTS)
def test_contexts_of(what: str, side: str, tmp_path: Path, record: Callable[..., None]) -> None:
    """Measure two contexts that switch to one another, and contexts created, started and destroyed in turn."""
    code, times = bytes(wat2wasm(GUESTS[what])), TIMES[what]
    module = tmp_path / "guest.wasm"
    module.write_bytes(code)
    stdout = BytesIO()
    with Program(code, stdout=stdout) as program:

        def on_greenctx() -> bytes:
            stdout.seek(0)
            program.run()
            return stdout.getvalue()

        def on_wasmer() -> bytes:
            return running_wasmer().run(module).stdout

        run = on_wasmer if side == "wasmer" else on_greenctx
        baseline = None if side == "wasmer" else f"contexts_of[{what}-wasmer]"
        record(lambda: int.from_bytes(run(), "little") / 1e9 / times, baseline=baseline)


@pytest.mark.parametrize("side", SIDES)
def test_memory_beside(side: str, tmp_path: Path, record_bytes: Callable[..., None]) -> None:
    """Resident memory of the process, for each context that has been started and is suspended."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("resident memory is read from /proc, which this system does not have")
    few, many = (resident(side, tmp_path, count) for count in (0, COUNT))
    record_bytes((many - few) / COUNT, baseline=None if side == "wasmer" else "memory_beside[wasmer]")


def resident(side: str, directory: Path, count: int) -> int:
    """How much memory a process has in which so many contexts are alive."""
    module = directory / f"{count}.wasm"
    module.write_bytes(wat2wasm(HEAD + ALIVE.format(count, count)))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command(side, module, "stay"), stdin=pipe, stdout=pipe, env=environment(directory)
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(8) == bytes(8)
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        process.kill()
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("side", SIDES)
def test_start_beside(side: str, tmp_path: Path, record: Callable[..., None]) -> None:
    """A process that runs a small guest, which was compiled before."""
    module = tmp_path / "hello.wasm"
    module.write_bytes(wat2wasm(HELLO))

    def run() -> float:
        began = perf_counter()
        # Not check=True, because Wasmer's process aborts at its very end now and then.
        ran = subprocess.run(
            command(side, module), env=environment(tmp_path), capture_output=True, timeout=60, check=False
        )
        seconds = perf_counter() - began
        assert ran.stdout == b"hello\n"
        return seconds

    record(run, baseline=None if side == "wasmer" else "start_beside[wasmer]")


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(directory), "PYTHONDONTWRITEBYTECODE": ""}
