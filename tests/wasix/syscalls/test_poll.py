"""poll_oneoff: clocks, the standard streams, files, and anything else."""

from __future__ import annotations

import io
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import pytest
from guests.compile import compile_guest
from guests.wasi_guest import END, EVENTS, MONOTONIC, RESULT, SUBSCRIPTIONS, WasiGuest

from greenctx.errors import TimeLimitExceeded
from greenctx.wasix import Limits, Program, Stdio
from greenctx.wasix._clock.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

BADF, FAULT, INVAL = 8, 21, 28
CLOCK, READ, WRITE = 0, 1, 2
REALTIME, PROCESS, THREAD = 0, 2, 3
ABSOLUTE = 1
NEVER = 2**64 - 1
MILLISECOND = 1_000_000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's descriptors, to read and to write."""
    read, write = os.pipe()
    yield read, write
    for descriptor in (read, write):
        with suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def guest(pipe: tuple[int, int]) -> Iterator[WasiGuest]:
    """A guest whose stdin is the pipe."""
    with os.fdopen(pipe[0], "rb", closefd=False) as stdin:
        yield WasiGuest(Stdio(stdin, io.BytesIO(), io.BytesIO()))


def now(guest: WasiGuest, clock: int) -> int:
    assert guest.call("clock_time_get", clock, 1, RESULT) == 0
    return int.from_bytes(guest.get(RESULT, 8), "little")


@pytest.mark.parametrize("clock", [REALTIME, MONOTONIC])
def test_clocks(clock: int, guest: WasiGuest) -> None:
    """A relative time passes before the event; an absolute time is reached; a time already over is reported at once."""
    for timeout, flags in ((20 * MILLISECOND, 0), (now(guest, clock) + 20 * MILLISECOND, ABSOLUTE)):
        before, begin = now(guest, clock), time.monotonic()
        assert guest.poll((5, CLOCK, clock, timeout, 0, flags)) == [(5, 0, CLOCK)]
        assert time.monotonic() - begin >= 0.019 or flags
        assert now(guest, clock) >= (timeout if flags else before + timeout) - MILLISECOND
    for timeout, flags in ((0, 0), (0, ABSOLUTE), (1, ABSOLUTE)):
        assert guest.poll((2**64 - 1, CLOCK, clock, timeout, 0, flags)) == [(2**64 - 1, 0, CLOCK)]


def test_several_clocks(guest: WasiGuest) -> None:
    """The earliest ends the wait; those that have passed by then are reported, in the order of the subscriptions."""
    clocks = [(1, CLOCK, MONOTONIC, NEVER), (2, CLOCK, REALTIME, MILLISECOND), (3, CLOCK, MONOTONIC, MILLISECOND)]
    assert guest.poll(*clocks) in ([(2, 0, CLOCK)], [(2, 0, CLOCK), (3, 0, CLOCK)])
    assert guest.poll((1, CLOCK, MONOTONIC, NEVER), (2, CLOCK, REALTIME, 0), (3, CLOCK, MONOTONIC, 0)) == [
        (2, 0, CLOCK),
        (3, 0, CLOCK),
    ]


@pytest.mark.parametrize("clock", [PROCESS, THREAD, 4, 77, 2**32 - 1])
def test_clocks_that_cannot_be_waited_for(clock: int, guest: WasiGuest) -> None:
    """The call returns EINVAL."""
    assert guest.poll((2, CLOCK, MONOTONIC, NEVER), (1, CLOCK, clock, 0)) == INVAL


