"""Programs and environments in gevent's greenlets, which wait for its sockets: others run, and timeouts unwind."""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from guests.embedding import IMPORTS, signature
from leakcheck import assert_no_leak
from processes import check_script

from greenctx import ContextSwitchingEnvironment, current_environment
from greenctx.wasix import Program

gevent = pytest.importorskip("gevent")
socket = pytest.importorskip("gevent.socket")
event = pytest.importorskip("gevent.event")

if TYPE_CHECKING:
    from collections.abc import Callable

# A context and main receive in turns; the sum is the status.
RECEIVES = f"""(module {IMPORTS}
  (import "host" "receive" (func $receive (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") funcref (elem $receives))
  (global $sum (mut i32) (i32.const 0))
  (func $add (global.set $sum (i32.add (global.get $sum) (call $receive))))
  (func $receives (loop (call $add) (drop (call $switch (i64.const 0))) (br 0)))
  (func (export "_start")
    (if (call $create (i32.const 0) (i32.const 0)) (then unreachable))
    (drop (call $switch (i64.const 1)))
    (call $add)
    (drop (call $switch (i64.const 1)))
    (call $exit (global.get $sum))))
""".encode()


class TooLate(Exception):
    """The exception that a gevent.Timeout raises."""


def receiving(receive: Callable[[], int]) -> Program:
    program = Program(RECEIVES)
    program.linker.define_func("host", "receive", signature("-> i32"), receive)
    return program


def test_a_program_that_waits_for_a_socket() -> None:
    """Another greenlet, which runs meanwhile, sends the bytes that the guest waits for."""
    ours, theirs = socket.socketpair()
    log: list[object] = []

    def receive() -> int:
        me = current_environment().active_context_id
        log.append(("waits", me))
        [number] = ours.recv(1)
        log.append(("goes on", current_environment().active_context_id))
        return int(number)

    def send() -> None:
        for number in (1, 2, 3):
            log.append(number)
            theirs.send(bytes([number]))
            gevent.sleep(0)

    with closing(ours), closing(theirs):
        running = gevent.spawn(receiving(receive).run)
        gevent.sleep(0)
        sending = gevent.spawn(send)
        assert running.get() == 6
        sending.get()
    assert log.index(1) < log.index(("goes on", 1))
    assert [entry for entry in log if isinstance(entry, tuple)] == [
        (what, me) for me in (1, 0, 1) for what in ("waits", "goes on")
    ]


def test_many_programs_at_once() -> None:
    """A hundred of them, each in a greenlet, wait for a hundred sockets."""
    pairs = [socket.socketpair() for _ in range(100)]
    waiting = 0

    def run(number: int) -> int:
        def receive() -> int:
            nonlocal waiting
            waiting += 1
            [received] = pairs[number][0].recv(1)
            return int(received)

        return receiving(receive).run()

    def send() -> None:
        while waiting < 100:  # until all of them wait
            gevent.sleep(0)
        for number, (_, theirs) in enumerate(pairs):
            theirs.send(bytes([number]) * 3)

    try:
        sending = gevent.spawn(send)
        running = [gevent.spawn(run, number) for number in range(100)]
        assert [one.get() for one in running] == [3 * number for number in range(100)]
        sending.get()
    finally:
        for pair in pairs:
            for end in pair:
                end.close()


@pytest.mark.parametrize("how", ["timeout", "kill"])
def test_a_program_is_ended_while_a_context_waits(how: str) -> None:
    """The gevent.Timeout, or the kill, is raised in main; the context that waits for its socket is unwound there."""
    ours, theirs = socket.socketpair()
    log: list[str] = []
    waits = event.Event()

    def receive() -> int:
        try:
            waits.set()
            return len(ours.recv(1))
        finally:
            log.append(f"left {current_environment().active_context_id}")

    def run() -> int:
        if how == "kill":
            return program.run()
        with gevent.Timeout(0.01, TooLate):
            return program.run()

    with closing(ours), closing(theirs), receiving(receive) as program:
        running = gevent.spawn(run)
        waits.wait()
        if how == "kill":
            running.kill()
            assert isinstance(running.value, gevent.GreenletExit)
        else:
            with pytest.raises(TooLate):
                running.get()
    assert log == ["left 1"]


def test_a_timeout_in_the_context_that_waits() -> None:
    """The timeout is raised there; if a host function catches it, the program goes on."""
    ours, theirs = socket.socketpair()

    def receive() -> int:
        try:
            with gevent.Timeout(0.001, TooLate):
                return len(ours.recv(1))
        except TooLate:
            return 10

    with closing(ours), closing(theirs):
        assert gevent.spawn(receiving(receive).run).get() == 30


def test_an_environment_that_waits_for_a_socket() -> None:
    """While contexts in Python wait for a socket, other greenlets run; a gevent.Timeout unwinds every context."""
    ours, theirs = socket.socketpair()
    log: list[object] = []

    def main(env: ContextSwitchingEnvironment) -> None:
        def entrypoint() -> None:
            try:
                while True:
                    log.append(ours.recv(1))
                    env.switch_context(0)
            finally:
                log.append(f"left {env.active_context_id}")

        contexts = [env.create_context(entrypoint) for _ in range(2)]
        with gevent.Timeout(0.01, TooLate):
            while True:
                for context in contexts:
                    env.switch_context(context)

    with closing(ours), closing(theirs):
        env = ContextSwitchingEnvironment()
        running = gevent.spawn(env.run_main_context, main, env)
        for letter in (b"a", b"b", b"c"):
            theirs.send(letter)
            gevent.sleep(0)
        with pytest.raises(TooLate):
            running.get()
    assert log == [b"a", b"b", b"c", "left 1", "left 2"]


def test_guests_that_sleep_where_gevent_has_patched_time() -> None:
    """Others run meanwhile: guests sleep side by side with greenlets, which end the sleep."""
    check_script("""
        from gevent import monkey; monkey.patch_all()
        import gevent
        from greenctx.wasix import Program
        program = Program(b'''(module
          (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "_start")
            (i32.store (i32.const 16) (i32.const 1))                        ;; the monotonic clock
            (i64.store (i32.const 24) (i64.const 1000000000000))            ;; 1000 seconds
            (drop (call $poll (i32.const 0) (i32.const 128) (i32.const 1) (i32.const 256)))))''')
        sleeping = [gevent.spawn(program.run) for _ in range(10)]
        gevent.sleep(0)
        gevent.killall(sleeping)
        assert all(isinstance(one.value, gevent.GreenletExit) for one in sleeping)
    """)


def test_nothing_leaks() -> None:
    """A program that a timeout ends leaves nothing behind."""
    waits = event.Event()

    def receive() -> int:
        waits.wait()
        return 0

    def run() -> None:
        with suppress(TooLate), gevent.Timeout(0, TooLate):
            program.run()

    with receiving(receive) as program:
        assert_no_leak(lambda: gevent.spawn(run).get(), repeats=100, memory_slack=2**20)
