"""WASIX's calls beyond contexts, one by one: what they store, and the errno of everything that can be wrong."""

from __future__ import annotations

import io
import os
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from guests.embedding import signature
from guests.wasi_guest import BUFFERS, END, ENGINE, IOVECS, PATH, RESULT, WasiGuest
from wasmtime import Module, Store, WasiConfig, WasmtimeError

from greenctx import ContextSwitchingEnvironment
from greenctx.errors import Deadlock, GuestExit, TimeLimitExceeded, WasiNotSet
from greenctx.wasix import Limits, Linker, Program, Stdio, call
from greenctx.wasix._clock.deadline import Deadline
from greenctx.wasix._files.pipes import ATOMIC, CAPACITY
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wasmtime import Func

AGAIN, BADF, FAULT, INVAL, MFILE, NAMETOOLONG, NOENT, NOTDIR = 6, 8, 21, 28, 33, 37, 44, 54
NOTSUP, PIPE, RANGE, SPIPE, MEMVIOLATION = 58, 64, 68, 70, 78
OTHER_RESULT = RESULT + 8
FUTEX, TIMEOUT = 128, 136
READ, WRITE = 1, 2  # of subscriptions
CLOCK = 0
FD_READ, FD_WRITE, SEEK = 1 << 1, 1 << 6, 1 << 2  # rights
CREATE = 1
AT_FDCWD = -2
HOSTILE = [END, END - 1, 2**31 - 1, 2**31, 2**32 - 1, -1, -4, -16, -(2**31)]
"""Pointers to what does not fit into the memory from there."""


@pytest.fixture
def stdout() -> io.BytesIO:
    return io.BytesIO()


@pytest.fixture
def guest(tmp_path: Path, stdout: io.BytesIO) -> WasiGuest:
    return WasiGuest(Stdio(b"input", stdout, io.BytesIO()), str(tmp_path))


def with_preopens(**preopens: Path) -> WasiGuest:
    return WasiGuest(Stdio(b"", io.BytesIO(), io.BytesIO()), preopens={k: str(v) for k, v in preopens.items()})


# Whatever is wrong.

HOSTILE_CALLS: dict[str, list[list[Any]]] = {
    "chdir": [["bad", 16]],
    "fd_dup": [[1, "bad"]],
    "fd_dup2": [[1, 0, 0, "bad"]],
    "fd_fdflags_get": [[1, "bad"]],
    "fd_pipe": [["bad", RESULT], [RESULT, "bad"]],
    "futex_wait": [["bad", 0, TIMEOUT, RESULT], [FUTEX, 0, "bad", RESULT], [FUTEX, 0, TIMEOUT, "bad byte"]],
    "futex_wake": [[FUTEX, "bad byte"]],
    "futex_wake_all": [[FUTEX, "bad byte"]],
    "getcwd": [["bad", RESULT], [BUFFERS, "bad"]],
    "path_open2": [[3, 0, "bad", 16, 0, 0, 0, 0, 0, RESULT], [3, 0, PATH, 1, 0, 0, 0, 0, 0, "bad"]],
    "path_filestat_get": [[3, 0, "bad", 16, BUFFERS]],
    "proc_id": [["bad"]],
    "proc_signals_sizes_get": [["bad"]],
}


@pytest.mark.parametrize(("name", "arguments"), [(name, one) for name, these in HOSTILE_CALLS.items() for one in these])
@pytest.mark.parametrize("pointer", HOSTILE)
def test_hostile_pointers(name: str, arguments: list[Any], pointer: int, guest: WasiGuest) -> None:
    """A pointer that leads out of the memory, wherever it points, is memviolation; nothing was written or done."""
    if pointer == END - 1 and "bad byte" in arguments:
        pytest.skip("a byte fits there")
    guest.put(RESULT, (100).to_bytes(4, "little"))
    guest.put(PATH, b".")
    before = guest.get(0, END)
    errno = guest.call(name, *(pointer if isinstance(one, str) else one for one in arguments))
    expected = FAULT if name == "path_filestat_get" else MEMVIOLATION
    assert (errno, guest.get(0, END) == before) == (expected, True)
    assert guest.call("fd_pipe", RESULT, OTHER_RESULT) == 0
    assert guest.result() == 1 << 20, "a descriptor was given out"


@pytest.mark.parametrize("length", [END, 2**31 - 1, 2**31, -1, 4097, 5000])
@pytest.mark.parametrize(
    ("name", "before", "after"), [("chdir", [], []), ("path_open2", [3, 0], [0, 0, 0, 0, 0, RESULT])]
)
def test_hostile_lengths(name: str, before: list[int], after: list[int], length: int, guest: WasiGuest) -> None:
    """A path longer than the memory is memviolation; a path longer than the limit is nametoolong."""
    guest.put(PATH, b"x" * 6000)
    assert guest.call(name, *before, PATH, length, *after) == (NAMETOOLONG if length in (4097, 5000) else MEMVIOLATION)