def test_stdin(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """stdin is ready when there is something to read, or its end; and not before, which a timeout can tell."""
    stdin, timeout = (1, READ, 0), (2, CLOCK, MONOTONIC, MILLISECOND)
    assert guest.poll(stdin, timeout) == [(2, 0, CLOCK)]
    os.write(pipe[1], b"abc")
    assert guest.poll(stdin, (2, CLOCK, MONOTONIC, NEVER)) == [(1, 0, READ)]
    assert guest.poll(stdin, stdin) == [(1, 0, READ)] * 2
    assert guest.read(0, 10) == b"abc"
    assert guest.poll(stdin, timeout) == [(2, 0, CLOCK)]
    os.close(pipe[1])
    assert guest.poll(stdin) == [(1, 0, READ)]
    assert guest.read(0, 10) == b""


def test_stdin_that_comes_later(guest: WasiGuest, pipe: tuple[int, int]) -> None:
    """The wait ends when another thread writes."""
    threading.Timer(0.02, os.write, (pipe[1], b"abc")).start()
    assert guest.poll((1, READ, 0), (2, CLOCK, MONOTONIC, NEVER)) == [(1, 0, READ)]


def test_stdin_of_bytes() -> None:
    """A stream that never waits is always ready."""
    for stdin in (b"", b"abc", io.BytesIO()):
        guest = WasiGuest(Stdio(cast("bytes", stdin)))
        assert guest.poll((1, READ, 0), (2, CLOCK, MONOTONIC, NEVER)) == [(1, 0, READ)]


def test_stdout(pipe: tuple[int, int]) -> None:
    """A pipe can be written to when there is room in it; a buffer always."""
    os.set_blocking(pipe[1], False)
    with os.fdopen(pipe[1], "wb", buffering=0, closefd=False) as stdout:
        guest = WasiGuest(Stdio(b"", cast("BinaryIO", stdout), io.BytesIO()))
        out, err, timeout = (1, WRITE, 1), (2, WRITE, 2), (3, CLOCK, MONOTONIC, MILLISECOND)
        assert guest.poll(out, err) == [(2, 0, WRITE), (1, 0, WRITE)]
        with suppress(BlockingIOError):
            while True:
                os.write(pipe[1], bytes(65536))
        assert guest.poll(out, timeout) == [(3, 0, CLOCK)]
        os.read(pipe[0], 65536)
        assert guest.poll(out, (3, CLOCK, MONOTONIC, NEVER)) == [(1, 0, WRITE)]


def test_wrong_direction(guest: WasiGuest) -> None:
    """badf: to write to stdin, to read stdout."""
    for tag, fd in ((WRITE, 0), (READ, 1), (READ, 2)):
        assert guest.poll((1, CLOCK, MONOTONIC, NEVER), (2, tag, fd)) == BADF


def test_files(tmp_path: Path) -> None:
    """Files are always ready; a closed descriptor, or a directory, is badf."""
    (tmp_path / "file").write_text("text")
    guest = WasiGuest(Stdio(b""), str(tmp_path))
    file = guest.open("file")
    subscriptions = [(1, READ, file), (2, WRITE, file), (3, READ, 0), (4, CLOCK, MONOTONIC, NEVER)]
    assert guest.poll(*subscriptions) == [(1, 0, READ), (2, 0, WRITE), (3, 0, READ)]
    for wrong in (99, 2**32 - 1, 2**31, 3):
        assert guest.poll(*subscriptions, (5, READ, wrong)) == guest.poll((5, WRITE, wrong), *subscriptions) == BADF
    assert guest.call("fd_close", 0) == 0
    assert guest.poll((1, READ, 0)) == BADF
    assert guest.open("file") == 0
    assert guest.poll((1, READ, 0), (2, WRITE, 0)) == [(1, 0, READ), (2, 0, WRITE)]


def test_mistakes(guest: WasiGuest) -> None:
    """inval: no subscriptions, too many, an unknown kind or flag; fault: an address outside of the memory."""
    assert guest.poll() == INVAL
    assert guest.poll((1, 3, 0)) == guest.poll((1, 255, 0)) == guest.poll((1, CLOCK, MONOTONIC, 0, 0, 2)) == INVAL
    for subscriptions, events, count, stored in (
        (END - 47, EVENTS, 1, RESULT), (-48, EVENTS, 1, RESULT), (SUBSCRIPTIONS, END - 31, 1, RESULT),
        (SUBSCRIPTIONS, -1, 1, RESULT), (SUBSCRIPTIONS, EVENTS, -1, RESULT), (SUBSCRIPTIONS, EVENTS, 2**28, RESULT),
        (SUBSCRIPTIONS, EVENTS, END // 48, RESULT), (SUBSCRIPTIONS, EVENTS, 1, END - 3), (SUBSCRIPTIONS, EVENTS, 1, -4),
    ):  # fmt: skip
        assert guest.call("poll_oneoff", subscriptions, events, count, stored) == FAULT
    guest.put(SUBSCRIPTIONS, bytes(48))
    assert guest.call("poll_oneoff", SUBSCRIPTIONS, SUBSCRIPTIONS, 1, SUBSCRIPTIONS) == 0  # one over the other


def test_many_subscriptions() -> None:
    """Every one of them has its event."""
    guest = WasiGuest(Stdio(b"", io.BytesIO()))
    assert guest.poll(*((n, WRITE, 1) for n in range(80))) == [(n, 0, WRITE) for n in range(80)]


def test_time_limit(guest: WasiGuest) -> None:
    """The limit of time ends every wait, and everything that would wait after it."""
    guest.limit(Deadline(0.02))
    for subscription in ((1, CLOCK, MONOTONIC, NEVER), (1, READ, 0)):
        with pytest.raises(TimeLimitExceeded, match=r"its limit of 0\.02 seconds"):
            guest.poll(subscription)
    with pytest.raises(TimeLimitExceeded):
        guest.read(0, 1)
    guest.limit(Deadline(None))
    assert guest.poll((1, CLOCK, MONOTONIC, 1)) == [(1, 0, CLOCK)]


@pytest.mark.parametrize("descriptor", [0, 1])
def test_without_stdio(descriptor: int) -> None:
    """A linker whose streams are wasmtime's has a poll_oneoff that sleeps, and takes the streams as ready."""
    guest = WasiGuest(None)
    assert guest.poll((1, CLOCK, MONOTONIC, MILLISECOND)) == [(1, 0, CLOCK)]
    assert guest.poll((1, READ + descriptor, descriptor)) == [(1, 0, READ + descriptor)]
    assert guest.poll((1, WRITE - descriptor, descriptor)) == BADF


def polled(guest: WasiGuest) -> list[object]:
    """Polling files at their end and elsewhere, descriptors that cannot be polled, and wrong subscriptions. (If several
    are ready at once, wasmtime reports those that it finds first.)"""
    file, empty, said = guest.open("file"), guest.open("empty"), list[object]()

    def poll(*subscriptions: tuple[int, ...]) -> None:
        said.append(guest.poll(*subscriptions))
        said.append(guest.get(EVENTS, 32) if isinstance(said[-1], list) else None)

    for place in (0, 9, 10, 11, 2**40):
        assert guest.call("fd_seek", file, place, 0, RESULT) == 0
        poll((1, READ, file))
        poll((1, WRITE, file))
    poll((1, READ, empty), (2, CLOCK, MONOTONIC, NEVER))
    assert guest.write(empty, b"no more") == 7
    poll((1, READ, empty))
    assert guest.call("fd_seek", empty, 0, 0, RESULT) == 0
    poll((1, READ, empty))
    wrong = [(1, READ, 99), (1, WRITE, 99), (1, READ, 3), (1, WRITE, 3), (1, READ, 1), (1, WRITE, 0), (1, READ, 2**31)]
    for one in (*wrong, (1, CLOCK, PROCESS, 0), (1, CLOCK, 77, 0), (1, CLOCK, MONOTONIC, 0, 0, 2), (1, 3, 0)):
        for others in ([one], [one, (1, READ, file)], [(2, CLOCK, MONOTONIC, 0), one]):
            poll(*others)
        poll(one, wrong[0])
    guest.call("fd_close", file)
    poll((1, READ, file))
    return said


def test_as_wasmtime(tmp_path: Path) -> None:
    """All of it is as in wasmtime, whether the streams are its own or not."""
    (tmp_path / "file").write_bytes(b"0123456789")
    told = []
    for guest in (
        WasiGuest(None, str(tmp_path), native=True),
        WasiGuest(None, str(tmp_path)),
        WasiGuest(Stdio(b"", io.BytesIO(), io.BytesIO()), str(tmp_path)),
    ):
        (tmp_path / "empty").write_bytes(b"")
        told.append(polled(guest))
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize("mode", ["sleep", "usleep", "nanosleep", "clock_nanosleep", "poll", "select", "poll-stdin"])
def test_c_library(mode: str) -> None:
    """The ways in which C programs wait: each prints its result, and that it waited long enough."""
    stdout = io.BytesIO()
    program = Program.from_file(
        compile_guest("naps"), argv=["naps", mode], stdin=b"abc", stdout=stdout, limits=Limits(seconds=100)
    )
    assert program.run() == 0
    assert stdout.getvalue() == {"poll-stdin": b"1 1\n"}.get(mode, b"0\n")
