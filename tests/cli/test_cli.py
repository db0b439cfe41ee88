"""``greenctx run``: the settings of a program, and the exit status for the shell."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from guests.compile import compile_guest
from processes import TIMEOUT, run_greenctx

from greenctx.cli import main
from greenctx.cli.arguments import Arguments
from greenctx.cli.main import parse
from greenctx.cli.parser import parse_by_argparse

if TYPE_CHECKING:
    from pathlib import Path


def test_arguments() -> None:
    """The guest's argv is the file as it was named, and everything that follows it, options included."""
    guest = str(compile_guest("process"))
    ran = run_greenctx("run", guest, "a", "", "two words", "--dir", "-x", "--", "é☃", "--env=K=V")
    assert ran.stdout.decode() == "".join(
        f"[{argument}]\n" for argument in [guest, "a", "", "two words", "--dir", "-x", "--", "é☃", "--env=K=V"]
    )
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_arguments_after_a_double_dash() -> None:
    """A double dash before the file ends the options; the one right after it goes, too. Every other is the guest's."""
    guest = str(compile_guest("process"))
    assert run_greenctx("run", "--", guest, "a").stdout == f"[{guest}]\n[a]\n".encode()
    assert run_greenctx("run", guest, "--", "a").stdout == f"[{guest}]\n[a]\n".encode()
    assert run_greenctx("run", guest, "--", "--", "a").stdout == f"[{guest}]\n[--]\n[a]\n".encode()
    assert run_greenctx("run", guest, "a", "--").stdout == f"[{guest}]\n[a]\n[--]\n".encode()


@pytest.mark.parametrize(
    "argv",
    [
        ["x.wasm"],
        ["", "x"],
        ["run"],
        ["x.wasm", "--"],
        ["x.wasm", "--", "--stats"],
        ["x.wasm", "a b", "", "--env", "--env=K", "-h", "--help", "--version", "-"],
        ["@x", "--no-contexts", "--trace"],
    ],
)
def test_arguments_that_are_not_parsed(argv: list[str]) -> None:
    """Where no option comes before the file, what argparse would say is known without it."""
    given, parsed = parse(["run", *argv]), parse_by_argparse(["run", *argv], Arguments())
    for name in Arguments.__annotations__:
        if name not in ("file", "output"):  # of other commands
            assert [*given.argv] == parsed.argv if name == "argv" else getattr(given, name) == getattr(parsed, name)


def test_collector_of_another_process(tmp_path: Path) -> None:
    """Called with arguments, within another program, it leaves Python's collector as it was."""
    guest = tmp_path / "guest.wat"
    guest.write_text('(module (memory (export "memory") 1) (func (export "_start")))')
    frozen = gc.get_freeze_count()
    for disable in (False, True):
        try:
            if disable:
                gc.disable()
            assert main(["run", str(guest)]) == 0
            assert gc.isenabled() is not disable
            assert gc.get_freeze_count() <= frozen  # fewer if some of them were freed
        finally:
            gc.enable()


def test_environment_variables() -> None:
    """The guest sees the variables of --env and nothing of the host's; the last of a name counts."""
    ran = run_greenctx("run", "--env", "K=first", "--env", "EMPTY=", "--env=K=a=b c", compile_guest("process"), "env")
    assert (ran.returncode, sorted(ran.stdout.decode().splitlines()), ran.stderr) == (0, ["EMPTY=", "K=a=b c"], b"")
    assert run_greenctx("run", compile_guest("process"), "env", env={**os.environ, "K": "V"}).stdout == b""


def test_streams() -> None:
    """The guest reads the command's stdin and writes to its stdout and stderr."""
    ran = run_greenctx("run", compile_guest("process"), "streams", stdin=b"one\ntwo \xff\0" * 10_000)
    assert (ran.returncode, ran.stderr) == (0, b"on stderr\n")
    assert ran.stdout == b"ONE\nTWO \xff\0" * 10_000


def test_directory(tmp_path: Path) -> None:
    """The guest reads and writes the files of a directory under the name that it was given, and no others."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "in.txt").write_text("line\n" * 1000)
    (tmp_path / "secret.txt").write_text("secret")
    option = f"{tmp_path}/shared::/data"
    ran = run_greenctx("run", "--dir", option, compile_guest("process"), "copy", "/data/in.txt", "/data/out.txt")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert (tmp_path / "shared" / "out.txt").read_text() == "line\n" * 1000
    for outside in ("/data/../secret.txt", f"{tmp_path}/secret.txt", "secret.txt"):
        ran = run_greenctx("run", "--dir", option, compile_guest("process"), "copy", outside, "/data/stolen.txt")
        assert ran.returncode == 1
        assert ran.stderr.startswith(outside.encode())
        assert not (tmp_path / "shared" / "stolen.txt").read_bytes()


def test_several_directories(tmp_path: Path) -> None:
    """--dir HOST alone keeps the host's name; several directories are all there."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "in.txt").write_text("text")
    options = ["--dir", f"{tmp_path}/one", f"--dir={tmp_path}/two::two"]
    ran = run_greenctx("run", *options, compile_guest("process"), "copy", f"{tmp_path}/one/in.txt", "two/out.txt")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert (tmp_path / "two" / "out.txt").read_text() == "text"