@pytest.mark.parametrize("fd", [-1, -(2**31), 2**31 - 1, 99, 1 << 20, (1 << 20) + 1])
def test_bad_descriptors(fd: int, guest: WasiGuest) -> None:
    """A closed descriptor is badf."""
    for name, *arguments in [
        ("fd_dup", RESULT),
        ("fd_dup2", 0, 0, RESULT),
        ("fd_fdflags_get", RESULT),
        ("fd_fdflags_set", 1),
        ("fd_fdstat_get", BUFFERS),
        ("fd_fdstat_set_flags", 0),
        ("fd_filestat_get", BUFFERS),
        ("fd_seek", 0, 0, BUFFERS),
        ("fd_tell", BUFFERS),
        ("fd_renumber", 1),
        ("fd_close",),
    ]:
        assert guest.call(cast("str", name), fd, *cast("list[int]", arguments)) == BADF, name
    assert guest.call("fd_renumber", 1, fd) == BADF
    assert guest.read(fd, 1) == BADF
    assert guest.write(fd, b"x") == -BADF
    assert guest.poll((7, READ, fd & 0xFFFFFFFF)) == BADF


# The process.


def test_process(guest: WasiGuest) -> None:
    """Nothing is said about signals, and the process has an id."""
    guest.put(RESULT, b"\xff" * 8)
    assert guest.call("proc_signals_sizes_get", RESULT) == 0
    assert guest.call("proc_signals_get", OTHER_RESULT) == 0
    assert guest.get(RESULT, 8) == b"\0\0\0\0\xff\xff\xff\xff"
    assert guest.call("proc_id", RESULT) == 0
    assert guest.result() == 1


@pytest.mark.parametrize("status", [0, 1, 126, 255, 256, 2**32 - 1])
def test_exit(status: int) -> None:
    """proc_exit2 ends the program with that status. thread_exit ends its only thread, and so the program, with 0."""
    for name, expected in (("proc_exit2", status), ("thread_exit", 0)):
        text = f"""(module (import "wasix_32v1" "{name}" (func $exit (param i32)))
            (func (export "_start") (call $exit (i32.const {status})) unreachable))"""
        assert Program(text.encode()).run() == expected


def test_threads_cannot_be_started() -> None:
    """Starting a thread returns a negative number, as in WASI's threads."""
    text = """(module (import "wasi" "thread-spawn" (func $spawn (param i32) (result i32)))
        (import "wasix_32v1" "proc_exit2" (func $exit (param i32)))
        (func (export "_start") (call $exit (call $spawn (i32.const 0)))))"""
    assert Program(text.encode()).run() == 2**32 - AGAIN


# Signals.

SIGNALS = """(module
    (import "wasix_32v1" "callback_signal" (func $callback (param i32 i32)))
    (import "wasix_32v1" "thread_signal" (func $signal (param i32 i32) (result i32)))
    (import "host" "handle" (func $handle (param i32)))
    (memory (export "memory") 1) (data (i32.const 0) "__wasm_signalother_blocked")
    (func (export "signal") (param i32) (result i32) (call $signal (i32.const 0) (local.get 0)))
    (func (export "name") (param i32 i32) (call $callback (local.get 0) (local.get 1)))
    {}
    (func (export "other") (param i32) (call $handle (i32.sub (i32.const 0) (local.get 0)))))"""
HANDLER = '(func (export "__wasm_signal") (param i32) (call $handle (local.get 0)))'


class Signalled:
    """A guest that handles signals by calling back."""

    def __init__(self, handler: str = HANDLER) -> None:
        self.store, self.linker, self.handled = Store(ENGINE), Linker(ENGINE), list[int]()
        self.linker.define_wasix()
        self.handle: Callable[[int], object] = self.handled.append
        self.linker.define_func("host", "handle", signature("i32 ->"), lambda signal: self.handle(signal) and None)
        module = Module(ENGINE, SIGNALS.format(handler))
        self.exports = self.linker.instantiate(self.store, module).exports(self.store)
        self.call("name", 0, 13)

    def call(self, name: str, *args: int) -> Any:
        return call(self.store, cast("Func", self.exports[name]), *args)


def test_signals() -> None:
    """The handler is called before the call returns; 0 is no signal, and there are 64."""
    guest = Signalled()
    assert [guest.call("signal", signal) for signal in (1, 64, 6, 6, 0)] == [0] * 5
    assert guest.handled == [1, 64, 6, 6]
    with pytest.raises(GuestExit):
        guest.call("signal", 9)
    assert [guest.call("signal", signal) for signal in (65, 256 + 6, -1, -(2**31))] == [INVAL] * 4
    assert guest.handled == [1, 64, 6, 6]


def test_name_of_the_handler() -> None:
    """The guest names its handler. While no function has that name, signals wait, once each, in order."""
    guest = Signalled()
    guest.call("name", 13, 5)
    guest.call("signal", 3)
    assert guest.handled == [-3]
    guest.call("name", 18, 8)
    assert [guest.call("signal", signal) for signal in (5, 4, 5)] == [0] * 3
    assert guest.handled == [-3]
    guest.call("name", 0, 13)
    assert guest.handled == [-3, 5, 4]
    for pointer, length in ((65536, 1), (-1, 13), (0, -1), (0, 2**31 - 1)):
        guest.call("name", pointer, length)  # which changes nothing
    guest.call("signal", 7)
    assert guest.handled == [-3, 5, 4, 7]


