"""Interval timers: signals that come in the middle of a guest's code, at its calls, and while it waits."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from guests.compile import compile_guest
from guests.embedding import ENGINE, IMPORTS, signature
from guests.wasi_guest import WasiGuest
from wasmtime import Module, Store, Trap

from greenctx.errors import Deadlock, TimeLimitExceeded
from greenctx.wasix import GuestException, Limits, Linker, Program, Stdio, call
from greenctx.wasix._fibers.stores import state_of
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INVAL, INTR = 28, 27
ALARM = 14
MS = 1_000_000  # nanoseconds
HOUR = 3600 * 1000 * MS

POINTER = '(global $sp (export "__stack_pointer") (mut i32) (i32.const 4096))'
COUNT = "(i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))"
HANDLER = f'(func (export "__wasm_signal") (param i32) {COUNT} (call $handle))'
UNTIL_3 = "(loop $on (br_if $on (i32.lt_u (i32.load (i32.const 0)) (i32.const 3))))"
NAME = "(call $callback (i32.const 100) (i32.const 13))"


def guest(body: str, *, pointer: str = POINTER, handler: str = HANDLER, functions: str = "") -> bytes:
    """A guest whose handler counts the signals at address 0, and then calls the host's ``handle``."""
    return f"""(module {IMPORTS}
      (import "wasix_32v1" "callback_signal" (func $callback (param i32 i32)))
      (import "wasix_32v1" "proc_raise_interval" (func $timer (param i32 i64 i32) (result i32)))
      (import "wasix_32v1" "thread_sleep" (func $sleep (param i64) (result i32)))
      (import "wasix_32v1" "futex_wait" (func $wait (param i32 i32 i32 i32) (result i32)))
      (import "wasix_32v1" "fd_pipe" (func $pipe (param i32 i32) (result i32)))
      (import "wasix_32v1" "proc_exit2" (func $exit (param i32)))
      (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
      (import "host" "handle" (func $handle))
      (memory (export "memory") 1)
      (table (export "__indirect_function_table") 2 funcref)
      {pointer} {functions} {handler}
      (data (i32.const 100) "__wasm_signal")
      (func (export "_start") {body}))""".encode()


def repeat(nanoseconds: int = MS) -> str:
    return f"(drop (call $timer (i32.const {ALARM}) (i64.const {nanoseconds}) (i32.const 1)))"


def once(nanoseconds: int = MS, signal: int = ALARM) -> str:
    return f"(drop (call $timer (i32.const {signal}) (i64.const {nanoseconds}) (i32.const 0)))"


def program(code: bytes, handle: Callable[[], object] = lambda: None, **settings: Any) -> Program:
    made = Program(code, **{"stdin": b"", "stdout": io.BytesIO(), "limits": Limits(seconds=100), **settings})
    made.linker.define_func("host", "handle", signature("->"), lambda: handle() and None)
    return made


def run(code: bytes, handle: Callable[[], object] = lambda: None, **settings: Any) -> int:
    with program(code, handle, **settings) as made:
        return made.run()


# In the middle of the guest's code.

SPINS = guest(f"{NAME} {repeat()} {UNTIL_3} (call $exit (global.get $sp))")


def test_while_it_computes() -> None:
    """The handler is called in the middle of a loop, again and again; the stack pointer is as before."""
    handled: list[int] = []
    assert run(SPINS, lambda: handled.append(ALARM)) == 4096
    assert len(handled) >= 3


def test_on_an_event_loop() -> None:
    """Signals come in run_async, too, where a sleep awaits the event loop."""
    with program(SPINS) as spins:
        assert asyncio.run(spins.run_async()) == 4096
    sleeps = guest(f"{NAME} {once()} (drop (call $sleep (i64.const {20 * MS}))) (call $exit (i32.load (i32.const 0)))")
    with program(sleeps) as sleeping:
        assert asyncio.run(sleeping.run_async()) == 1


def test_in_another_thread() -> None:
    """The timer ends without anything else that ends epochs, such as Ctrl-C or a time limit."""
    statuses: list[int] = []
    with program(SPINS, limits=Limits()) as spins:
        thread = threading.Thread(target=lambda: statuses.append(spins.run()))
        thread.start()
        thread.join()
    assert statuses == [4096]


