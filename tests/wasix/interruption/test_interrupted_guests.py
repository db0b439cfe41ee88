"""Ctrl-C and the time limit end a guest at any point. Every context unwinds, and the next program runs as usual.

benchmarks/test_epochs.py measures how quickly they do so.
"""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from guests.compile import TOOLCHAIN, compile_guest
from guests.embedding import IMPORTS, signature
from processes import TIMEOUT, check_embedder, run_python, with_enough_time

from greenctx import NoEnvironment, current_environment
from greenctx.wasix import Limits, Program, TimeLimitExceeded, call
from greenctx.wasix._clock.epochs import epoch_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wasmtime import Engine

    from greenctx.wasix import Caller
    from greenctx.wasix._native._fiber import EpochThread

MODES = ["spin", "spin-without-calls", "switch", "read", "sleep", "usleep", "nanosleep", "poll", "write"]

each_wait = pytest.mark.parametrize(
    ("mode", "where"),
    [(mode, []) for mode in MODES] + [(mode, ["context"]) for mode in ("spin", "read", "sleep", "write")],
    ids=lambda value: value if isinstance(value, str) else "".join(value) or "main",
)

each_shape = pytest.mark.parametrize(
    "flags",
    [pytest.param(("-O1",), id="wasi"), pytest.param(("-O1", *TOOLCHAIN), id="toolchain", marks=pytest.mark.long)],
)


def check_good_guest() -> None:
    stdout = io.BytesIO()
    good = Program.from_file(compile_guest("process"), argv=["process", "a"], stdout=stdout)
    assert good.run() == 0
    assert stdout.getvalue() == b"[process]\n[a]\n"


@contextmanager
def waiting(*args: str, terminal: bool = False) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command with those arguments, when its guest has said that it is ready; and the other end of its stdin.

    Its stdout has no reader.
    """
    ours, stdin = pty.openpty() if terminal else os.pipe()[::-1]
    unread, stdout = os.pipe()
    command = [sys.executable, "-m", "greenctx", "run", "--shared-stack", *args]
    streams: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": subprocess.PIPE}
    try:
        with subprocess.Popen(
            command, **streams, start_new_session=terminal, preexec_fn=_control if terminal else None
        ) as process:
            assert process.stderr is not None
            try:
                assert process.stderr.readline() == b"ready\n"
                yield process, ours
            finally:
                process.kill()
    finally:
        for descriptor in (ours, stdin, unread, stdout):
            os.close(descriptor)


def _control() -> None:
    """Make the terminal the one whose Ctrl-C is a signal to this process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """The exit status, and the rest of stderr."""
    assert process.stderr is not None
    rest = process.stderr.read()
    return process.wait(TIMEOUT), rest


@each_wait
@each_shape
def test_ctrl_c(mode: str, where: list[str], flags: tuple[str, ...]) -> None:
    """SIGINT ends the command with 130, without a word."""
    with waiting(str(compile_guest("waits", *flags)), mode, *where) as (process, _):
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, b"")


@pytest.mark.parametrize("mode", ["spin", "read", "poll", "sleep"])
def test_ctrl_c_on_a_terminal(mode: str) -> None:
    """The key does, on a terminal from which the guest reads, or does not."""
    with waiting(str(compile_guest("waits")), mode, terminal=True) as (process, terminal):
        os.write(terminal, b"\x03")
        assert ended(process) == (130, b"")


MISSED = """
import os, signal, sys, threading
from processes import when_main_waits
from greenctx.wasix import Program

when_main_waits(lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT))
with open(os.devnull, "wb") as stderr:
    program = Program.from_file(sys.argv[1], argv=["waits", sys.argv[2]], stderr=stderr)
    try:
        program.run()
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("mode", ["read", "sleep", "poll"])
def test_a_signal_that_ends_no_call_of_the_system(mode: str) -> None:
    """A signal to another thread, or right before the system call, is served soon, even if the guest waits for ever."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end), os.fdopen(write_end):
        command = [sys.executable, "-c", MISSED, str(compile_guest("waits")), mode]
        ran = subprocess.run(command, stdin=read_end, capture_output=True, timeout=TIMEOUT, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"interrupted\n", b"")


