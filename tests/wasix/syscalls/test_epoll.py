"""Event counters and epoll lists: counts, reports and errors."""

from __future__ import annotations

import io
import os
import threading
from contextlib import suppress
from functools import partial
from struct import pack, unpack
from typing import TYPE_CHECKING, cast

import pytest
from guests.compile import compile_guest
from guests.wasi_guest import BUFFERS, END, EVENTS, MONOTONIC, RESULT, WasiGuest

from greenctx.errors import Deadlock, TimeLimitExceeded
from greenctx.wasix import Limits, Program, Stdio
from greenctx.wasix._clock.deadline import Deadline
from greenctx.wasix._files.events import MAX_COUNT, MAX_INTERESTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

AGAIN, BADF, EXIST, INVAL, MFILE, NOENT, NOSPC = 6, 8, 20, 28, 33, 44, 51
NOTSUP, PERM, SPIPE, MEMVIOLATION = 58, 63, 70, 78
IN, OUT, RDHUP, ERR, HUP, EDGE, ONESHOT = 1, 2, 4, 16, 32, 64, 128
ADD, DELETE, MODIFY = 0, 2, 3
FOR_EVER = -1
SEMAPHORE = 1
EVENT = BUFFERS + 4096
MS = 1_000_000
HOSTILE = [END, END - 1, 2**31 - 1, 2**31, 2**32 - 1, -1, -4, -16, -(2**31)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's descriptors, to read and to write."""
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def guest(pipe: tuple[int, int], tmp_path: Path) -> Iterator[WasiGuest]:
    """A guest whose stdin is the pipe."""
    with os.fdopen(pipe[0], "rb", closefd=False) as stdin:
        yield WasiGuest(Stdio(stdin, io.BytesIO(), io.BytesIO()), str(tmp_path))


def made(guest: WasiGuest, name: str, *arguments: int) -> int:
    """Return the descriptor that the call stored."""
    assert guest.call(name, *arguments, RESULT) == 0
    return guest.result()


def new_pipe(guest: WasiGuest) -> tuple[int, int]:
    assert guest.call("fd_pipe", RESULT, RESULT + 4) == 0
    return guest.result(), guest.result(RESULT + 4)


def control(guest: WasiGuest, epoll: int, operation: int, fd: int, events: int = 0, data: int | None = None) -> int:
    guest.put(EVENT, pack("<I 4x I I I 4x Q", events, 0, fd if data is None else data, 7, 8))
    return guest.call("epoll_ctl", epoll, operation, fd, EVENT)


def waited(guest: WasiGuest, epoll: int, timeout: int = 0, max_events: int = 8) -> list[tuple[int, int]] | int:
    """Return the data and the events of all ready entries, or the errno."""
    guest.put(RESULT, b"\xff" * 8)
    errno = guest.call("epoll_wait", epoll, EVENTS, max_events, timeout, RESULT)
    if errno:
        return errno
    assert guest.get(RESULT + 4, 4) == b"\xff" * 4
    found = [unpack("<I 4x I I I 4x Q", guest.get(EVENTS + 32 * index, 32)) for index in range(guest.result())]
    assert all((ptr, data1, data2) == (0, 7, 8) for _, ptr, _, data1, data2 in found)
    return [(fd, events) for events, _, fd, _, _ in found]


# Event counters.


def count(guest: WasiGuest, event: int) -> int:
    """Return the count or, negative, the errno."""
    read = guest.read(event, 8)
    return -read if isinstance(read, int) else int.from_bytes(read, "little")


def add(guest: WasiGuest, event: int, value: int) -> int:
    return guest.write(event, value.to_bytes(8, "little"))


def test_counter(guest: WasiGuest) -> None:
    """Reading takes the whole count. Reading an empty counter, and adding to a full one, return EAGAIN."""
    event = made(guest, "fd_event", 5, 0)
    assert [count(guest, event), count(guest, event)] == [5, -AGAIN]
    assert [add(guest, event, value) for value in (1, 2, 0)] == [8] * 3
    assert count(guest, event) == 3
    assert add(guest, event, 2**64 - 1) == -INVAL
    assert [add(guest, event, MAX_COUNT), add(guest, event, 1), add(guest, event, 0)] == [8, -AGAIN, 8]
    assert count(guest, event) == MAX_COUNT
    assert guest.write(event, b"1234567") == -INVAL
    assert add(guest, event, 1) == 8
    assert guest.read(event, 7) == INVAL
    assert guest.read(event, 4, 4, 4) == (1).to_bytes(8, "little"), "in several buffers"
    assert guest.write(event, (2).to_bytes(8, "little") + b"more") == 8
    assert count(guest, event) == 2


def test_semaphore(guest: WasiGuest) -> None:
    """Reading a semaphore takes one. Unknown flags, such as those of the libc's eventfd, are left out."""
    event = made(guest, "fd_event", 2, SEMAPHORE | 4 | 1 << 15)
    assert [count(guest, event) for _ in range(3)] == [1, 1, -AGAIN]
    assert count(guest, made(guest, "fd_event", -2, 0)) == MAX_COUNT


def test_what_a_counter_is(guest: WasiGuest) -> None:
    """A counter can be read and written, has no positions, and its copies are the same counter until the last is
    closed."""
    event = made(guest, "fd_event", 0, 0)
    assert guest.call("fd_fdstat_get", event, BUFFERS) == 0
    rights = int.from_bytes(guest.get(BUFFERS + 8, 8), "little")
    assert (guest.get(BUFFERS, 1)[0], rights & 1 << 1, rights & 1 << 6) == (0, 1 << 1, 1 << 6)
    assert guest.call("fd_seek", event, 0, 0, BUFFERS) == SPIPE
    copy = made(guest, "fd_dup", event)
    assert add(guest, event, 3) == 8
    assert guest.call("fd_close", event) == 0
    assert [count(guest, event), count(guest, copy)] == [-BADF, 3]
    assert guest.call("fd_close", copy) == 0
    assert guest.call("fd_close", copy) == BADF


def test_poll_of_a_counter(guest: WasiGuest) -> None:
    """poll_oneoff reports whether a counter can be read, and whether it can be added to."""
    event = made(guest, "fd_event", 0, 0)
    read, write, timeout = (1, 1, event), (2, 2, event), (3, 0, MONOTONIC, MS)
    assert guest.poll(read, timeout) == [(3, 0, 0)]
    assert guest.poll(read, write) == [(2, 0, 2)]
    with pytest.raises(Deadlock):
        guest.poll(read)
    assert add(guest, event, MAX_COUNT) == 8
    assert guest.poll(read, write) == [(1, 0, 1)]


# Epoll lists.


def test_ready(guest: WasiGuest) -> None:
    """A ready descriptor is reported with its data for as long as it is ready, once in each call."""
    epoll, event, (read, write) = made(guest, "epoll_create"), made(guest, "fd_event", 0, 0), new_pipe(guest)
    assert control(guest, epoll, ADD, event, IN | OUT, data=100) == 0
    assert control(guest, epoll, ADD, read, IN, data=101) == 0
    assert control(guest, epoll, ADD, write, OUT, data=102) == 0
    assert waited(guest, epoll, FOR_EVER) == [(100, OUT), (102, OUT)]
    assert guest.write(write, b"x") == 1
    assert add(guest, event, 1) == 8
    for _ in range(2):
        assert sorted(cast("list[tuple[int, int]]", waited(guest, epoll))) == [(100, IN | OUT), (101, IN), (102, OUT)]
    assert count(guest, event) == 1
    assert guest.read(read, 1) == b"x"
    assert sorted(cast("list[tuple[int, int]]", waited(guest, epoll))) == [(100, OUT), (102, OUT)]


def test_host_streams(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """epoll_wait waits for stdin as poll_oneoff does; a buffer is always ready."""
    epoll = made(guest, "epoll_create")
    assert control(guest, epoll, ADD, 0, IN) == 0
    assert waited(guest, epoll) == waited(guest, epoll, MS) == []
    threading.Timer(0.02, os.write, (pipe[1], b"abc")).start()
    assert waited(guest, epoll, FOR_EVER) == [(0, IN)]
    assert control(guest, epoll, ADD, 1, IN | OUT) == 0
    assert sorted(cast("list[tuple[int, int]]", waited(guest, epoll, FOR_EVER))) == [(0, IN), (1, OUT)]


def test_ends(guest: WasiGuest) -> None:
    """The end of a pipe, and a missing reader, are reported even if not asked for."""
    epoll, (read, write), (other_read, other_write) = made(guest, "epoll_create"), new_pipe(guest), new_pipe(guest)
    assert control(guest, epoll, ADD, read, RDHUP) == control(guest, epoll, ADD, other_write, 0) == 0
    assert guest.write(write, b"x") == 1
    assert waited(guest, epoll, MS) == []
    assert guest.call("fd_close", other_read) == guest.call("fd_close", write) == 0
    assert waited(guest, epoll, MS) == [(other_write, ERR)]
    assert guest.read(read, 10) == b"x"
    assert waited(guest, epoll) == [(read, HUP | RDHUP), (other_write, ERR)]
    assert control(guest, epoll, MODIFY, read, IN) == 0
    assert (read, IN | HUP) in cast("list[tuple[int, int]]", waited(guest, epoll))


def test_control(guest: WasiGuest) -> None:
    """A listed descriptor cannot be added, and another cannot be modified or deleted. Adding has two numbers."""
    epoll, event = made(guest, "epoll_create"), made(guest, "fd_event", 1, 0)
    for add_ in (ADD, 1):
        assert control(guest, epoll, MODIFY, event, IN) == control(guest, epoll, DELETE, event) == NOENT
        assert control(guest, epoll, add_, event, IN, 1) == 0
        assert [control(guest, epoll, again, event, OUT, 2) for again in (ADD, 1)] == [EXIST] * 2
        assert waited(guest, epoll) == [(1, IN)]
        assert control(guest, epoll, MODIFY, event, IN | OUT, 3) == 0
        assert waited(guest, epoll) == [(3, IN | OUT)]
        assert guest.call("epoll_ctl", epoll, DELETE, event, -1) == 0
        assert waited(guest, epoll) == []
    for operation in (4, 255, -1, 2**31 - 1):
        assert control(guest, epoll, operation, event, IN) == INVAL
    assert guest.call("epoll_ctl", epoll, ADD, event, 0) == INVAL


def test_once(guest: WasiGuest) -> None:
    """ONESHOT reports once, until the descriptor is put into the list again."""
    epoll, event = made(guest, "epoll_create"), made(guest, "fd_event", 1, 0)
    for operation in (ADD, MODIFY):
        assert control(guest, epoll, operation, event, IN | ONESHOT) == 0
        assert [waited(guest, epoll), waited(guest, epoll, MS)] == [[(event, IN)], []]


def test_edges(guest: WasiGuest) -> None:
    """EDGE reports a descriptor again only after the guest has used it, or it has become ready again."""
    epoll, event, (read, write) = made(guest, "epoll_create"), made(guest, "fd_event", 0, 0), new_pipe(guest)
    for fd, events in ((event, IN | OUT), (read, IN), (write, OUT)):
        assert control(guest, epoll, ADD, fd, events | EDGE) == 0
    assert [waited(guest, epoll), waited(guest, epoll, MS)] == [[(event, OUT), (write, OUT)], []]
    assert add(guest, event, 1) == 8
    assert guest.write(write, b"x") == 1
    assert sorted(cast("list[tuple[int, int]]", waited(guest, epoll))) == [(event, IN | OUT), (read, IN), (write, OUT)]
    assert waited(guest, epoll) == []
    assert guest.write(write, b"y") == 1, "more to read, although the guest has not read the first"
    assert sorted(cast("list[tuple[int, int]]", waited(guest, epoll))) == [(read, IN), (write, OUT)]
    assert guest.read(read, 10) == b"xy"
    assert waited(guest, epoll) == [(write, OUT)]
    assert guest.write(write, b"z") == 1
    assert sorted(cast("list[tuple[int, int]]", waited(guest, epoll))) == [(read, IN), (write, OUT)]
    with pytest.raises(Deadlock):
        waited(guest, epoll, FOR_EVER)


def test_edges_of_host_streams(pipe: tuple[int, int]) -> None:
    """A writable stream is reported once, until it was full; a readable one as long as it is readable."""
    os.set_blocking(pipe[1], False)
    read, write = os.pipe()
    with os.fdopen(pipe[1], "wb", buffering=0, closefd=False) as stdout, os.fdopen(read, "rb") as stdin:
        guest = WasiGuest(Stdio(stdin, cast("BinaryIO", stdout), io.BytesIO()))
        epoll = made(guest, "epoll_create")
        assert control(guest, epoll, ADD, 1, OUT | EDGE) == control(guest, epoll, ADD, 0, IN | EDGE) == 0
        assert [waited(guest, epoll), waited(guest, epoll, MS)] == [[(1, OUT)], []]
        with suppress(BlockingIOError):
            while True:
                os.write(pipe[1], bytes(65536))
        assert waited(guest, epoll, MS) == []
        while not waited(guest, epoll):
            os.read(pipe[0], 65536)
        assert waited(guest, epoll) == []
        os.write(write, b"abc")
        assert [waited(guest, epoll, FOR_EVER) for _ in range(2)] == [[(0, IN)]] * 2
        assert guest.read(0, 3) == b"abc"
        assert waited(guest, epoll) == []
    os.close(write)


def test_closed_descriptors(guest: WasiGuest) -> None:
    """A descriptor stays in the list while any refers to the same file, as on Linux."""
    epoll, event = made(guest, "epoll_create"), made(guest, "fd_event", 1, 0)
    copy = made(guest, "fd_dup", event)
    assert control(guest, epoll, ADD, event, IN) == 0
    assert guest.call("fd_close", event) == 0
    assert waited(guest, epoll) == [(event, IN)]
    assert guest.call("fd_close", copy) == 0
    assert waited(guest, epoll) == []
    again = made(guest, "fd_event", 1, 0)
    assert again == event
    assert waited(guest, epoll) == [], "the number is another counter's now"
    assert control(guest, epoll, ADD, again, IN) == 0
    assert waited(guest, epoll) == [(again, IN)]


def test_duplicated_list(guest: WasiGuest) -> None:
    """A copy is the same list, even once the first descriptor is closed or moved."""
    epoll, event = made(guest, "epoll_create"), made(guest, "fd_event", 1, 0)
    copy = made(guest, "fd_dup", epoll)
    assert control(guest, copy, ADD, event, IN) == 0
    assert waited(guest, epoll) == [(event, IN)]
    assert guest.call("fd_close", epoll) == 0
    assert [waited(guest, epoll), waited(guest, copy)] == [BADF, [(event, IN)]]


def test_max_events(guest: WasiGuest) -> None:
    """No more events are stored than fit; the others come first the next time."""
    epoll = made(guest, "epoll_create")
    events = [made(guest, "fd_event", 1, 0) for _ in range(5)]
    for event in events:
        assert control(guest, epoll, ADD, event, IN | OUT) == 0
    found = [waited(guest, epoll, max_events=3) for _ in range(3)]
    assert [[fd for fd, _ in cast("list[tuple[int, int]]", one)] for one in found] == [
        events[:3],
        [*events[3:], events[0]],
        events[1:4],
    ]
    for max_events in (0, -1, 2**31, -(2**31)):
        assert waited(guest, epoll, max_events=max_events) == INVAL


def test_what_cannot_be_in_a_list(guest: WasiGuest) -> None:
    """Files and directories are EPERM, as on Linux; lists are EINVAL; a closed descriptor is EBADF."""
    epoll, other = made(guest, "epoll_create"), made(guest, "epoll_create")
    for fd, errno in ((guest.open("file", create=True), PERM), (3, PERM), (epoll, INVAL), (other, INVAL), (99, BADF)):
        assert control(guest, epoll, ADD, fd, IN) == errno
    for fd, errno in ((0, INVAL), (3, INVAL), (99, BADF), (-1, BADF), (2**31, BADF)):
        assert control(guest, fd, ADD, 0, IN) == errno
        assert waited(guest, fd) == errno


def test_what_a_list_is(guest: WasiGuest) -> None:
    """A list can be neither read nor written, and is never ready itself."""
    epoll = made(guest, "epoll_create")
    assert guest.read(epoll, 8) == INVAL
    assert guest.write(epoll, b"x") == -BADF
    assert guest.call("fd_fdstat_get", epoll, BUFFERS) == guest.call("fd_filestat_get", epoll, BUFFERS) == 0
    assert guest.poll((1, 1, epoll), (2, 0, MONOTONIC, 0)) == [(2, 0, 0)]


def test_limits(guest: WasiGuest) -> None:
    """Counters and lists are among the descriptors that a program may have; so a list has so many entries."""
    epoll = made(guest, "epoll_create")
    number = 1
    while not (errno := guest.call("fd_event", 0, 0, RESULT)):
        number += 1
    assert (errno, number) == (MFILE, 1024)
    assert guest.call("epoll_create", RESULT) == MFILE
    first = epoll + 1
    assert guest.call("fd_close", first) == 0
    assert made(guest, "fd_event", 0, 0) == first


def test_entries_of_a_list(guest: WasiGuest) -> None:
    """A list forgets closed files, and has no more entries than there are descriptors: ENOSPC."""
    epoll, event = made(guest, "epoll_create"), made(guest, "fd_event", 0, 0)
    for lowest in range(MAX_INTERESTS):
        copy = made(guest, "fd_dup2", event, (1 << 20) + 2000 + lowest, 0)
        assert control(guest, epoll, ADD, copy, IN) == 0
        assert guest.call("fd_close", copy) == 0
    assert control(guest, epoll, ADD, event, IN) == NOSPC
    assert guest.call("fd_close", event) == 0
    assert control(guest, epoll, ADD, made(guest, "fd_event", 0, 0), IN) == 0


def test_nothing_to_wait_for(guest: WasiGuest) -> None:
    """A wait that only another context could end is a deadlock; with a timeout it ends then, or by the time limit."""
    epoll, (read, _) = made(guest, "epoll_create"), new_pipe(guest)
    for watched in (read, 0):
        with pytest.raises(Deadlock):
            waited(guest, epoll, FOR_EVER)
        assert waited(guest, epoll, MS) == []
        assert control(guest, epoll, ADD, watched, IN) == 0
    guest.limit(Deadline(0.02))
    with pytest.raises(TimeLimitExceeded):
        waited(guest, epoll, FOR_EVER)


@pytest.mark.parametrize("pointer", HOSTILE)
def test_hostile_pointers(pointer: int, guest: WasiGuest) -> None:
    """A pointer to outside of the memory is memviolation: nothing is made, stored or added to a list."""
    epoll, event = made(guest, "epoll_create"), made(guest, "fd_event", 1, 0)
    assert control(guest, epoll, ADD, event, IN) == 0
    before = guest.get(0, END)
    call = partial(guest.call)
    assert call("epoll_create", pointer) == call("fd_event", 0, 0, pointer) == MEMVIOLATION
    assert call("epoll_ctl", epoll, MODIFY, event, pointer) == MEMVIOLATION
    assert call("epoll_wait", epoll, pointer, 1, 0, RESULT) == MEMVIOLATION
    assert call("epoll_wait", epoll, EVENTS, 1, 0, pointer) == MEMVIOLATION
    assert call("epoll_wait", epoll, EVENTS, 2**31 - 1, 0, RESULT) == MEMVIOLATION
    assert guest.get(0, END) == before
    assert waited(guest, epoll) == [(event, IN)]
    assert made(guest, "fd_event", 0, 0) == event + 1


def test_without_stdio() -> None:
    """If wasmtime reads and writes, there are neither counters nor lists, nor pipes."""
    guest = WasiGuest(None)
    assert guest.call("epoll_create", RESULT) == guest.call("fd_event", 0, 0, RESULT) == NOTSUP


WIDE = """(module
  (import "wasix_64v1" "epoll_create" (func $create (param i64) (result i32)))
  (import "wasix_64v1" "epoll_ctl" (func $ctl (param i32 i32 i32 i64) (result i32)))
  (import "wasix_64v1" "epoll_wait" (func $wait (param i32 i64 i32 i64 i64) (result i32)))
  (import "wasix_64v1" "fd_event" (func $event (param i64 i32 i64) (result i32)))
  (import "wasix_64v1" "proc_exit2" (func $exit (param i32)))
  (memory (export "memory") i64 1)
  (func $check (param i32) (if (local.get 0) (then (call $exit (i32.const 1)))))
  (func (export "_start")
    (call $check (call $create (i64.const 0)))
    (call $check (call $event (i64.const 1) (i32.const 0) (i64.const 8)))
    (i32.store (i64.const 16) (i32.const 1))
    (i64.store (i64.const 24) (i64.const 0x123456789))
    (call $check (call $ctl (i32.load (i64.const 0)) (i32.const 0) (i32.load (i64.const 8)) (i64.const 16)))
    (i64.store (i64.const 48) (i64.const -1))
    (call $check (call $wait (i32.load (i64.const 0)) (i64.const 64) (i32.const 2) (i64.const -1) (i64.const 48)))
    (call $check (i64.ne (i64.load (i64.const 48)) (i64.const 1)))
    (call $check (i32.ne (i32.load (i64.const 64)) (i32.const 1)))
    (call $check (i64.ne (i64.load (i64.const 72)) (i64.const 0x123456789)))
    (call $check (i32.ne (i32.const 78)
      (call $wait (i32.load (i64.const 0)) (i64.const 64) (i32.const 2) (i64.const 0) (i64.const BAD))))
    (call $exit (i32.const 42))))"""


@pytest.mark.parametrize("bad", [65529, 65536, -1])
def test_64_bits(bad: int) -> None:
    """The count of events has the width of a pointer."""
    with Program(WIDE.replace("BAD", str(bad)).encode(), stdin=b"", limits=Limits(seconds=100)) as program:
        assert program.run() == 42


def test_a_program_in_c() -> None:
    """A C program: a loop around epoll_wait, and a context that works when a counter wakes it."""
    stdout = io.BytesIO()
    path = compile_guest("events")
    with Program.from_file(path, stdin=b"input", stdout=stdout, limits=Limits(seconds=100)) as program:
        assert program.run() == 0
    assert stdout.getvalue() == b"worker: 1\nworker: 2\nworker: 3\nstdin\n"
