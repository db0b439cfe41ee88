"""``greenctx inspect``: what it prints, and the status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from guests.compile import compile_guest
from processes import TIMEOUT, run_greenctx

if TYPE_CHECKING:
    from pathlib import Path

GUEST = """(module
  (import "wasix_32v1" "context_switch" (func (param i64) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
  (import "env" "extra" (func))
  (memory (export "memory") 2 16)
  (table 3 funcref)
  (global (export "__stack_pointer") (mut i32) (i32.const 65536))
  (func (export "_start")))"""


def test_text(tmp_path: Path) -> None:
    """Readable text: what it is, whether it can be run, what it asks for and what it offers."""
    path = tmp_path / "guest.wat"
    path.write_text(GUEST)
    ran = run_greenctx("inspect", path)
    assert (ran.returncode, ran.stderr) == (1, b"")
    assert ran.stdout.decode().splitlines() == [
        f"{path}: core module (text), {len(GUEST)} bytes",
        "runnable: no (1 of its imports are missing)",
        "contexts: yes",
        "shadow stacks: yes (__stack_pointer exported, malloc not exported)",
        "needs the garbage collector: no",
        "memories: 1",
        "  128 KiB to 1 MiB, exported as memory",
        "tables: 1",
        "  3 to any size",
        "imports: 3",
        "  provided        function wasix_32v1.context_switch",
        "  provided        function wasi_snapshot_preview1.proc_exit",
        "  unknown         function env.extra",
        "exports: 3",
        "  memory memory",
        "  global __stack_pointer",
        "  function _start",
    ]


PROVIDED = {"kind": "function", "provided": True, "answers_enotsup": False}
UNKNOWN = {"kind": "function", "provided": False, "answers_enotsup": False}


def test_json(tmp_path: Path) -> None:
    """--json prints one JSON object, on one line."""
    path = tmp_path / "guest.wat"
    path.write_text(GUEST)
    ran = run_greenctx("inspect", "--json", path)
    assert (ran.returncode, ran.stderr, ran.stdout.count(b"\n")) == (1, b"", 1)
    assert json.loads(ran.stdout) == {
        "file": str(path),
        "type": "core module (text)",
        "size": len(GUEST),
        "runnable": False,
        "reason": "nothing provides what it imports: env.extra",
        "contexts": True,
        "needs_collector": False,
        "imports": [
            {"name": "wasix_32v1.context_switch", **PROVIDED},
            {
                "name": "wasi_snapshot_preview1.proc_exit",
                "kind": "function",
                "provided": True,
                "answers_enotsup": False,
            },
            {"name": "env.extra", **UNKNOWN},
        ],
        "missing": ["env.extra"],
        "exports": [
            {"name": "memory", "kind": "memory"},
            {"name": "__stack_pointer", "kind": "global"},
            {"name": "_start", "kind": "function"},
        ],
        "memories": [
            {
                "minimum": 131072,
                "maximum": 1048576,
                "shared": False,
                "imported": False,
                "is_64": False,
                "exported": ["memory"],
            }
        ],
        "tables": [{"minimum": 3, "maximum": None, "shared": False, "imported": False, "is_64": False, "exported": []}],
        "stack_pointer": True,
        "malloc": False,
        "warnings": [],
    }


def test_program_in_c() -> None:
    """A C program as the compiler makes it."""
    ran = run_greenctx("inspect", compile_guest("errnos"))
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert b"\nrunnable: yes\ncontexts: yes\nwarning: if it is compiled from C, its contexts share" in ran.stdout
    assert b"unknown" not in ran.stdout


@pytest.mark.parametrize(
    "content", [None, b"", b"\x7fELF", b"(module", b"(component)", b"\0asm\x0d\0\1\0", b"\0asm\1\0\0\0\x07"]
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_no_module(content: bytes | None, options: list[str], tmp_path: Path) -> None:
    """A missing file, or one that is not a module, is status 2 and one line on stderr; stdout has JSON if asked for."""
    path = tmp_path / "a\nb\x1b[31m"
    if content is not None:
        path.write_bytes(content)
    ran = run_greenctx("inspect", *options, path)
    assert ran.returncode == 2
    if options:
        found = json.loads(ran.stdout)
        assert (found.pop("file"), found.pop("runnable")) == (str(path), False)
        assert found.keys() == {"reason"}
    else:
        assert ran.stdout == b""
    assert ran.stderr.startswith(b"greenctx: ")
    assert (ran.stderr.count(b"\n"), ran.stderr.count(b"\x1b")) == (1, 0)


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--xml", "a"]])
def test_usage(arguments: list[str]) -> None:
    """`inspect` takes one file."""
    ran = run_greenctx("inspect", *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr.count(b"\n")) == (2, b"", 1)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_terminals_encoding(options: list[str], tmp_path: Path) -> None:
    """Names that stdout's encoding does not have are escaped."""
    path = tmp_path / os.fsdecode(b"caf\xc3\xa9\xff.wat")
    path.write_text('(module (func (export "_start")) (func (export "é☃")))', encoding="utf-8")
    for encoding in ("ascii", "latin-1", "utf-8"):
        ran = run_greenctx("inspect", *options, path, env={**os.environ, "PYTHONIOENCODING": encoding})
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert ran.stdout.decode(encoding).count("\n") == (1 if options else 11)
        assert ("☃" if encoding == "utf-8" and not options else r"\u2603") in ran.stdout.decode(encoding)


def test_reader_that_has_read_enough(tmp_path: Path) -> None:
    """A closed pipe is no error."""
    path = tmp_path / "guest.wat"
    exports = " ".join(f'(func (export "{number}"))' for number in range(4000))
    path.write_text(f"(module {exports})")
    command = [sys.executable, "-m", "greenctx", "inspect", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(TIMEOUT) == 1
