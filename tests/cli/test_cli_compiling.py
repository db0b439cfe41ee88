"""Compiling within the limits of time and memory, which a module of a hundred kilobytes can exceed a hundred times."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from processes import check_script, run_greenctx

from greenctx.wasix._modules.binary import encode_number, encode_section

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")

ELEMENTS = 1_100_000
"""More than 2**20 functions of a table are set up by code, which wasmtime compiles for minutes, with gigabytes."""


def test_time_limit(tmp_path: Path) -> None:
    """``--timeout`` ends the compiler too: status 124, with the same message as for a guest that runs for too long."""
    guest = tmp_path / "guest.wasm"
    guest.write_bytes(
        b"\0asm\1\0\0\0"
        + encode_section(1, b"\1\x60\0\0")
        + encode_section(3, b"\1\0")
        + encode_section(4, b"\1\x70\0" + encode_number(ELEMENTS))
        + encode_section(7, b"\1\6_start\0\0")
        + encode_section(9, b"\1\0\x41\0\x0b" + encode_number(ELEMENTS) + bytes(ELEMENTS))
        + encode_section(10, b"\1\2\0\x0b")
    )
    for options in ((), ("--no-cache",)):
        ran = run_greenctx("run", "--timeout", "0.5", *options, guest)
        if ran.returncode == 0 and version("wasmtime").startswith("45."):
            pytest.skip("this wasmtime compiles the module within the limit")
        assert (ran.returncode, ran.stdout) == (124, b"")
        assert ran.stderr == b"greenctx: the program did not end within its limit of 0.5 seconds\n"


def test_what_the_child_may_do(tmp_path: Path) -> None:
    """The child ends at the time limit, without memory, or by a crash. This process raises other errors."""
    guest = tmp_path / "guest.wasm"
    guest.write_bytes(bytes(10_000))
    check_script(f"""
        import os, time
        from greenctx.cli import compiling
        from greenctx.errors import InvalidProgram, TimeLimitExceeded

        def outcome(work, seconds=300):
            try:
                return compiling.compile_apart(work, {str(guest)!r}, 10_000, seconds)
            except (InvalidProgram, TimeLimitExceeded) as error:
                return type(error), str(error)
            finally:
                try:
                    os.waitpid(-1, 0)
                except ChildProcessError:
                    pass
                else:
                    raise AssertionError("a child is left")

        def invalid():
            raise InvalidProgram("guest", "it is no module")

        too_much = InvalidProgram, {f"{guest}: it cannot be compiled within 4 GiB of memory"!r}
        assert outcome(lambda: time.sleep(1000), 0.1)[0] is TimeLimitExceeded
        assert outcome(lambda: bytearray(5 << 30)) == too_much
        assert outcome(os.abort) == too_much
        assert outcome(lambda: print("nobody hears it")) is None
        assert outcome(invalid) is None
        assert outcome(lambda: [*range(200_000)], None) == [*range(200_000)], "more than a pipe holds"
        descriptors = os.pipe()
        assert descriptors[0] < 6, "a descriptor is left"
    """)


def test_a_small_module_that_takes_long(tmp_path: Path) -> None:
    """A function of nine bytes that declares 50,000 locals compiles for ten milliseconds. ``-`` has the limit, too."""
    count, body = 800, b"\1" + encode_number(50_000) + b"\x7f\x0b"
    guest = tmp_path / "guest.wasm"
    guest.write_bytes(
        b"\0asm\1\0\0\0"
        + encode_section(1, b"\1\x60\0\0")
        + encode_section(3, encode_number(count) + bytes(count))
        + encode_section(7, b"\1\6_start\0\0")
        + encode_section(10, encode_number(count) + (encode_number(len(body)) + body) * count)
    )
    assert guest.stat().st_size < 8192
    for file in (str(guest), "-"):
        ran = run_greenctx("run", "--timeout", "0.1", "--no-cache", file, stdin=guest.read_bytes())
        assert (ran.returncode, ran.stdout) == (124, b"")
        assert ran.stderr == b"greenctx: the program did not end within its limit of 0.1 seconds\n"


@pytest.mark.parametrize("command", [["run", "--max-memory", "1GiB"], ["run", "--timeout", "300"], ["inspect"]])
def test_memory_limit(command: list[str], tmp_path: Path) -> None:
    """Whoever limits a run, and whoever inspects a file, limits the memory of the compiler."""
    guest = tmp_path / "guest.wat"
    guest.write_text('(module (memory (export "memory") 1) (func (export "_start")))' + " " * 10_000)
    check_script(f"""
        import sys
        from greenctx.cli import compiling, main

        compiling.MAX_MEMORY = 1 << 20
        sys.argv = ["greenctx", *{command!r}, {str(guest)!r}]
        said = []
        sys.stderr = type("Stream", (), {{"write": said.append, "flush": lambda self: None}})()
        assert main() == 2
        assert said == [{f"greenctx: {guest}: it cannot be compiled within 0 GiB of memory" + chr(10)!r}], said
    """)


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A killed parent cannot end its child, and the compiler may need minutes and gigabytes."""
    reading, writing = os.pipe()
    script = f"""if True:
        import time
        from greenctx.cli.compiling import compile_apart

        def work():
            open({str(tmp_path / "begun")!r}, "w").close()
            time.sleep(1000)

        compile_apart(work, "guest", 10_000, None)"""
    with subprocess.Popen([sys.executable, "-c", script], pass_fds=[writing]) as parent:
        os.close(writing)
        while not (tmp_path / "begun").exists():
            assert parent.poll() is None
            time.sleep(0.01)
        parent.kill()
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"", "this has an end when the child has"


def test_programs_run_as_ever(tmp_path: Path) -> None:
    """Within the limit, the guest has its streams, and its status is the exit status."""
    guest = tmp_path / "guest.wat"
    guest.write_text(
        """(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (func (export "_start") (call $exit (i32.const 7))))"""
        + " " * 10_000
    )
    ran = run_greenctx("run", "--timeout", "300", "--trace", tmp_path / "trace", guest)
    assert (ran.returncode, ran.stdout, ran.stderr) == (7, b"", b"")
    assert (tmp_path / "trace").read_text().count('"process_name"') == 1
