"""The exit status holds, whatever happens to stdout and stderr, and whatever a file is."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import TIMEOUT, run_greenctx, run_python

from greenctx.cli import exit_status, main
from greenctx.errors import InvalidProgram
from greenctx.wasix._modules import compile as compile_room
from greenctx.wasix._modules.compile import read_code

TRAP = '(module (func (export "_start") unreachable))'
LOOP = '(module (func (export "_start") (loop (br 0))))'
EMPTY = '(module (func (export "_start")))'

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
needs_zero = pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero")


def status_of(where: str, *args: str | Path) -> int:
    """Run the command line with streams that cannot be written to."""
    redirections = {"full": "1>/dev/full 2>/dev/full", "closed": "1>&- 2>&-", "broken": "1>&9 2>&9 9>&-"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        script = f'exec "$@" {redirections[where]}'.replace("9", str(writing))
        command = ["bash", "-c", script, "bash", sys.executable, "-m", "greenctx", *args]
        return subprocess.run(command, pass_fds=[writing], timeout=TIMEOUT, check=False).returncode
    finally:
        os.close(writing)


@needs_full
@pytest.mark.parametrize("where", ["full", "closed", "broken"])
def test_statuses(where: str, tmp_path: Path) -> None:
    """A trap is 134, a missing file and bad usage 2, and success 0, even if no message can be written."""
    guest = tmp_path / "guest.wat"
    for text, options, status in ((TRAP, (), 134), (TRAP, ("--stats",), 134), (EMPTY, ("--stats",), 0)):
        guest.write_text(text)
        assert status_of(where, "run", *options, guest) == status
    assert status_of(where, "run", tmp_path / "none.wasm") == 2
    assert status_of(where, "fly") == 2
    assert status_of(where, "--version") == 0
    assert status_of(where, "inspect", guest) == (2 if where == "full" else 0)
    assert status_of(where, "include") == (2 if where == "full" else 0)


@needs_full
def test_time_limit(tmp_path: Path) -> None:
    (tmp_path / "guest.wat").write_text(LOOP)
    assert status_of("full", "run", "--timeout", "0.1", tmp_path / "guest.wat") == 124


@needs_zero
@pytest.mark.parametrize("command", ["run", "inspect"])
def test_files_without_an_end(command: str) -> None:
    """Only the head is read of a file that cannot be a module."""
    ran = run_python(
        "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); "
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); from greenctx.cli import main; "
        f"sys.exit(main([{command!r}, '/dev/zero']))"
    )
    line = "greenctx: /dev/zero: it is neither a WebAssembly module nor WebAssembly text\n"
    assert (ran.returncode, ran.stderr) == (2, line)


def test_size_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module has a gibibyte at most; one of that size is read."""
    path = tmp_path / "large.wasm"
    path.write_bytes(b"\0asm" + bytes(6000))
    monkeypatch.setattr(compile_room, "MAX_BYTES", 6004)
    assert read_code(str(path)) == path.read_bytes()
    monkeypatch.setattr(compile_room, "MAX_BYTES", 6003)
    with pytest.raises(InvalidProgram, match="it has more than 6003 bytes"):
        read_code(str(path))


NAMED = """(module
  (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
  (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 1 funcref)
  (elem (i32.const 0) 2)
  (func (export "\\1b[31m\\n\\e2\\80\\ae") (drop (call $switch (i64.const 0))) unreachable)
  (func (export "_start")
    (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))))"""


def test_names_on_a_terminal(tmp_path: Path) -> None:
    """Names of functions in the table of --stats have no control characters and no lines of their own."""
    guest = tmp_path / "guest.wat"
    guest.write_text(NAMED)
    ran = run_greenctx("run", "--stats", guest)
    assert ran.returncode == 0
    assert b"  \\x1b[31m\\n\\u202e\n" in ran.stderr
    assert all(line.isprintable() for line in ran.stderr.decode().split("\n"))


def test_say_escapes(capfd: pytest.CaptureFixture[str]) -> None:
    """Dumps, statistics and errors go through one function, which lets ends of lines alone and nothing else."""
    exit_status.say("a\x1b[2J\n\tb\r\u2028")
    exit_status.fail(3, "c\nd\x9b", "e")
    assert capfd.readouterr().err == "a\\x1b[2J\n\\tb\\r\\u2028\ngreenctx: c\\nd\\x9b\ne\n"


def test_replaced_streams() -> None:
    """The command line prints to the objects that a caller has set as stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert [main(["include"]), main(["inspect", "none.wasm"])] == [0, 2]
    assert out.getvalue().endswith("include\n")
    assert err.getvalue() == "greenctx: none.wasm: No such file or directory\n"


@needs_zero
def test_stdin_without_an_end() -> None:
    """A module from stdin has the same limits."""
    with Path("/dev/zero").open("rb") as zero:
        command = [sys.executable, "-m", "greenctx", "run", "-"]
        ran = subprocess.run(command, stdin=zero, capture_output=True, timeout=TIMEOUT, check=False)
    assert (ran.returncode, ran.stderr[:12]) == (2, b"greenctx: -:")
