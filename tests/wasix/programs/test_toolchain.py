"""A guest in C as WASIX's own toolchain makes programs: what it imports and exports, and that it runs as it is."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from guests.compile import TOOLCHAIN, compile_guest
from processes import run_greenctx

from greenctx.errors import Deadlock
from greenctx.wasix import InvalidProgram, Limits, Program
from greenctx.wasix._modules.sizes import PAGE, Size
from greenctx.wasix._program.inspection import inspect_file

if TYPE_CHECKING:
    from pathlib import Path

each_level = pytest.mark.parametrize("level", ["-O0", "-O1", "-O2"])
each_stack = pytest.mark.parametrize("stack", [None, 65536], ids=["shared", "own"])

SAID = """files
read line 0
read line 1
read line 2
end of file
timed out
handled
duplicate
exit in a context, 5
atexit
"""


def toolchain(level: str = "-O1") -> Path:
    return compile_guest("toolchain", level, *TOOLCHAIN)


@each_level
def test_shape(level: str) -> None:
    """The binary has the shape of the toolchain's binaries, and nothing easier; all its imports are provided."""
    found = inspect_file(toolchain(level))
    assert found.memories == (Size(129 * PAGE, 65536 * PAGE, shared=True, imported=True),)
    imports, exports = {one.name for one in found.imports}, {one.name for one in found.exports}
    of_wasix = {name.removeprefix("wasix_32v1.") for name in imports if name.startswith("wasix_32v1.")}
    assert of_wasix == {
        *("proc_signals_sizes_get", "proc_signals_get", "callback_signal", "proc_exit2", "thread_signal"),
        *("futex_wait", "futex_wake", "futex_wake_all", "context_create", "context_switch", "context_destroy"),
        *("getcwd", "chdir", "path_open2", "fd_dup2", "fd_fdflags_get", "fd_pipe", "proc_id", "thread_exit"),
    }
    assert {"env.memory", "wasi.thread-spawn"} < imports
    assert {"_start", "__stack_pointer", "__indirect_function_table", "__wasm_signal", "__tls_base"} < exports
    assert exports.isdisjoint({"memory", "malloc"})
    assert (found.runnable, found.missing, found.stack_pointer, found.malloc) == (True, (), True, False)


@each_level
@each_stack
def test_everything(level: str, stack: int | None, tmp_path: Path) -> None:
    """Files, three contexts, a pipe between them, a lock held across switches, a handler that switches in the context
    that raised the signal; and exit in a context. With the stack shared, and with one for each context."""
    if stack is None and level == "-O0":
        pytest.skip("contexts without optimisation write over each other's locals if they share the stack")
    options = ["--shared-stack"] if stack is None else ["--shadow-stack", str(stack)]
    ran = run_greenctx("run", *options, "--dir", f"{tmp_path}::/", toolchain(level))
    assert (ran.returncode, ran.stdout.decode(), ran.stderr) == (3, SAID, b"")
    assert (tmp_path / "made" / "file").read_text() == "42 written\n"


def test_again_and_again(tmp_path: Path) -> None:
    """Each run begins anew."""
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        stdout = io.BytesIO()
        with Program.from_file(toolchain(), preopens={"/": tmp_path / str(number)}, stdout=stdout) as program:
            assert program.run() == 3
            assert stdout.getvalue().decode() == SAID
            (tmp_path / str(number) / "made" / "file").unlink()
            (tmp_path / str(number) / "made").rmdir()
            assert program.run() == 3
            assert stdout.getvalue().decode() == SAID * 2


@pytest.mark.parametrize(("mode", "status"), [("abort", 134), ("thread-exit", 0), ("proc-exit2", 200)])
def test_endings(mode: str, status: int) -> None:
    """A signal without a handler, the end of the only thread, and exit end the program."""
    ran = run_greenctx("run", "--shared-stack", toolchain(), mode)
    assert (ran.returncode, ran.stdout, ran.stderr) == (status, b"", b"")


def test_deadlock() -> None:
    """A context that waits for a lock which main holds: an error that says which context, and what to do."""
    ran = run_greenctx("run", "--shared-stack", toolchain(), "deadlock")
    assert (ran.returncode, ran.stdout) == (134, b"")
    assert re.fullmatch(
        rb"greenctx: context 2 was about to wait for the lock or condition at 0x[0-9a-f]+, which only another thread "
        rb"could end, and there is none; switch to the context that can end it instead\n",
        ran.stderr,
    )
    with pytest.raises(Deadlock) as raised:
        Program.from_file(toolchain(), argv=["", "deadlock"]).run()
    assert raised.value.context_id == 2


def test_limits(tmp_path: Path) -> None:
    """The limits of memory, contexts and time are those of other guests."""
    with pytest.raises(InvalidProgram, match=r"starts with \d+ bytes of memory, more than the limit of 8388608"):
        Program.from_file(toolchain(), limits=Limits(memory=8 * 2**20)).run()
    stdout = io.BytesIO()
    limits = Limits(memory=9 * 2**20, contexts=4, seconds=100)
    program = Program.from_file(toolchain(), preopens={"/": tmp_path}, limits=limits, stdout=stdout)
    assert program.run() == 3
    assert stdout.getvalue().decode() == SAID
    (tmp_path / "made" / "file").unlink()
    (tmp_path / "made").rmdir()
    few = Program.from_file(toolchain(), preopens={"/": tmp_path}, limits=Limits(contexts=2))
    with pytest.raises(Exception, match="unreachable"):  # its assert fails
        few.run()


def test_without_contexts() -> None:
    """With the context calls switched off the rest is as it was."""
    ran = run_greenctx("run", "--no-contexts", toolchain(), "proc-exit2")
    assert (ran.returncode, ran.stderr) == (200, b"")
