"""Files that are not runnable guests: one line on stderr says what and why, with status 2."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, cast

import pytest
import wasmtime
from guests.compile import compile_guest
from processes import run_greenctx

from greenctx.cli import main

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = '(module (func (export "_start")))'
COMPONENT = b"\0asm\x0d\0\1\0"


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    return Refused(capfd)


class Refused:
    """Calls the command line in this process; asserts status 2 and one line on stderr, which it returns."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.capfd = capfd

    def __call__(self, *args: str) -> str:
        try:
            status = main(args)
        except SystemExit as exit:  # argparse's way
            status = cast("int", exit.code)
        stdout, stderr = self.capfd.readouterr()
        assert (status, stdout) == (2, ""), (args, stderr)
        assert stderr.startswith("greenctx: "), args
        assert stderr.endswith("\n"), args
        assert len(stderr.splitlines()) == 1, (args, stderr)
        assert stderr[:-1].isprintable(), (args, stderr)
        return stderr.removeprefix("greenctx: ")[:-1]


def test_as_a_shell_sees_it(tmp_path: Path) -> None:
    """A shell sees one line on stderr, nothing on stdout, no traceback, and status 2."""
    ran = run_greenctx("run", tmp_path / "nothing.wasm")
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr == f"greenctx: {tmp_path}/nothing.wasm: No such file or directory\n".encode()
    ran = run_greenctx()
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.count(b"\n") == 1


def test_unreadable_files(tmp_path: Path, refused: Refused) -> None:
    """No such file, a directory, a name that no file can have, a file without permission: named with the reason."""
    assert refused("run", f"{tmp_path}/no.wasm") == f"{tmp_path}/no.wasm: No such file or directory"
    assert refused("run", str(tmp_path)) == f"{tmp_path}: Is a directory"
    assert refused("run", f"{tmp_path}/x.wasm/y").endswith("/y: No such file or directory")
    assert "File name too long" in refused("run", "x" * 5000)
    assert refused("run", "a\0b")
    assert refused("run", "") != ""
    assert refused("run", "new\nline\x1b[31m\r.wasm").startswith("new\\nline\\x1b[31m\\r.wasm: ")
    if os.geteuid() != 0:
        secret = tmp_path / "secret.wasm"
        secret.write_text(NOTHING)
        secret.chmod(0)
        assert refused("run", str(secret)) == f"{secret}: Permission denied"


@pytest.mark.parametrize("content", [b"", b" ", b"\n\t \r\n"])
def test_empty_file(content: bytes, tmp_path: Path, refused: Refused) -> None:
    """A file of nothing, or of white space, is called empty."""
    path = tmp_path / "empty.wasm"
    path.write_bytes(content)
    assert refused("run", str(path)) == f"{path}: it is empty"


def test_random_bytes(tmp_path: Path, refused: Refused) -> None:
    """Random bytes are refused, whether they begin like a module or not, and random text is."""
    path = tmp_path / "random.wasm"
    for seed in range(60):
        rng = random.Random(seed)
        noise = rng.randbytes(rng.choice([1, 3, 4, 8, 100, 10_000]))
        text = "".join(chr(rng.choice([*range(128), 0x85, 0x2028, 0xFEFF, 0x1F600])) for _ in range(50))
        for content in (noise, b"\0asm" + noise, b"\0asm\1\0\0\0" + noise, text.encode(), b"(module " + text.encode()):
            path.write_bytes(content)
            assert refused("run", str(path)).startswith(f"{path}: ")


def test_every_prefix_of_a_module(tmp_path: Path, refused: Refused) -> None:
    """A module that was cut off anywhere is refused, and does not run."""
    path = tmp_path / "cut.wasm"
    whole = bytes(
        wasmtime.wat2wasm(  # without the name section, which is not checked: the code is last
            """(module (import "wasix_32v1" "context_switch" (func (param i64) (result i32)))
              (memory (export "memory") 1) (table 1 funcref) (elem (i32.const 0) 1)
              (func (export "_start") (drop (call 0 (i64.const 0)))))"""
        )
    )
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        assert refused("run", str(path)).startswith(f"{path}: ")
    path.write_bytes(whole)
    assert main(["run", str(path)]) == 0


def test_truncated_program(tmp_path: Path, refused: Refused) -> None:
    """A real program that was cut off is refused."""
    whole = compile_guest("process").read_bytes()
    path = tmp_path / "cut.wasm"
    for length in (4, 5, 7, 8, 9, 100, len(whole) // 10, len(whole) // 3):
        path.write_bytes(whole[:length])
        assert refused("run", str(path)).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [COMPONENT, b"\0asm\x0a\0\1\0", COMPONENT + b"\0" * 100, b"(component)"])