@pytest.mark.parametrize(
    "handler",
    [
        "",
        '(func (export "__wasm_signal"))',
        '(func (export "__wasm_signal") (param i64))',
        '(func (export "__wasm_signal") (param i32) (result i32) (i32.const 0))',
        '(func (export "__wasm_signal") (param v128))',
        '(global (export "__wasm_signal") i32 (i32.const 0))',
    ],
)
def test_no_handler(handler: str) -> None:
    """An export that cannot be called with a signal is not a handler."""
    guest = Signalled(handler)
    assert guest.call("signal", 6) == 0
    assert guest.handled == []


def test_handler_in_a_context() -> None:
    """A handler runs in the context that raised the signal, may switch in its middle, and ends with its context."""
    guest, env = Signalled(), ContextSwitchingEnvironment()
    told: list[object] = []

    def handle(signal: int) -> None:
        told.append((env.active_context_id, signal))
        try:
            env.switch_context(0)
            told.append("goes on")
        finally:
            told.append("done")

    def main() -> None:
        context = env.create_context(lambda: guest.call("signal", 10))
        env.switch_context(context)
        assert told == [(1, 10)]
        env.destroy_context(context)
        assert told == [(1, 10), "done"]

    guest.handle = handle
    env.run_main_context(main)


def test_signal_belongs_to_its_context() -> None:
    """While one context handles a signal another one may handle the same signal. A signal waits in its own context."""
    guest, env = Signalled(), ContextSwitchingEnvironment()
    told: list[object] = []

    def handle(signal: int) -> None:
        told.append((env.active_context_id, signal))
        if len(told) == 1:
            guest.call("signal", 10)
            env.switch_context(0)

    def main() -> None:
        env.switch_context(env.create_context(raise_and_wait))
        guest.call("signal", 8)
        assert told == [(1, 10), (0, 8)]
        guest.call("signal", 10)
        assert told == [(1, 10), (0, 8), (0, 10)]
        env.switch_context(1)
        assert told == [(1, 10), (0, 8), (0, 10), (1, 10)]
        env.switch_context(env.create_context(block_and_raise))
        guest.call("name", 0, 13)
        assert told[4:] == []
        env.switch_context(2)
        assert told[4:] == [(2, 5)]

    def raise_and_wait() -> None:
        guest.call("signal", 10)
        env.switch_context(0)

    def block_and_raise() -> None:
        guest.call("name", 18, 8)
        guest.call("signal", 5)
        env.switch_context(0)
        guest.call("name", 0, 13)
        env.switch_context(0)

    guest.handle = handle
    env.run_main_context(main)


def test_handler_that_raises_signals() -> None:
    """A handler may raise other signals, which are handled within it. Its own signal is handled once more after it has
    returned. An endless chain ends as every loop does."""
    guest = Signalled()

    def handle(signal: int) -> None:
        guest.handled.append(signal)
        if len(guest.handled) < 6:
            guest.call("signal", 3)
            guest.call("signal", 4)
        guest.handled.append(-signal)

    guest.handle = handle
    guest.call("signal", 3)
    assert guest.handled == [3, 4, -4, 4, -4, 4, -4, -3, 3, -3]
    text = """(module (import "wasix_32v1" "thread_signal" (func $signal (param i32 i32) (result i32)))
        (import "wasix_32v1" "callback_signal" (func $callback (param i32 i32)))
        (memory (export "memory") 1) (data (i32.const 0) "__wasm_signal")
        (func (export "__wasm_signal") (param i32) (drop (call $signal (i32.const 0) (local.get 0))))
        (func (export "_start")
          (call $callback (i32.const 0) (i32.const 13)) (drop (call $signal (i32.const 0) (i32.const 1)))))"""
    with pytest.raises(TimeLimitExceeded):
        Program(text.encode(), limits=Limits(seconds=0.2)).run()


# Locks.


def wait(guest: WasiGuest, expected: int, timeout: tuple[int, int]) -> int:
    guest.put(TIMEOUT, timeout[0].to_bytes(8, "little") + timeout[1].to_bytes(8, "little"))
    return guest.call("futex_wait", FUTEX, expected, TIMEOUT, RESULT)


def test_another_value_ends_a_wait(guest: WasiGuest) -> None:
    """At once, whatever the timeout: so it was woken. Only the one byte is written."""
    guest.put(FUTEX, b"\xff\xff\xff\xff")
    guest.put(RESULT, b"\x77\x77")
    assert wait(guest, 0, (0, 0)) == 0
    assert guest.get(RESULT, 2) == b"\x01\x77"