def test_reading_from_a_terminal() -> None:
    """Lines from a terminal come as they are typed, and Ctrl-D is the end."""
    with waiting(str(compile_guest("waits")), "read", terminal=True) as (process, terminal):
        os.write(terminal, b"a line\n\x04")
        assert ended(process) == (0, b"")


@each_wait
@each_shape
def test_timeout(mode: str, where: list[str], flags: tuple[str, ...]) -> None:
    """--timeout ends the command with 124, and one line on stderr."""
    guest = str(compile_guest("waits", *flags))

    def check(seconds: float) -> None:
        with waiting("--timeout", str(seconds), guest, mode, *where) as (process, _):
            message = f"greenctx: the program did not end within its limit of {seconds:g} seconds\n"
            assert ended(process) == (124, message.encode())

    with_enough_time(check, 0.1)


@pytest.mark.parametrize("mode", ["wait", "wait-in-context"])
def test_waiting_for_a_lock(mode: str) -> None:
    """The same holds for a lock with a very long timeout."""
    guest = str(compile_guest("toolchain", "-O1", *TOOLCHAIN))
    with waiting(guest, mode) as (process, _):
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, b"")

    def check(seconds: float) -> None:
        with waiting("--timeout", str(seconds), guest, mode) as (process, _):
            assert ended(process)[0] == 124

    with_enough_time(check, 0.1)


def test_timeout_before_anything_runs() -> None:
    """A limit already over when the guest starts ends it in its first loop."""
    with pytest.raises(TimeLimitExceeded, match="its limit of 0 seconds"):
        Program(b'(module (func (export "_start") (loop (br 0))))', limits=Limits(seconds=0)).run()
    check_good_guest()


ENDLESS = f"""(module {IMPORTS}
  (import "host" "wait" (func $wait))
  (import "host" "ready" (func $ready))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $waits $spins $switches))
  (func $waits (call $wait))
  (func $spins (call $ready) (loop (i32.store8 (i32.const 100) (i32.const 1)) (br 0)))
  (func $switches (call $ready)
    (loop (i32.store8 (i32.const 100) (i32.const 1)) (drop (call $switch (i64.const 0))) (br 0)))
  (func $start (param $entry i32)
    (if (call $create (i32.const 0) (local.get $entry)) (then unreachable))
    (if (call $switch (i64.load (i32.const 0))) (then unreachable)))
  (func (export "_start")
    (call $start (i32.const 0))
    (call $start (i32.const 0))
    MAIN))
"""
"""Two contexts wait in a host function; then something goes on for ever, and the byte at 100 says when."""

HOW = {
    "main spins": "(call $spins)",
    "a context spins": "(call $start (i32.const 1))",
    "they switch": "(call $start (i32.const 2)) (loop (drop (call $switch (i64.const 3))) (br 0))",
}
each_way = pytest.mark.parametrize("how", HOW)


class Endless:
    """A program that goes on for ever, and notes the `finally` blocks of its host functions."""

    def __init__(self, how: str, seconds: float | None, *, interrupt: bool) -> None:
        self.unwound: list[int] = []
        self.interrupt = interrupt
        self.thread: threading.Thread | None = None
        self.program = Program(ENDLESS.replace("MAIN", HOW[how]).encode(), limits=Limits(seconds=seconds))
        self.program.linker.define_func("host", "wait", signature("->"), self.wait)
        self.program.linker.define_func("host", "ready", signature("->"), self.ready, access_caller=True)

    def wait(self) -> None:
        env = current_environment()
        me = env.active_context_id
        try:
            env.switch_context(0)
        finally:
            self.unwound.append(me)

    def ready(self, caller: Caller) -> None:
        memory: Any = caller["memory"]
        flags = memory.data_ptr(caller)

        def interrupt() -> None:
            while not flags[100]:
                pass
            os.kill(os.getpid(), signal.SIGINT)

        if self.interrupt:
            self.thread = threading.Thread(target=interrupt)
            self.thread.start()