def test_once() -> None:
    """A timer that does not repeat is gone, and so is one that was set to no time: the next wait is a deadlock."""
    waits = "(drop (call $wait (i32.const 0) (i32.const {count}) (i32.const 200) (i32.const 300)))"
    once_and_again = guest(f"{NAME} {once()} {waits.format(count=0)} {waits.format(count=1)}")
    with pytest.raises(Deadlock):
        run(once_and_again)
    with pytest.raises(Deadlock):
        run(guest(f"{NAME} {repeat(HOUR)} {once(0)} {waits.format(count=0)}"))


def test_a_guest_without_a_stack_pointer() -> None:
    """Without a usable stack pointer the handler is called at the next call of the guest."""
    until_1 = "(loop $on (drop (call $sleep (i64.const 0))) (br_if $on (i32.eqz (i32.load (i32.const 0)))))"
    body = f"{NAME} {once()} {until_1}"
    for pointer in (
        "",
        '(global (export "__stack_pointer") i32 (i32.const 4096))',
        '(global (export "__stack_pointer") (mut f32) (f32.const 4096))',
    ):
        assert run(guest(f"{body} (call $exit (i32.load (i32.const 0)))", pointer=pointer)) == 1
        with pytest.raises(TimeLimitExceeded):
            run(guest(f"{NAME} {once()} {UNTIL_3}", pointer=pointer), limits=Limits(seconds=0.1))


def test_a_guest_that_holds_references() -> None:
    """The collector would not find references in the middle of the guest's code, so the handler is called at its next
    call."""
    holding = """(func $hold (param externref) (result externref) (call $handle) (local.get 0))
      (elem declare func $hold)"""
    holds = UNTIL_3.replace("(br_if", "(drop (call $hold (ref.null extern))) (br_if")
    assert run(guest(f"{NAME} {repeat()} {holds}", functions=holding)) == 0


@pytest.mark.parametrize("pointer", [-(2**31), -1, 0, 127, 128, 2**31 - 1])
def test_any_stack_pointer(pointer: int) -> None:
    """A guest's stack pointer may have any value."""
    body = f"(global.set $sp (i32.const {pointer})) {NAME} {repeat()} {UNTIL_3} (call $exit (global.get $sp))"
    for shadow_stack in (None, 4096):
        assert run(guest(body), shadow_stack=shadow_stack) == pointer % 2**32
    wide = '(global $sp (export "__stack_pointer") (mut i64) (i64.const -9223372036854775808))'
    assert run(guest(f"{NAME} {repeat()} {UNTIL_3} (call $exit (i32.wrap_i64 (global.get $sp)))", pointer=wide)) == 0


@pytest.mark.parametrize("settings", [{}, {"shadow_stack": 65536}], ids=["shared", "shadow"])
@pytest.mark.parametrize("optimized", ["-O1", "-O2"])
def test_locals_of_c(optimized: str, settings: dict[str, int]) -> None:
    """A handler leaves a C function's locals below the stack pointer alone, in main and in a context."""
    path = compile_guest("events", optimized, "-Wl,--export=__stack_pointer")
    with Program.from_file(path, argv=["events", "alarms"], limits=Limits(seconds=100), **settings) as alarms:  # type: ignore[arg-type]
        assert alarms.run() == 0


def test_a_handler_that_switches() -> None:
    """It runs in the context that the signal has found, and may switch, in the middle of that context's code."""
    functions = f"""(elem (i32.const 1) $context)
      (func $context {repeat()} {UNTIL_3} (drop (call $switch (i64.const 0))) unreachable)"""
    handler = f"""(func (export "__wasm_signal") (param i32) {COUNT}
      (if (i32.eq (i32.load (i32.const 0)) (i32.const 2)) (then (drop (call $switch (i64.const 0))))))"""
    body = f"""{NAME} (drop (call $create (i32.const 200) (i32.const 1)))
      (drop (call $switch (i64.const 1)))
      (i32.store (i32.const 4) (i32.load (i32.const 0)))
      (drop (call $switch (i64.const 1)))
      (call $exit (i32.load (i32.const 4)))"""
    for shadow_stack in (None, 4096):
        assert run(guest(body, handler=handler, functions=functions), shadow_stack=shadow_stack) == 2