def test_clocks() -> None:
    """The guest's clock tells the time, and its monotonic clock does not go back."""
    before = int(time.time())
    ran = run_greenctx("run", compile_guest("process"), "clocks")
    now, monotonic = ran.stdout.split()
    assert before <= int(now) <= int(time.time())
    assert monotonic == b"1"


@pytest.mark.parametrize("status", [0, 42, 126, 134, 255])
def test_status(status: int) -> None:
    """The exit status is main's return value, or the argument of exit; atexit handlers run."""
    for mode in ("return", "exit"):
        ran = run_greenctx("run", compile_guest("endings"), mode, str(status))
        assert (ran.returncode, ran.stdout, ran.stderr) == (status, b"atexit handler\n", b"")


def test_every_status(tmp_path: Path) -> None:
    """Every status that a shell can see is passed on; of larger ones the low eight bits, as by any process."""
    guest = tmp_path / "guest.wat"
    for status in [*range(256), 256, 299, -1, -(2**31)]:
        guest.write_text(
            f"""(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                  (memory (export "memory") 0) (func (export "_start") (call $exit (i32.const {status}))))"""
        )
        assert main(["run", str(guest)]) == status & 0xFF


@pytest.mark.parametrize("status", [0, 43, 126, 255])
def test_exit_in_a_context(status: int) -> None:
    """exit(43) in a context ends the program with 43; atexit handlers run. _Exit does the same without them."""
    ran = run_greenctx("run", compile_guest("endings"), "exit-in-context", str(status))
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, b"exit in a context\natexit handler\n", b"")
    ran = run_greenctx("run", compile_guest("endings"), "_exit-in-context", str(status))
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, b"", b"")


def test_entrypoint_that_returns() -> None:
    """A context whose entrypoint returns ends the program with 129, and stderr says which context it was."""
    ran = run_greenctx("run", compile_guest("endings"), "return-from-entrypoint")
    assert (ran.returncode, ran.stdout) == (129, b"the entrypoint returns\n")
    assert ran.stderr == (
        b"greenctx: the entrypoint of context 2 returned; "
        b"it must switch to another context and be destroyed from there\n"
    )


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("trap", ["fall_into_the_trap"]),
        ("trap-in-context", ["fall_into_the_trap", "trap_in_context", "run_in_context"]),
        ("abort-in-context", ["abort_in_context", "run_in_context"]),
    ],
)
def test_trap(mode: str, names: list[str]) -> None:
    """A trap ends the program with 134; stderr has the guest's backtrace, in a context main's as well. No traceback."""
    ran = run_greenctx("run", compile_guest("endings", "-O1", "-fno-inline"), mode)
    stderr = ran.stderr.decode()
    assert (ran.returncode, ran.stdout) == (134, b"")
    assert stderr.startswith("greenctx: error while executing at wasm backtrace:\n")
    assert "wasm trap: wasm `unreachable` instruction executed" in stderr
    positions = [stderr.find(name) for name in names]
    assert -1 not in positions
    assert positions == sorted(positions)
    assert "Traceback" not in stderr
    assert ".py" not in stderr


def test_main_returns_with_contexts_suspended() -> None:
    """The end of main is the end of the program, whatever its contexts are doing; the status is main's."""
    ran = run_greenctx("run", compile_guest("endings"), "leave-suspended", "17")
    assert (ran.returncode, ran.stdout, ran.stderr) == (17, b"atexit handler\n", b"")


def test_uncaught_wasm_exception(tmp_path: Path) -> None:
    """An exception that no guest code catches ends the program like a trap."""
    guest = tmp_path / "throws.wat"
    guest.write_text('(module (tag $oops) (func $thrower (export "_start") (throw $oops)))')
    ran = run_greenctx("run", guest)
    assert ran.returncode == 134
    message = b"greenctx: the guest threw an exception, and nothing caught it\n"
    assert ran.stderr.startswith(message)
    assert b"thrower" in ran.stderr or ran.stderr == message  # wasmtime 45 has no backtrace
    assert b"Traceback" not in ran.stderr


def test_text_module(tmp_path: Path) -> None:
    """A guest may be WebAssembly text, whatever its file is called."""
    guest = tmp_path / "guest"
    guest.write_text('(module (func (export "_start")))')
    ran = run_greenctx("run", guest)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")


def test_interrupt(tmp_path: Path) -> None:
    """Ctrl-C ends a guest that switches for ever with 130, and without a word."""
    guest = tmp_path / "switches.wat"
    guest.write_text(
        """(module
          (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
          (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 16) "\\20\\00\\00\\00\\06\\00\\00\\00")
          (data (i32.const 32) "ready\\n")
          (table (export "__indirect_function_table") 1 funcref)
          (elem (i32.const 0) $other)
          (func $other (loop (drop (call $switch (i64.const 0))) (br 0)))
          (func (export "_start")
            (drop (call $create (i32.const 0) (i32.const 0)))
            (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 0)))
            (loop (drop (call $switch (i64.const 1))) (br 0))))"""
    )
    command = [sys.executable, "-m", "greenctx", "run", str(guest)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, stderr) == (130, b"")