def test_timeout_ends_a_wait(guest: WasiGuest) -> None:
    """After so many nanoseconds, and so it was not woken."""
    guest.put(FUTEX, b"\xff\xff\xff\xff")
    guest.put(RESULT, b"\x77\x77")
    begin = time.monotonic()
    assert wait(guest, -1, (1, 20_000_000)) == 0
    assert time.monotonic() - begin >= 0.02
    assert guest.get(RESULT, 2) == b"\x00\x77"


def test_time_limit_ends_a_wait(guest: WasiGuest) -> None:
    """However long its timeout is."""
    guest.limit(Deadline(0.05))
    with pytest.raises(TimeLimitExceeded):
        wait(guest, 0, (1, 2**64 - 1))


def test_nobody_can_end_a_wait(guest: WasiGuest) -> None:
    """Without a timeout it is an error that names the context, and the guest may go on."""
    with pytest.raises(Deadlock, match="context 0 was about to wait for the lock or condition at 0x80") as raised:
        wait(guest, 0, (0, 5))
    assert (raised.value.context_id, raised.value.what) == (0, "for the lock or condition at 0x80")
    env = ContextSwitchingEnvironment()

    def main() -> None:
        env.create_context(lambda: wait(guest, 0, (0, 0)))
        env.create_context(lambda: wait(guest, 0, (0, 0)))
        env.switch_context(2)

    with pytest.raises(Deadlock, match="context 2 was about to wait"):
        env.run_main_context(main)
    assert wait(guest, 1, (0, 0)) == 0


@pytest.mark.parametrize("name", ["futex_wake", "futex_wake_all"])
def test_nobody_is_woken(name: str, guest: WasiGuest) -> None:
    """No context waits, so waking reports none."""
    guest.put(RESULT, b"\x77\x77")
    assert guest.call(name, FUTEX, RESULT) == 0
    assert guest.get(RESULT, 2) == b"\x00\x77"


# Pipes.


@pytest.fixture
def pipe(guest: WasiGuest) -> tuple[int, int]:
    assert guest.call("fd_pipe", RESULT, OTHER_RESULT) == 0
    return guest.result(), guest.result(OTHER_RESULT)


