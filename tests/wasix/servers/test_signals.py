"""A guest's trap is an exception, whatever the thread's signal mask, and whoever has replaced the signal handlers."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from processes import HOST, TIMEOUT, check_host, run_python

if TYPE_CHECKING:
    from pathlib import Path

REPLACED = {
    "faulthandler": "faulthandler.enable()",
    "faulthandler's end": "faulthandler.disable()",  # it was enabled when Python started
    "Python's handlers": "for one in (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE): signal.signal(one, print)",
    "the default": "for one in (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE): signal.signal(one, signal.SIG_DFL)",
    "none": "for one in (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE): signal.signal(one, signal.SIG_IGN)",
    "a mask": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())",
}
"""Changes after the first engine was made."""


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)
def test_before_a_run(replace: str) -> None:
    """Every kind of trap, in the thread that has replaced them, and in one that inherits the mask."""
    check_host(f"""
        if {"faulthandler.enable" in replace}:
            faulthandler.disable()
        programs = {{said: Program(code) for said, code in TRAPS.items()}}
        {replace}
        def work():
            for said, program in programs.items():
                assert_traps(program.run, said)
        work()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        faulthandler.enable()
    """)


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)
def test_in_a_host_function(replace: str) -> None:
    """The guest traps right after the host function has returned."""
    check_host(f"""
        if {"faulthandler.enable" in replace}:
            faulthandler.disable()
        program = Program(b'(module (import "host" "f" (func $f)) (func (export "_start") (call $f) unreachable))')
        def replace():
            {replace}
        program.linker.define_func("host", "f", NOTHING, replace)
        for _ in range(3):
            assert_traps(program.run, "unreachable")
        faulthandler.enable()
    """)


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)
def test_on_an_engine_of_the_hosts_own(replace: str) -> None:
    check_host(f"""
        if {"faulthandler.enable" in replace}:
            faulthandler.disable()
        engine = wasmtime.Engine()
        store, linker = wasmtime.Store(engine), Linker(engine)
        module = wasmtime.Module(engine, '(module (func (export "f") unreachable))')
        f = linker.instantiate(store, module).exports(store)["f"]
        {replace}
        assert_traps(lambda: call(store, f), "unreachable")
        faulthandler.enable()
    """)


def test_by_another_thread_while_the_guest_computes() -> None:
    """Replaced signal handlers are noticed at the end of the epoch."""
    check_host("""
        faulthandler.disable()
        # It traps when the host has written to its memory.
        program = Program(b'''(module (import "host" "f" (func $f)) (memory (export "memory") 1)
          (func (export "_start") (local i32) (call $f)
            (loop (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 300000000))))
            unreachable))''', limits=Limits(seconds=60))
        program.linker.define_func("host", "f", NOTHING, threading.Thread(target=faulthandler.enable).start)
        assert_traps(program.run, "unreachable")
    """)


def test_a_crash_of_the_hosts_is_still_told() -> None:
    """The handler that replaced wasmtime's ends the process, as it would otherwise."""
    ran = run_python(f"""{HOST}
import ctypes
faulthandler.disable()
program = Program(TRAPS["unreachable"])
faulthandler.enable()
for _ in range(2):
    assert_traps(program.run, "unreachable")
print("so far", flush=True)
ctypes.string_at(8)
""")
    assert (ran.returncode, ran.stdout) == (-11, "so far\n"), ran.stderr
    assert "Fatal Python error: Segmentation fault" in ran.stderr
    assert ran.stderr.count("string_at") == 1


def test_a_crash_of_the_hosts_without_any_handler() -> None:
    ran = run_python(f"""{HOST}
import ctypes
faulthandler.disable()
program = Program(TRAPS["unreachable"])
for one in (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE):
    signal.signal(one, signal.SIG_DFL)
assert_traps(program.run, "unreachable")
ctypes.string_at(8)
""")
    assert (ran.returncode, ran.stderr) == (-11, "")


def test_under_pytest(tmp_path: Path) -> None:
    """pytest enables faulthandler after conftest.py was imported, and disables it before what runs at exit."""
    (tmp_path / "conftest.py").write_text(
        "import atexit\n"
        "import wasmtime\n"
        "from greenctx.wasix import Program\n"
        """PROGRAM = Program(b'(module (func (export "_start") unreachable))')\n"""
        "def run_at_exit():\n"
        "    try:\n"
        "        PROGRAM.run()\n"
        "    except wasmtime.Trap:\n"
        "        print('trapped at exit')\n"
        "atexit.register(run_at_exit)\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import pytest, wasmtime\n"
        "from conftest import PROGRAM\n"
        "def test_it():\n"
        "    with pytest.raises(wasmtime.Trap):\n"
        "        PROGRAM.run()\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout
    assert ran.stdout.endswith("trapped at exit\n")
