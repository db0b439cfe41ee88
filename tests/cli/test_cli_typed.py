"""The command line, typed as the commands wasmtime and wasmer are."""

from __future__ import annotations

import json
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guests.compile import compile_guest
from processes import run_greenctx, run_python

from greenctx.cli import main
from greenctx.cli.options import seconds

if TYPE_CHECKING:
    import subprocess

ADD = """(module
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "half") (param f64) (result f64) (f64.div (local.get 0) (f64.const 2)))
  (func (export "twice") (param i64) (result i64 i64) (local.get 0) (local.get 0))
  (func (export "nothing"))
  (func (export "trap") unreachable))"""

SPINS = '(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))'


@pytest.fixture
def add(tmp_path: Path) -> Path:
    path = tmp_path / "add.wat"
    path.write_text(ADD)
    return path


def said(ran: subprocess.CompletedProcess[bytes]) -> str:
    """The one line that the refusal says."""
    assert (ran.returncode, ran.stdout, ran.stderr.count(b"\n")) == (2, b"", 1), ran
    return ran.stderr.decode().removeprefix("greenctx: ").rstrip("\n")


def test_a_file_without_a_command() -> None:
    """`greenctx x.wasm` runs it."""
    guest = compile_guest("process")
    assert run_greenctx(guest, "a", "--trace").stdout == f"[{guest}]\n[a]\n[--trace]\n".encode()
    assert said(run_greenctx("missing.wasm")) == "missing.wasm: No such file or directory"


def test_standard_input() -> None:
    """`greenctx run -` runs the module that stdin is."""
    ran = run_greenctx("run", "-", "a", stdin=compile_guest("process").read_bytes())
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"[-]\n[a]\n", b"")
    assert said(run_greenctx("run", "-", stdin=b"")) == "-: it is empty"


def test_a_variable_of_the_host() -> None:
    """`--env A` is the host's value, and `-e` is `--env`."""
    ran = run_greenctx("run", "--env", "A", "-eB=2", compile_guest("process"), "env", env={**os.environ, "A": "x=y"})
    assert (ran.returncode, sorted(ran.stdout.split())) == (0, [b"A=x=y", b"B=2"])
    without = {name: value for name, value in os.environ.items() if name != "A"}
    ran = run_greenctx("run", "--env", "A", compile_guest("process"), env=without)
    assert said(ran) == "--env: 'A' is not set here; NAME=VALUE sets it for the guest"


def test_directories_that_are_none(tmp_path: Path, add: Path) -> None:
    """One colon instead of two, and a file: the message says what it should be."""
    text = f"{tmp_path}:/data"
    expected = f"--dir: {text!r} is not a directory; HOST::GUEST is {tmp_path}::/data"
    assert said(run_greenctx("run", "--dir", text, add)) == expected
    expected = f"--dir: {str(add)!r} is not a directory, as HOST and HOST::GUEST have to name"
    for text in (str(add), f"{add}::/data"):
        assert said(run_greenctx("run", "--dir", text, add)) == expected


@pytest.mark.parametrize("command", ["run", "demo"])
def test_unknown_options(command: str, add: Path) -> None:
    """The message points to the help of the command that was typed, and knows other commands' names for things."""
    file = [str(add)] if command == "run" else []
    ran = run_greenctx(command, "--bogus", *file)
    assert said(ran) == f"unrecognized arguments: --bogus (see greenctx {command} --help)"
    ran = run_greenctx(command, f"--mapdir=/data:{add.parent}", *file)
    assert "here it is --dir HOST::GUEST (see" in said(ran)


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("1s", 1), ("500ms", 0.5), ("1.5s", 1.5), ("2m", 120), ("2min", 120), ("1h", 3600)]
)
def test_times(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["s", "0s", "-1s", "1 year", "1x", "ms", "inf", "infs", "nan", "1e400s", "1s1", ""])
def test_times_that_are_none(text: str, add: Path) -> None:
    expected = f"argument --timeout: {text!r} is not a positive number of seconds, such as 1.5, 1s or 500ms"
    assert said(run_greenctx("run", f"--timeout={text}", add)) == f"{expected} (see greenctx run --help)"


def test_a_time_limit_with_a_unit(tmp_path: Path) -> None:
    (tmp_path / "spins.wat").write_text(SPINS)
    began = time.monotonic()
    assert run_greenctx("run", "--timeout", "50ms", tmp_path / "spins.wat").returncode == 124
    assert time.monotonic() - began < 30


def test_the_demo_with_options(tmp_path: Path) -> None:
    """`demo` takes the options of `run`."""
    ran = run_greenctx("demo", "--stats", "--trace", tmp_path / "trace.json", "--timeout", "100s")
    assert (ran.returncode, b"sieve" in ran.stderr) == (0, True)
    assert json.loads((tmp_path / "trace.json").read_text())
    assert run_greenctx("demo", "--max-contexts", "1").returncode != 0