def test_pipe(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """Written bytes are read in order, through any number of buffers. An empty pipe returns EAGAIN, because only
    another context could write, and the guest has to switch to it."""
    read, write = pipe
    assert guest.read(read, 10) == AGAIN
    assert guest.read(read, 0) == b""
    assert guest.write(write, b"abc", b"", b"def") == 6
    assert guest.read(read, 2, 0, 2) == b"abcd"
    assert guest.write(write, b"g") == 1
    assert guest.read(read, 100) == b"efg"
    assert guest.read(read, 1) == AGAIN
    assert guest.read(write, 1) == BADF
    assert guest.write(read, b"x") == -BADF


def test_full_pipe(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """A pipe holds so much. Short writes are all or nothing."""
    read, write = pipe
    much = bytes(range(256)) * 200
    assert guest.write(write, much) == len(much)
    assert guest.write(write, much) == CAPACITY - len(much)
    assert guest.write(write, b"x") == -AGAIN
    assert guest.read(read, ATOMIC - 1) == much[: ATOMIC - 1]
    assert guest.write(write, b"y" * ATOMIC) == -AGAIN
    assert guest.write(write, b"y" * (ATOMIC + 1)) == ATOMIC - 1
    assert guest.read(read, 1) == much[ATOMIC - 1 : ATOMIC]


def test_closed_pipe(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """A pipe without a writer ends once it is empty. Writing to one without a reader raises SIGPIPE; EPIPE."""
    process_of(guest.store).signals.handler = "none, so signals are blocked"
    read, write = pipe
    assert guest.write(write, b"left") == 4
    assert guest.call("fd_close", write) == 0
    assert guest.call("fd_close", write) == BADF
    assert guest.read(read, 3) == b"lef"
    assert guest.read(read, 3) == b"t"
    assert guest.read(read, 3) == b""
    assert guest.call("fd_close", read) == 0
    assert guest.call("fd_pipe", RESULT, OTHER_RESULT) == 0
    read, write = guest.result(), guest.result(OTHER_RESULT)
    assert guest.call("fd_close", read) == 0
    assert guest.write(write, b"x") == -PIPE
    process_of(guest.store).signals.handler = None
    with pytest.raises(GuestExit) as exit:
        guest.write(write, b"x")
    assert exit.value.status == PIPE


def test_what_a_pipe_is(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """A pipe is of an unknown type, can be read or written, and has no positions."""
    for fd, right, other in ((pipe[0], FD_READ, FD_WRITE), (pipe[1], FD_WRITE, FD_READ)):
        guest.put(BUFFERS, b"\xff" * 64)
        assert guest.call("fd_fdstat_get", fd, BUFFERS) == 0
        kind, flags, rights = guest.get(BUFFERS, 1)[0], guest.get(BUFFERS + 2, 2), guest.get(BUFFERS + 8, 8)
        assert (kind, flags) == (0, b"\0\0")
        assert int.from_bytes(rights, "little") & (right | other | SEEK) == right
        assert guest.call("fd_fdstat_set_flags", fd, 4) == 0
        assert guest.call("fd_fdstat_get", fd, BUFFERS) == 0
        assert guest.get(BUFFERS + 2, 2) == b"\4\0"
        assert guest.call("fd_filestat_get", fd, BUFFERS) == 0
        assert guest.get(BUFFERS + 16, 1) == b"\0"
        assert guest.call("fd_seek", fd, 0, 1, BUFFERS) == SPIPE
        assert guest.call("fd_tell", fd, BUFFERS) == SPIPE
        for name in ("fd_fdstat_get", "fd_filestat_get"):
            assert guest.call(name, fd, END - 8) == FAULT
        guest.put(PATH, b"file")
        assert guest.call("path_open2", fd, 0, PATH, 4, 0, 0, 0, 0, 0, RESULT) == NOTDIR


def test_poll_of_pipes(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """Both ends are ready when they can be used, even if only to learn that the other end is closed. A wait for nothing
    but pipes, none of them ready, is a deadlock; with a timeout it ends."""
    read, write = pipe
    assert guest.poll((1, READ, read), (2, WRITE, write)) == [(2, 0, WRITE)]
    with pytest.raises(Deadlock, match="context 0 was about to wait for a pipe"):
        guest.poll((1, READ, read))
    assert guest.poll((1, READ, read), (3, CLOCK, 1, 1_000_000)) == [(3, 0, CLOCK)]
    assert guest.poll((1, WRITE, read)) == guest.poll((2, READ, write)) == BADF
    assert guest.write(write, b"abc") == 3
    assert guest.poll((1, READ, read)) == [(1, 0, READ)]
    assert guest.get(8192 + 16, 10) == b"\3" + bytes(9)  # so many bytes, and no hangup
    assert guest.write(write, bytes(CAPACITY - 3 - ATOMIC + 1)) > 0
    with pytest.raises(Deadlock):
        guest.poll((2, WRITE, write))
    assert guest.call("fd_close", write) == 0
    guest.read(read, CAPACITY - 1)
    assert guest.poll((1, READ, read)) == [(1, 0, READ)]
    assert guest.get(8192 + 16, 10) == bytes(8) + b"\1\0"  # nothing, without a reader
    assert guest.call("fd_pipe", RESULT, OTHER_RESULT) == 0
    assert guest.call("fd_close", guest.result()) == 0
    assert guest.poll((2, WRITE, guest.result(OTHER_RESULT))) == [(2, 0, WRITE)]


def test_many_pipes(guest: WasiGuest) -> None:
    """There is a limit to them, below which numbers are used again."""
    for _ in range(512):
        assert guest.call("fd_pipe", RESULT, OTHER_RESULT) == 0
    last = guest.result()
    assert guest.call("fd_pipe", RESULT, OTHER_RESULT) == MFILE
    assert guest.call("fd_dup", 1, RESULT) == MFILE
    assert guest.call("fd_close", last) == 0
    assert guest.call("fd_dup", 1, RESULT) == 0
    assert guest.result() == last


def test_without_streams_of_our_own() -> None:
    """Where reading and writing is wasmtime's there are no pipes."""
    guest = WasiGuest(None)
    assert guest.call("fd_pipe", RESULT, OTHER_RESULT) == NOTSUP
    assert guest.call("fd_dup", 1, RESULT) == NOTSUP
    assert guest.call("fd_dup", 77, RESULT) == BADF


def test_store_without_wasi() -> None:
    """Calls that ask wasmtime's WASI are refused where that would be the end of the process."""
    linker, store = Linker(ENGINE), Store(ENGINE)
    linker.define_wasi(Stdio(b""))
    linker.define_wasix()
    text = """(module (import "wasix_32v1" "fd_fdflags_set" (func $set (param i32 i32) (result i32)))
        (memory (export "memory") 1) (func (export "f") (drop (call $set (i32.const 9) (i32.const 0)))))"""
    func = cast("Func", linker.instantiate(store, Module(ENGINE, text)).exports(store)["f"])
    with pytest.raises(WasiNotSet):
        call(store, func)


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("wasi_first", [True, False])
def test_order_of_definitions(wasi_first: bool, files: bool) -> None:
    """Whatever is defined first, WASI's calls know of pipes; unless WASIX's calls about files are left out."""
    linker, store = Linker(ENGINE), Store(ENGINE)
    store.set_wasi(WasiConfig())
    if wasi_first:
        linker.define_wasi(Stdio(b""))
    linker.define_wasix(files=files)
    if not wasi_first:
        linker.define_wasi(Stdio(b""))
    assert not linker.allow_shadowing
    module = Module(
        ENGINE,
        """(module (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
        (import "wasix_32v1" "fd_pipe" (func $pipe (param i32 i32) (result i32))) (memory (export "memory") 1)
        (func (export "f") (result i32) (drop (call $pipe (i32.const 0) (i32.const 4)))
          (call $seek (i32.load (i32.const 0)) (i64.const 0) (i32.const 0) (i32.const 8))))""",
    )
    if files:
        func = cast("Func", linker.instantiate(store, module).exports(store)["f"])
        assert call(store, func) == SPIPE
    else:
        with pytest.raises(WasmtimeError, match="fd_pipe"):
            linker.instantiate(store, module)


# Descriptors.


def test_duplicates(guest: WasiGuest, pipe: tuple[int, int], stdout: io.BytesIO) -> None:
    """The duplicate is the same thing; that stays open until all are closed."""
    read, write = pipe
    assert guest.call("fd_dup2", write, 3_000_000, 1, RESULT) == 0
    duplicate = guest.result()
    assert duplicate == 3_000_000
    assert guest.call("fd_fdflags_get", duplicate, RESULT) == 0
    assert guest.get(RESULT, 2) == b"\1\0"
    assert guest.call("fd_close", write) == 0
    assert guest.write(duplicate, b"through") == 7
    assert guest.read(read, 10) == b"through"
    assert guest.read(read, 10) == AGAIN
    assert guest.call("fd_close", duplicate) == 0
    assert guest.read(read, 10) == b""
    assert guest.call("fd_dup", 1, RESULT) == 0
    duplicate = guest.result()
    assert guest.write(duplicate, b"out") == 3
    assert stdout.getvalue() == b"out"
    for name in ("fd_fdstat_get", "fd_filestat_get"):
        told = []
        for fd in (1, duplicate):
            assert guest.call(name, fd, BUFFERS) == 0
            told.append(guest.get(BUFFERS, 64))
        assert told[0] == told[1]
    assert guest.call("fd_close", 1) == 0
    assert guest.write(duplicate, b"put") == 3
    assert guest.call("fd_fdstat_get", duplicate, BUFFERS) == 0
    assert guest.poll((1, WRITE, duplicate)) == [(1, 0, WRITE)]
    assert guest.call("fd_dup2", duplicate, -1, 0, RESULT) == INVAL
    assert guest.call("fd_dup2", duplicate, 2**31 - 1, 0, RESULT) == 0
    assert guest.result() == 2**31 - 1
    assert guest.call("fd_dup2", duplicate, 2**31 - 1, 0, RESULT) == MFILE


def test_flags(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """Each descriptor has its own, and they end with it."""
    file = guest.open("file", create=True)
    for fd in (0, 2, 3, file, *pipe):
        assert guest.call("fd_fdflags_get", fd, RESULT) == 0
        assert guest.get(RESULT, 2) == b"\0\0"
        assert guest.call("fd_fdflags_set", fd, 2) == 0  # no such flag
        assert guest.call("fd_fdflags_get", fd, RESULT) == 0
        assert guest.get(RESULT, 2) == b"\0\0"
        assert guest.call("fd_fdflags_set", fd, 2**16 + 1) == 0
        assert guest.call("fd_fdflags_get", fd, RESULT) == 0
        assert guest.get(RESULT, 2) == b"\1\0"
    assert guest.call("fd_close", file) == 0
    assert guest.call("fd_fdflags_get", file, RESULT) == BADF
    assert guest.open("file") == file
    assert guest.call("fd_fdflags_get", file, RESULT) == 0
    assert guest.get(RESULT, 2) == b"\0\0"


def test_pipe_in_place_of_a_stream(guest: WasiGuest, pipe: tuple[int, int], stdout: io.BytesIO) -> None:
    """stdout is saved, replaced by a pipe, and restored, as shells do it."""
    read, write = pipe
    assert guest.call("fd_dup", 1, RESULT) == 0
    saved = guest.result()
    assert guest.call("fd_renumber", write, 1) == 0
    assert guest.write(1, b"into the pipe") == 13
    assert guest.call("fd_seek", 1, 0, 0, BUFFERS) == SPIPE
    assert guest.call("fd_close", write) == 0
    assert guest.read(read, 100) == b"into the pipe"
    assert guest.call("fd_renumber", saved, 1) == 0
    assert guest.read(read, 100) == b""
    assert guest.write(1, b"out") == 3
    assert stdout.getvalue() == b"out"
    assert guest.call("fd_close", saved) == 0
    assert guest.call("fd_close", 1) == 0
    assert guest.write(1, b"x") == -BADF


def test_pipe_in_place_of_a_file(guest: WasiGuest, pipe: tuple[int, int], tmp_path: Path) -> None:
    """The file's number stands for the pipe, and the pipe's for a file."""
    file = guest.open("file", create=True)
    assert guest.call("fd_renumber", pipe[1], file) == 0
    assert guest.write(file, b"abc") == 3
    assert guest.read(pipe[0], 10) == b"abc"
    assert (tmp_path / "file").read_bytes() == b""
    assert guest.call("fd_close", file) == 0
    file = guest.open("file")
    assert guest.call("fd_renumber", file, pipe[1]) == 0
    assert guest.write(pipe[1], b"in the file") == 11
    assert (tmp_path / "file").read_bytes() == b"in the file"
    assert guest.read(pipe[0], 10) == b""


def test_renumbering_copies_in_wasix(guest: WasiGuest, stdout: io.BytesIO) -> None:
    """A program of WASIX's libc has no other way to say dup2; it begins with a call that tells it from WASI's."""
    assert guest.call("proc_signals_sizes_get", RESULT) == 0
    assert guest.call("fd_renumber", 1, 2) == 0
    assert guest.write(1, b"one ") == 4
    assert guest.write(2, b"two") == 3
    assert stdout.getvalue() == b"one two"
    assert guest.call("fd_close", 1) == 0
    assert guest.write(2, b".") == 1
    assert guest.call("fd_fdstat_get", 2, BUFFERS) == 0


# The working directory, and paths from the root.


def directory(guest: WasiGuest) -> bytes:
    guest.put(RESULT, (4096).to_bytes(4, "little"))
    assert guest.call("getcwd", BUFFERS, RESULT) == 0
    assert guest.get(BUFFERS + guest.result(), 1) == b"\0"
    return guest.get(BUFFERS, guest.result())


def opens(guest: WasiGuest, path: bytes, fd: int = 3, flags: int = 0, rights: int = FD_READ) -> int:
    return -guest.call("path_open2", fd, 1, *guest.path(path), flags, rights, rights, 0, 0, RESULT) or guest.result()


def test_working_directory(guest: WasiGuest, tmp_path: Path) -> None:
    """The working directory begins at the root, and can be changed to existing directories, absolute or relative."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("a")
    assert directory(guest) == b"/"
    for path, error, then in [
        (b"data", 0, b"/data"),
        (b"a/", 0, b"/data/a"),
        (b"./b//.", 0, b"/data/a/b"),
        (b"../..", 0, b"/data"),
        (b"file", NOTDIR, b"/data"),
        (b"absent", NOENT, b"/data"),
        (b"", NOENT, b"/data"),
        (b"/elsewhere", NOENT, b"/data"),
        (b"link", 0, b"/data/link"),
        (b"/data", 0, b"/data"),
        (b"../../..", 0, b"/"),
        (b"/data/a/../a", 0, b"/data/a"),
        (b"/", 0, b"/"),
    ]:
        assert (guest.call("chdir", *guest.path(path)), directory(guest)) == (error, then), path


def test_room_for_the_working_directory(guest: WasiGuest) -> None:
    """If it does not fit, the needed size is stored, and nothing else is written."""
    assert guest.call("chdir", *guest.path(b"data")) == 0
    for room in (0, 1, 5):
        guest.put(RESULT, room.to_bytes(4, "little"))
        guest.put(BUFFERS, b"\xff" * 8)
        assert (guest.call("getcwd", BUFFERS, RESULT), guest.result()) == (RANGE, 6)
        assert guest.get(BUFFERS, 8) == b"\xff" * 8
    assert guest.call("getcwd", BUFFERS, RESULT) == 0
    assert (guest.get(BUFFERS, 8), guest.result()) == (b"/data\0\xff\xff", 5)


def test_open(guest: WasiGuest, tmp_path: Path) -> None:
    """Files are opened from a directory, from the root, and from the working directory; with flags of their own."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("content")
    assert guest.call("chdir", *guest.path(b"/data/a")) == 0
    for path, fd in [(b"a/file", 3), (b"/data/a/file", 3), (b"//data/./a/../a/file", 99), (b"file", AT_FDCWD)]:
        opened = opens(guest, path, fd)
        assert guest.read(opened, 20) == b"content", path
        assert guest.call("fd_close", opened) == 0
    assert opens(guest, b"file") == -NOENT
    assert opens(guest, b"") == -NOENT
    assert opens(guest, b"a/file", 77) == -BADF
    assert opens(guest, b"/etc/passwd") == -NOENT
    assert opens(guest, b"/data/../../etc/passwd") < 0
    assert opens(guest, b"/data/new", flags=CREATE, rights=FD_WRITE) > 0
    assert (tmp_path / "new").exists()
    arguments = guest.path(b"new")
    assert guest.call("path_open2", 3, 1, *arguments, 0, FD_READ, 0, 0, 1, RESULT) == 0
    assert guest.call("fd_fdflags_get", guest.result(), OTHER_RESULT) == 0
    assert guest.get(OTHER_RESULT, 2) == b"\1\0"
    assert guest.call("path_open2", 3, 1, *arguments, 0, FD_READ, 0, 0, 2, RESULT) == 0  # no such flag
    assert guest.call("fd_fdflags_get", guest.result(), OTHER_RESULT) == 0
    assert guest.get(OTHER_RESULT, 2) == b"\0\0"
    assert guest.call("path_open2", 3, -1, *arguments, 2**20, -1, -1, 2**20, 2**20, RESULT) == 0


@pytest.mark.parametrize("root", ["/", ".", "./"])
def test_preopened_root(root: str, tmp_path: Path) -> None:
    """The libc leaves paths as they are if the root is preopened, and then every call with a path takes them so."""
    guest = with_preopens(**{root: tmp_path})
    (tmp_path / "file").write_text("content")
    at = guest.path
    assert guest.call("path_create_directory", 3, *at(b"/made")) == 0
    assert guest.call("path_link", 3, 0, *at(b"/file"), 3, *at(b"/made/link", PATH + 100)) == 0
    assert guest.call("path_symlink", *at(b"../file"), 3, *at(b"/made/symbolic", PATH + 100)) == 0
    assert guest.call("path_readlink", 3, *at(b"/made/symbolic"), BUFFERS, 100, RESULT) == 0
    assert guest.get(BUFFERS, guest.result()) == b"../file"
    assert guest.call("path_rename", 3, *at(b"/made/link"), 3, *at(b"/renamed", PATH + 100)) == 0
    assert guest.call("path_filestat_set_times", 3, 0, *at(b"/renamed"), 0, 5_000_000_000, 4) == 0
    assert (tmp_path / "renamed").stat().st_mtime == 5
    assert guest.call("path_filestat_get", 3, 0, *at(b"/renamed"), BUFFERS) == 0
    assert int.from_bytes(guest.get(BUFFERS + 32, 8), "little") == len("content")
    assert guest.call("path_unlink_file", 3, *at(b"/made/symbolic")) == 0
    assert guest.call("path_remove_directory", 3, *at(b"/made")) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "renamed"]
    arguments = 1, *at(b"/file"), 0, FD_READ, FD_READ, 0, RESULT
    assert guest.call("path_open", 3, *arguments) == 0
    assert guest.read(guest.result(), 10) == b"content"


@pytest.mark.parametrize("path", [b"/", b"//", b"/.", b"/./", b"/data", b"/data/", b"/data/.", b"///data//"])
def test_directory_itself(path: bytes, tmp_path: Path) -> None:
    """The preopened directory can be asked about by its own name, and the path is what it was afterwards."""
    (tmp_path / "inner").mkdir()
    guest = with_preopens(**{"/": tmp_path, "/data": tmp_path / "inner"})
    for there, seconds in ((tmp_path, 5), (tmp_path / "inner", 6)):
        os.utime(there, (seconds, seconds))
    assert guest.call("path_filestat_get", 99, 1, *guest.path(path), BUFFERS) == 0
    modified = int.from_bytes(guest.get(BUFFERS + 48, 8), "little")
    assert modified == (6 if b"data" in path else 5) * 1_000_000_000
    assert guest.get(PATH, len(path)) == path
    assert opens(guest, path) > 0


def test_innermost_preopen(tmp_path: Path) -> None:
    """Of several directories that a path begins with, the innermost is meant, by whole names."""
    for name in ("root", "a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    guest = with_preopens(**{"/x/y": tmp_path / "b", "/": tmp_path / "root", "x": tmp_path / "a"})
    for path, there in [(b"/root", 1), (b"/x/a", 1), (b"/x/y/b", 1), (b"/x/./y/b", 1), (b"/xa", 0), (b"/x/b", 0)]:
        assert (opens(guest, path, 99) > 0) is bool(there), path
    assert guest.call("chdir", *guest.path(b"/x/y")) == 0
    assert opens(guest, b"b", AT_FDCWD) > 0
    assert guest.call("chdir", *guest.path(b"..")) == 0
    assert opens(guest, b"a", AT_FDCWD) > 0


def test_absolute_paths_of_hostile_lengths(guest: WasiGuest) -> None:
    """Absolute paths of hostile lengths are EFAULT or ENAMETOOLONG also in WASI's own calls."""
    guest.put(PATH, b"/" * 6000)
    assert guest.call("path_filestat_get", 3, 0, PATH, 5000, BUFFERS) == NAMETOOLONG
    assert guest.call("path_filestat_get", 3, 0, PATH, END, BUFFERS) == FAULT
    assert guest.call("path_filestat_get", 3, 0, PATH, -1, BUFFERS) == FAULT
    assert guest.call("path_rename", 3, PATH, 5, 3, -1, 5) == NOENT
    assert guest.call("path_rename", 3, *guest.path(b"/data/x"), 3, -1, 5) == FAULT


def test_buffers_in_hostile_places(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """Pipes are read and written where there is memory."""
    assert guest.write(pipe[1], b"abc") == 3
    for name, fd in (("fd_read", pipe[0]), ("fd_write", pipe[1])):
        for start, length in ((END - 1, 2), (2**31, 1), (2**32 - 1, 1), (0, 2**32 - 1)):
            guest.put(IOVECS, start.to_bytes(4, "little") + length.to_bytes(4, "little"))
            assert guest.call(name, fd, IOVECS, 1, RESULT) == FAULT
        for iovecs, count, stored in ((-8, 1, RESULT), (IOVECS, 2**29, RESULT), (IOVECS, 0, -2), (END, 1, RESULT)):
            assert guest.call(name, fd, iovecs, count, stored) == FAULT
    assert guest.read(pipe[0], 10) == b"abc"