@each_way
def test_keyboard_interrupt(how: str) -> None:
    """Program.run raises KeyboardInterrupt; every context has been unwound; the same program can run again."""
    endless = Endless(how, None, interrupt=True)
    for _ in range(3):
        endless.unwound.clear()
        with pytest.raises(KeyboardInterrupt):
            endless.program.run()
        assert endless.unwound == [1, 2]
        assert endless.thread is not None
        endless.thread.join()
        with pytest.raises(NoEnvironment):
            current_environment()
        check_good_guest()


@each_way
@pytest.mark.parametrize("in_thread", [False, True], ids=["main thread", "other thread"])
def test_time_limit(how: str, in_thread: bool) -> None:
    """The time limit ends waits and loops, too, in every thread."""

    def check(seconds: float) -> None:
        endless = Endless(how, seconds, interrupt=False)
        errors: list[BaseException] = []
        unwound: list[list[int]] = []

        def run() -> None:
            for _ in range(2):
                endless.unwound.clear()
                try:
                    endless.program.run()
                except TimeLimitExceeded as error:
                    errors.append(error)
                unwound.append([*endless.unwound])
            check_good_guest()

        if in_thread:
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        else:
            run()
        assert unwound == [[1, 2]] * 2
        message = f"the program did not end within its limit of {seconds:g} seconds"
        assert [str(error) for error in errors] == [message] * 2

    with_enough_time(check, 0.05)


