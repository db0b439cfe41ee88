"""Runs Python, or the command line, in a new process, which may crash, and whose streams a test can see."""

from __future__ import annotations

import linecache
import subprocess
import sys
import textwrap
import threading
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

TIMEOUT = 500
"""Seconds, only for processes that hang. Less than pytest's own limit, so that a failure shows the output."""


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a script. A fatal error shows its Python stack on stderr."""
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-c", code, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def run_greenctx(
    *args: str | bytes | os.PathLike[str], stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line as a shell does."""
    command = [sys.executable, "-m", "greenctx", *args]
    return subprocess.run(command, input=stdin, env=env, capture_output=True, timeout=TIMEOUT, check=False)


EMBEDDER = """
import sys, threading
import wasmtime
from greenlet import greenlet
from greenctx import *
from greenctx.wasix import *
from wasmtime import Engine, Func, FuncType, Module, Store, ValType, WasmtimeError  # last: its own, plain Func

NOTHING = FuncType([], [])
engine = Engine()
store = Store(engine)
linker = Linker(engine)
linker.define_wasix()
env = ContextSwitchingEnvironment()

def load(text, into=store, by=linker):
    return by.instantiate(into, Module(by.engine, text)).exports(into)

def refused(error, function, *args):
    try:
        result = function(*args)
    except BaseException as raised:
        assert type(raised) is error, repr(raised)
        return str(raised)
    raise AssertionError(f"{error.__name__} was not raised, but {result!r} returned")
"""


def check_embedder(script: str) -> None:
    """Run a script after the one above; its last words must be heard, and stderr must be silent."""
    check_script(f"{EMBEDDER}\n{textwrap.dedent(script)}")


def check_script(script: str) -> None:
    """Run that script alone; its last words must be heard, and stderr must be silent."""
    ran = run_python(f"{textwrap.dedent(script)}\nprint('went right to the end')")
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    assert ran.stdout == "went right to the end\n"


def when_main_waits(act: Callable[[], object], *at: str) -> None:
    """Call it, in another thread, as soon as the main thread waits for a descriptor or a time for a guest.

    Or for what is called in a line with one of those texts.

    So a signal comes when the program is where it should be, on a slow machine as well, and not in a ``__del__``.
    """

    def waits() -> bool:
        frame = sys._current_frames()[threading.main_thread().ident or 0]
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        return any(text in line for text in at or ("poll.poll(", "time.sleep("))

    def watch() -> None:
        while not waits():
            time.sleep(0)
        act()

    threading.Thread(target=watch, daemon=True).start()


def with_enough_time(check: Callable[[float], object], seconds: float) -> None:
    """Check what ends by a limit of time, with that limit; where it fails, with longer ones.

    Before its end a program must reach some point, which takes longer on a slow machine.
    """
    while seconds < 10:
        try:
            check(seconds)
        except AssertionError:
            seconds *= 5
        else:
            return
    check(seconds)


HOST = """
import contextlib, faulthandler, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # what Python says of forks in a process that has threads
import wasmtime
from wasmtime import FuncType, ValType
from greenctx import *
from greenctx.wasix import *

NOTHING = FuncType([], [])
EMPTY = b'(module (func (export "_start")))'
SPIN = b'(module (func (export "_start") (loop (br 0))))'
TRAPS = {
    "unreachable": b'(module (func (export "_start") unreachable))',
    "out of bounds": b'(module (memory 1) (func (export "_start") (drop (i32.load (i32.const -4)))))',
    "divide by zero": b'(module (func (export "_start") (local i32) (drop (i32.div_u (i32.const 1) (local.get 0)))))',
    "stack exhausted": b'(module (func $f (export "_start") (call $f)))',
}

def assert_traps(run, said):
    try:
        run()
    except wasmtime.Trap as trap:
        assert said in str(trap), trap
    else:
        raise AssertionError(f"no trap: {said}")

def in_child(function, seconds=60):
    '''Fork; return what the function returns in the child (or the error's name), as text; fail if it hangs.'''
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = str(function())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    return end_of(child, read, seconds)

def end_of(child, read, seconds=60):
    end = time.monotonic() + seconds
    while not os.waitpid(child, os.WNOHANG)[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
    with open(read, "rb") as file:
        return file.read().decode()
"""


def check_host(script: str, before: str = "") -> None:
    """Run a script after the one above; its last words must be heard, and stderr must be silent.

    ``before`` comes first of all, before anything is imported.
    """
    check_script(f"{before}\n{HOST}\n{textwrap.dedent(script)}")


def need(package: str) -> None:
    """Skip the test if the package is not installed. (It is not imported: some packages change this process.)"""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