def test_component(content: bytes, tmp_path: Path, refused: Refused) -> None:
    """A component, binary or text, is refused as one."""
    path = tmp_path / "component.wasm"
    path.write_bytes(content)
    assert "component" in refused("run", str(path)).removeprefix(str(path))


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("", "it exports no '_start'"),
        ('(func (export "main"))', "it exports no '_start'"),
        ('(global (export "_start") i32 (i32.const 0))', "its export '_start' is not a function"),
        ('(memory (export "_start") 1)', "its export '_start' is not a function"),
        ('(func (export "_start") (param i32))', "its export '_start' takes arguments or returns results"),
        ('(func (export "_start") (result i32) (i32.const 0))', "its export '_start' takes arguments or returns"),
    ],
)
def test_not_a_command(start: str, reason: str, tmp_path: Path, refused: Refused) -> None:
    """A module without a _start function of type () -> () is refused before any of its code runs."""
    path = tmp_path / "library.wat"
    path.write_text(f"(module {start} (func $first unreachable) (start $first))")
    assert refused("run", str(path)).startswith(f"{path}: {reason}")


def test_missing_imports(tmp_path: Path, refused: Refused) -> None:
    """Every import that nothing provides is named."""
    path = tmp_path / "wants.wat"
    path.write_text(
        """(module (import "env" "missing" (func)) (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32
          i32) (result i32))) (import "wasix_32v1" "context_fly" (func)) (import "" "" (memory 1))
          (import "evil\\0aname\\1b[31m" "☃" (table 1 funcref)) (func (export "_start")))"""
    )
    message = refused("run", str(path))
    for name in ("env.missing", "wasix_32v1.context_fly", "evil\\nname\\x1b[31m.☃"):
        assert name in message
    assert "fd_write" not in message


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ('"wasix_32v1" "context_switch" (func (param i32) (result i32))', "wasix_32v1::context_switch"),
        ('"wasix_32v1" "context_switch" (memory 1)', "wasix_32v1::context_switch"),
        ('"wasi_snapshot_preview1" "proc_exit" (func (param i64))', "wasi_snapshot_preview1::proc_exit"),
        ('"wasi_snapshot_preview1" "fd_close" (func)', "wasi_snapshot_preview1::fd_close"),
    ],
)
def test_import_of_another_type(wanted: str, name: str, tmp_path: Path, refused: Refused) -> None:
    """An import of the wrong type is named."""
    path = tmp_path / "wants.wat"
    path.write_text(f'(module (import {wanted}) (func (export "_start")))')
    assert name in refused("run", str(path)).removeprefix(str(path))


def test_bad_directories(tmp_path: Path, refused: Refused) -> None:
    """A malformed --dir, or one that names no directory of the host, is quoted."""
    path = tmp_path / "guest.wat"
    path.write_text(NOTHING)
    for malformed in ("a::", "::b", "::", ""):
        assert repr(malformed) in refused("run", "--dir", malformed, str(path))
    for missing in (f"{tmp_path}/missing::/data", f"{tmp_path}/missing", f"{path}::/data", "new\nline::/data"):
        host = missing.partition("::")[0]
        assert repr(host)[1:-1] in refused("run", "--dir", missing, str(path))
    assert refused("run", "--dir", f"{tmp_path}::a\0b", str(path))


@pytest.mark.parametrize("variable", ["", "NAME", "=value", "="])
def test_bad_variables(variable: str, tmp_path: Path, refused: Refused) -> None:
    """An --env other than NAME=VALUE is quoted."""
    path = tmp_path / "guest.wat"
    path.write_text(NOTHING)
    assert repr(variable) in refused("run", f"--env={variable}", str(path))


def test_not_unicode(tmp_path: Path) -> None:
    """Bytes other than UTF-8 cannot be given to a guest: not as an argument, a variable or a directory's name."""
    path = tmp_path / "guest.wat"
    path.write_text(NOTHING)
    named = tmp_path / os.fsdecode(b"\xff.wat")
    named.write_text(NOTHING)
    os.mkdir(os.fsencode(tmp_path) + b"/d\xfe")
    for args in (
        [path, b"\xff"],
        ["--env", b"K=\xff", path],
        ["--env", b"\xff=V", path],
        ["--dir", os.fsencode(tmp_path) + b"/d\xfe", path],
        ["--dir", os.fsencode(tmp_path) + b"::d\xff", path],
        [named],
    ):
        ran = run_greenctx("run", *args)
        assert (ran.returncode, ran.stdout) == (2, b"")
        assert ran.stderr.count(b"\n") == 1
        assert ran.stderr.endswith(b"it is not UTF-8 text\n")


@pytest.mark.parametrize(
    "args",
    [[], ["fly"], ["run"], ["run", "--"], ["run", "--bogus", "guest.wasm"], ["run", "--dir"], ["run", "--env"],
     ["--bogus"], ["demo", "extra"], ["run", "--bo\ngus", "x"], ["fly\n\x1b[31m"]],
)  # fmt: skip
def test_bad_usage(args: list[str], refused: Refused) -> None:
    """No command, an unknown one, a missing file, an unknown option: one line, too."""
    assert refused(*args)


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"], ["run", "-h"]])
def test_help(args: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    """Help is for the asking, on stdout, with status 0."""
    with pytest.raises(SystemExit) as exit:
        main(args)
    stdout, stderr = capfd.readouterr()
    assert (exit.value.code, stderr) == (0, "")
    assert stdout.startswith("usage: greenctx")