def test_time_limits_in_several_threads() -> None:
    """Each program has its own limit; a program without one goes on beside those that their limits end."""
    ended: list[float] = []
    good = threading.Event()

    def run(seconds: float) -> None:
        with pytest.raises(TimeLimitExceeded) as raised:
            Program(b'(module (func (export "_start") (loop (br 0))))', limits=Limits(seconds=seconds)).run()
        ended.append(raised.value.seconds)

    def wait() -> None:
        program = Program(b'(module (import "host" "wait" (func $wait)) (func (export "_start") (call $wait)))')
        program.linker.define_func("host", "wait", signature("->"), lambda: good.wait() and None)
        assert program.run() == 0

    waits = threading.Thread(target=wait)
    threads = [threading.Thread(target=run, args=(seconds,)) for seconds in (0.1, 0.15, 0.2)]
    for thread in [waits, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    good.set()
    waits.join()
    assert sorted(ended) == [0.1, 0.15, 0.2]


def test_time_limit_of_an_outer_program() -> None:
    """A program that a host function runs ends no later than the one that called it, and a limit of its own may be
    shorter."""
    endless = b'(module (func (export "_start") (loop (br 0))))'
    text = b'(module (import "host" "nest" (func $nest)) (func (export "_start") (loop (call $nest) (br 0))))'

    def check(seconds: float) -> None:
        seen: list[float] = []

        def nest() -> None:
            inner = Program(endless, limits=Limits(seconds=None if seen else seconds / 5))
            try:
                inner.run()
            except TimeLimitExceeded as error:
                seen.append(error.seconds)

        outer = Program(text, limits=Limits(seconds=seconds))
        outer.linker.define_func("host", "nest", signature("->"), nest)
        with pytest.raises(TimeLimitExceeded) as raised:
            outer.run()
        assert raised.value.seconds == seconds
        assert seen == [seconds / 5, seconds]

    with_enough_time(check, 0.2)
    with pytest.raises(TimeLimitExceeded, match=r"0\.01"):
        Program(endless, limits=Limits(seconds=0.01)).run()


def test_cleanup_that_goes_on_for_ever() -> None:
    """The limit also ends `finally` blocks that run after it, when they wait or call a guest."""

    def check(seconds: float) -> None:
        program = Program(
            f"""(module {IMPORTS} (import "host" "wait" (func $wait)) (memory (export "memory") 1)
              (table (export "__indirect_function_table") funcref (elem $waits))
              (func $waits (call $wait))
              (func (export "spin") (loop (br 0)))
              (func (export "_start")
                (drop (call $create (i32.const 0) (i32.const 0))) (drop (call $switch (i64.const 1)))
                (loop (br 0))))""".encode(),
            limits=Limits(seconds=seconds),
        )
        seen: list[str] = []

        def wait(caller: Caller) -> None:
            spin: Any = caller["spin"]
            try:
                current_environment().switch_context(0)
            finally:
                try:
                    call(caller, spin)
                except TimeLimitExceeded:
                    seen.append("again")

        program.linker.define_func("host", "wait", signature("->"), wait, access_caller=True)
        with pytest.raises(TimeLimitExceeded):
            program.run()
        assert seen == ["again"]

    with_enough_time(check, 0.05)
    check_good_guest()


def test_host_function_that_is_interrupted() -> None:
    """Ctrl-C in a host function is as in any Python code: it may be caught, and then the guest goes on."""
    caught: list[BaseException] = []

    def host() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            caught.append(error)

    program = Program(b'(module (import "host" "f" (func $f)) (func (export "_start") (call $f)))')
    program.linker.define_func("host", "f", signature("->"), host)
    assert program.run() == 0
    assert len(caught) == 1


def test_a_handler_that_does_not_raise() -> None:
    """A signal whose handler returns changes nothing: neither the guest's computing nor its waiting."""
    check_embedder(
        """
        import io, os, signal
        signals = []
        signal.signal(signal.SIGALRM, lambda *_: signals.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        program = Program(b'''(module
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 1)
          (func (export "_start") (local $left i32)
            (local.set $left (i32.const 100_000_000))
            (loop (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (i32.store (i32.const 16) (i32.const 1)) (i64.store (i32.const 24) (i64.const 100_000_000))
            (if (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)) (then unreachable))
            (call $exit (i32.const 5))))''')
        assert program.run() == 5
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert len(signals) > 5, signals
        """
    )


@pytest.mark.parametrize("run", ["program.run()", "ContextSwitchingEnvironment().run_main_context(program.run)"])
def test_interrupted_anywhere(run: str, long: bool) -> None:
    """A program bombarded with Ctrl-C from its start to its end raises KeyboardInterrupt or ends as it should; every
    context is unwound, no thread is left, and the store can be closed."""
    check_embedder(
        """
        import _thread, random, signal
        # wasmtime's objects have __del__ methods in Python, of which those of an object that was half made fail. An
        # interruption in one comes again, but for those outside of run().
        def unraisable(lost):
            assert lost.exc_type is KeyboardInterrupt or lost.object.__module__.startswith("wasmtime"), lost
        sys.unraisablehook = unraisable
        rng = random.Random(1)
        live = [0]
        def wait():
            live[0] += 1
            try:
                current_environment().switch_context(0)
            finally:
                live[0] -= 1
        program = Program(b'''(module
          (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
          (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
          (import "host" "wait" (func $wait)) (memory (export "memory") 1)
          (table (export "__indirect_function_table") funcref (elem $wait))
          (func (export "_start") (local $left i32)
            (local.set $left (i32.const 20))
            (loop
              (drop (call $create (i32.const 0) (i32.const 0)))
              (drop (call $switch (i64.load (i32.const 0))))
              (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))''',
          limits=Limits(seconds=1000))
        program.linker.define_func("host", "wait", NOTHING, wait)
        ends = {"in time": 0, "interrupted": 0}
        def bombard(*_):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, bombard)
        latest = 1e-3  # grows and shrinks until half of the runs end in time, however fast the machine is at the moment
        for _ in range(RUNS):
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, latest))
                    assert RUN == 0
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                ends["in time"] += 1
                latest /= 1.05
            except KeyboardInterrupt:
                ends["interrupted"] += 1
                latest *= 1.05
            assert live == [0], live
        assert min(ends.values()) > 20, ends
        assert program.run() == 0
        program.close()
        while _thread._count():
            pass
        """.replace("RUNS", "2000" if long else "200").replace("RUN", run)
    )


def test_epochs_tick_only_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs end only in the main thread (for signals), under a time limit, and for guests that switch contexts with
    the GIL held.
    """
    ticked: list[str] = []

    def start(engine: Engine) -> EpochThread:
        ticked.append(threading.current_thread().name)
        return epoch_thread(engine)

    def run(name: str, limits: Limits | None, imports: str = "") -> None:
        program = Program(f'(module {imports} (func (export "_start")))'.encode(), limits=limits)
        thread = threading.Thread(target=program.run, name=name)
        thread.start()
        thread.join()

    monkeypatch.setattr("greenctx.wasix._program.program.epoch_thread", start)
    switch = '(import "wasix_32v1" "context_switch" (func (param i64) (result i32)))'
    check_good_guest()
    run("unlimited", None)
    run("a limit of memory", Limits(memory=0))
    run("a limit of time", Limits(seconds=100))
    run("switches", None, switch)
    i32 = "i32 " * 5
    opens = f'(import "wasi_snapshot_preview1" "path_open" (func (param {i32} i64 i64 i32 i32) (result i32)))'
    run("switches, and may wait for files", None, switch + opens)
    assert ticked == ["MainThread", "a limit of time", "switches"]


def test_epoch_thread() -> None:
    """The thread of an EpochThread ends at its exit, or with the object, if an interruption prevents the exit."""
    program = Program(b'(module (func (export "_start")))')

    tasks = Path("/proc/self/task")  # where there is one, it counts the threads that Python does not know of, too
    before = len(list(tasks.iterdir())) if tasks.exists() else 0
    end = time.monotonic() + TIMEOUT

    def wait_for_threads(count: int) -> None:
        while tasks.exists() and len(list(tasks.iterdir())) != before + count:
            assert time.monotonic() < end

    ticking = epoch_thread(program._engine)
    for _ in range(3):
        assert not ticking.running
        with ticking:
            assert ticking.running
            wait_for_threads(1)
        wait_for_threads(0)
    ticking.__enter__()
    assert ticking.running
    del ticking
    wait_for_threads(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_fork_in_a_host_function() -> None:
    """The child has no thread that ends epochs. Its program ends all the same, as the parent's does."""
    ran = run_python("""
import os, sys, warnings
from wasmtime import FuncType
from greenctx.wasix import Program

warnings.simplefilter("ignore")  # that there are threads
child = None

def fork():
    global child
    child = os.fork()

program = Program(b'(module (import "host" "fork" (func $fork)) (func (export "_start") (call $fork)))')
program.linker.define_func("host", "fork", FuncType([], []), fork)
status = program.run()
if child:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("parent, child", status)
os._exit(status) if child == 0 else sys.exit(status)
""")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("parent, child 0\n", "", 0)


@pytest.mark.parametrize("patched", ["before", "after"])
def test_gevent(patched: str) -> None:
    """Where gevent has replaced threads by greenlets, before greenctx is imported or after, it is all the same."""
    patch = "from gevent import monkey, spawn; monkey.patch_all()"
    first, then = (patch, "") if patched == "before" else ("", patch)
    ran = run_python(f"""{first}
from greenctx.wasix import Limits, Program, TimeLimitExceeded
{then}
import _thread, os, signal, sys
from wasmtime import FuncType
limited = Program(b'(module (func (export "_start") (loop (br 0))))', limits=Limits(seconds=0.1))
def run():
    try:
        limited.run()
    except TimeLimitExceeded:
        print("the time limit")
def ready(caller):
    flags = caller["memory"].data_ptr(caller)
    def interrupt():
        while not flags[0]:
            pass
        os.kill(os.getpid(), signal.SIGINT)
    monkey.get_original("_thread", "start_new_thread")(interrupt, ())
endless = Program(b'''(module (import "host" "ready" (func $ready)) (memory (export "memory") 1)
  (func (export "_start") (call $ready) (loop (i32.store8 (i32.const 0) (i32.const 1)) (br 0))))''')
endless.linker.define_func("host", "ready", FuncType([], []), ready, access_caller=True)
def wait():
    try:
        endless.run()
    except KeyboardInterrupt:
        print("Ctrl-C")
for function in (run, wait):
    function()
    spawn(function).join()
""")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("the time limit\nthe time limit\nCtrl-C\nCtrl-C\n", "", 0)