@pytest.mark.parametrize(
    ("call", "printed"),
    [
        (["add", "2", "3"], "5\n"),
        (["add", "0xffffffff", "2"], "1\n"),
        (["add", "--", "-2", "1"], "-1\n"),
        (["half", "3"], "1.5\n"),
        (["twice", str(2**63)], f"{-(2**63)}\n" * 2),
        (["nothing"], ""),
    ],
)
def test_invoke(call: list[str], printed: str, add: Path) -> None:
    """`--invoke NAME` calls an export of a module that has no `_start`, with the arguments, and prints the results."""
    ran = run_greenctx("run", "--invoke", call[0], add, *call[1:])
    assert (ran.returncode, ran.stdout.decode(), ran.stderr) == (0, printed, b"")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["sub", "1"], "it exports no function 'sub'; it exports 'add', 'half', 'twice', 'nothing', 'trap'"),
        (["add", "1"], "'add' takes i32 i32, but 1 arguments were given"),
        (["nothing", "1"], "'nothing' takes nothing, but 1 arguments were given"),
        (["add", "1", "x"], "'x' cannot be an argument of 'add': it takes i32"),
        (["add", "1", str(2**32)], f"'{2**32}' cannot be an argument of 'add': it takes i32"),
        (["half", "x"], "'x' cannot be an argument of 'half': it takes f64"),
    ],
)
def test_invoke_of_what_is_not_there(call: list[str], message: str, add: Path) -> None:
    ran = run_greenctx("run", "--invoke", call[0], add, *call[1:])
    assert said(ran) == f"{add}: {message}"


def test_invoke_that_ends_otherwise(tmp_path: Path, add: Path) -> None:
    """A trap is status 134; an exit is the guest's; `_initialize` comes before."""
    assert run_greenctx("run", "--invoke", "trap", add).returncode == 134
    (tmp_path / "exits.wat").write_text(
        """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1) (global $status (mut i32) (i32.const 1))
          (func (export "_initialize") (global.set $status (i32.const 7)))
          (func (export "leave") (call $exit (global.get $status))))"""
    )
    assert run_greenctx("run", "--invoke", "leave", tmp_path / "exits.wat").returncode == 7


def test_status_of_an_inspection(tmp_path: Path, add: Path) -> None:
    """0: it can be run; 1: it is another module; 2: it is not a module. With --json stdout is JSON in each case."""
    for path, status in ((compile_guest("process"), 0), (add, 1), (tmp_path / "missing.wasm", 2)):
        ran = run_greenctx("inspect", path)
        assert (ran.returncode, bool(ran.stdout)) == (status, status < 2)
        ran = run_greenctx("inspect", "--json", path)
        found = json.loads(ran.stdout)
        assert (ran.returncode, found["file"], found["runnable"]) == (status, str(path), status == 0)
        assert (found["reason"] is None) is (status == 0)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_versions(option: str) -> None:
    """greenctx's, greenlet's and wasmtime's, whether guests can run, and whether switches are compiled."""
    lines = run_greenctx(option).stdout.decode().splitlines()
    assert lines[0].startswith("greenctx 0.")
    assert lines[1:4] == [f"greenlet {version('greenlet')}", f"wasmtime {version('wasmtime')}", "guests: can run"]
    assert lines[4] in ("switches: compiled", "switches: pure Python")
    lines = run_greenctx(option, env={**os.environ, "GREENCTX_PURE": "1"}).stdout.decode().splitlines()
    assert lines[4] == "switches: pure Python"


def test_versions_where_guests_cannot_run() -> None:
    script = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *args: None if name == sys.argv[1] else find(name, *args)
from greenctx.cli import main
main(["--version"])"""
    assert "guests: cannot run, because wasmtime is not installed\n" in run_python(script, "wasmtime").stdout
    assert "guests: cannot run, because the native part is not built\n" in run_python(script, "_fiber").stdout


@pytest.mark.parametrize("command", [[], ["run"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The help groups the options, and ends with two examples."""
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    text = capsys.readouterr().out
    lines = text.rstrip().splitlines()
    assert lines[-3] == "examples:"
    assert all(line.startswith("  greenctx run --") for line in lines[-2:])
    if command:
        for group in ("what the guest gets", "limits", "seeing what contexts do"):
            assert f"\n{group}:\n" in text


def test_include() -> None:
    """`greenctx include` prints the directory of the header, which is part of the package."""
    ran = run_greenctx("include")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert (Path(ran.stdout.decode().rstrip("\n")) / "wasix_context.h").is_file()