def test_how_a_handler_ends() -> None:
    """An exit, a trap and what Python raises end the program from there, too; an exception ends it, uncaught."""
    spins = f"{NAME} {once()} (loop $on (br $on))"

    def fail() -> None:
        raise KeyError("from the handler")

    with pytest.raises(KeyError, match="from the handler"):
        run(guest(spins), fail)
    exits = '(func (export "__wasm_signal") (param i32) (call $exit (i32.add (local.get 0) (i32.const 200))))'
    assert run(guest(spins, handler=exits)) == 200 + ALARM
    traps = '(func (export "__wasm_signal") (param i32) unreachable)'
    with pytest.raises(Trap, match="unreachable"):
        run(guest(spins, handler=traps))
    throws = '(tag $t (param i32)) (func (export "__wasm_signal") (param i32) (throw $t (local.get 0)))'
    with pytest.raises(GuestException) as raised:
        run(guest(spins, handler=throws))
    assert raised.value.payload == (ALARM,)


def test_an_exception_at_a_call() -> None:
    """At a call the guest may catch what its handler throws, as what a host function throws."""
    throws = '(tag $t (param i32)) (func (export "__wasm_signal") (param i32) (throw $t (local.get 0)))'
    body = f"""{NAME} {once()}
      (block $caught (result i32)
        (try_table (catch $t $caught) (loop $on (drop (call $sleep (i64.const {MS}))) (br $on)))
        unreachable)
      (call $exit)"""
    assert run(guest(body, handler=throws, pointer="")) == ALARM


# While the guest waits.


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's descriptors, to read and to write."""
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with suppress(OSError):
            os.close(descriptor)


BUFFER = "(i32.store (i32.const 200) (i32.const 400)) (i32.store (i32.const 204) (i32.const 3))"


def test_while_it_reads(pipe: tuple[int, int]) -> None:
    """A read of stdin goes on after the handler, here with what the handler has had written."""
    body = f"""{NAME} {BUFFER} {once()}
      (drop (call $read (i32.const 0) (i32.const 200) (i32.const 1) (i32.const 300)))
      (call $exit (i32.load8_u (i32.const 402)))"""
    with os.fdopen(pipe[0], "rb", closefd=False) as stdin:
        assert run(guest(body), lambda: os.write(pipe[1], b"abc"), stdin=stdin) == ord("c")


def test_while_it_sleeps() -> None:
    """A sleep takes as long as asked for, however many signals come."""
    body = f"{NAME} {repeat(5 * MS)} (drop (call $sleep (i64.const {30 * MS}))) (call $exit (i32.load (i32.const 0)))"
    begin = time.monotonic()
    assert run(guest(body)) >= 1
    assert time.monotonic() - begin >= 0.03


POLL = """(i64.store (i32.const 600) (i64.const 7)) (i32.store8 (i32.const 608) (i32.const 1))
  (i32.store (i32.const 616) (i32.load (i32.const 500)))
  (drop (call $poll (i32.const 600) (i32.const 704) (i32.const 1) (i32.const 300)))"""


def test_while_it_polls() -> None:
    """A poll for an empty pipe is no deadlock while a timer is set: the handler may write to the pipe."""
    handler = f"""(func (export "__wasm_signal") (param i32) {COUNT}
      (if (i32.eq (i32.load (i32.const 0)) (i32.const 2))
        (then (drop (call $write (i32.load (i32.const 504)) (i32.const 200) (i32.const 1) (i32.const 304))))))"""
    opens = "(drop (call $pipe (i32.const 500) (i32.const 504)))"
    exits = "(call $exit (i32.add (i32.load (i32.const 300)) (i32.wrap_i64 (i64.load (i32.const 720)))))"
    body = f"{NAME} {BUFFER} {opens} {repeat()} {POLL} {exits}"
    assert run(guest(body, handler=handler)) == 1 + 3, "one event, three bytes"
    with pytest.raises(Deadlock):
        run(guest(f"{NAME} {BUFFER} {opens} {once()} {POLL}", handler=handler))


def test_a_poll_with_a_time() -> None:
    """The time of a poll goes on while handlers run."""
    clock = f"""(i64.store (i32.const 600) (i64.const 7)) (i32.store (i32.const 616) (i32.const 1))
      (i64.store (i32.const 624) (i64.const {20 * MS}))
      (drop (call $poll (i32.const 600) (i32.const 704) (i32.const 1) (i32.const 300)))"""
    assert run(guest(f"{NAME} {repeat(2 * MS)} {clock} (call $exit (i32.load (i32.const 300)))")) == 1


def test_while_it_waits_for_a_lock() -> None:
    """The handler may change what the guest waits for."""
    waits = "(drop (call $wait (i32.const 0) (i32.const 0) (i32.const 200) (i32.const 300)))"
    assert run(guest(f"{NAME} {once()} {waits} (call $exit (i32.load8_u (i32.const 300)))")) == 1
    timeout = f"(i32.store8 (i32.const 200) (i32.const 1)) (i64.store (i32.const 208) (i64.const {20 * MS}))"
    no_count = '(func (export "__wasm_signal") (param i32))'
    body = f"{NAME} {timeout} {repeat(2 * MS)} {waits} (call $exit (i32.load8_u (i32.const 300)))"
    assert run(guest(body, handler=no_count)) == 0


# The rules of timers.


def test_it_ends_with_the_run() -> None:
    """A timer that has not come yet neither keeps the program nor comes in the next run."""
    handled: list[int] = []

    def handle() -> None:
        handled.append(1)

    with program(guest(f"{NAME} {once(HOUR)}"), handle) as made:
        assert [made.run(), made.run()] == [0, 0]
    assert handled == []


def test_without_a_handler() -> None:
    """A signal that would end a program does so; a signal handled in vain is lost."""
    assert run(guest(f"{once(signal=2)} (loop $on (br $on))")) == INTR
    assert run(guest(f"{once(signal=9)} (loop $on (br $on))")) == INTR
    assert run(guest(f"{once()} (drop (call $sleep (i64.const {5 * MS}))) (call $exit (i32.const 3))")) == 3


def test_hostile_times() -> None:
    """A time of any length, a signal of any number, and many of them: what is no signal is inval."""
    guest = WasiGuest(Stdio(b"", io.BytesIO(), io.BytesIO()))
    for signal in (65, 255, 256 + ALARM, -1, -(2**31)):
        assert guest.call("proc_raise_interval", signal, 1, 0) == INVAL
    assert state_of(guest.store).timers is None
    assert guest.call("proc_raise_interval", 0, 0, 0) == 0
    for signal in range(1, 65):
        for nanoseconds in (-1, 2**63 - 1, -(2**63), HOUR):
            assert guest.call("proc_raise_interval", signal, nanoseconds, 1) == 0
    timers = process_of(guest.store).timers
    assert state_of(guest.store).timers is timers
    assert timers.left() > 3000
    for signal in range(1, 65):
        assert guest.call("proc_raise_interval", signal, 0, 1) == 0
    assert state_of(guest.store).timers is None


def test_as_often_as_can_be(pipe: tuple[int, int]) -> None:
    """A timer that has always come does not keep a guest from its work, nor its end from coming."""
    body = f"{NAME} {repeat(1)} {UNTIL_3} (call $exit (i32.const 5))"
    assert run(guest(body)) == 5
    reads = "(drop (call $read (i32.const 0) (i32.const 200) (i32.const 1) (i32.const 300)))"
    with os.fdopen(pipe[0], "rb", closefd=False) as stdin:
        made = partial(run, guest(f"{NAME} {BUFFER} {repeat(1)} {reads}"), stdin=stdin)
        with pytest.raises(TimeLimitExceeded):
            made(limits=Limits(seconds=0.2))
        os.write(pipe[1], b"abc")
        assert made() == 0


def test_a_store_without_epochs() -> None:
    """In an embedder's store, whose epochs do not end, signals come at calls and in waits."""
    linker = Linker(ENGINE)
    linker.define_wasix()
    linker.define_func("host", "handle", signature("->"), lambda: None)
    text = f"""(module
      (import "wasix_32v1" "callback_signal" (func $callback (param i32 i32)))
      (import "wasix_32v1" "proc_raise_interval" (func $timer (param i32 i64 i32) (result i32)))
      (import "wasix_32v1" "thread_sleep" (func $sleep (param i64) (result i32)))
      (import "host" "handle" (func $handle))
      (memory (export "memory") 1) (data (i32.const 100) "__wasm_signal") {HANDLER}
      (func (export "run") (result i32)
        {NAME} {repeat()} (drop (call $sleep (i64.const {2 * MS}))) (call $handle) (i32.load (i32.const 0))))"""
    store = Store(ENGINE)
    exports = linker.instantiate(store, Module(ENGINE, text)).exports(store)
    assert call(store, exports["run"]) >= 1  # type: ignore[arg-type]
