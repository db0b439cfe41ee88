"""Duplicates of file descriptors in WASIX's programs: the same open file, with one position and one set of flags."""

from __future__ import annotations

import io
import os
import random
from typing import TYPE_CHECKING

import pytest
from guests.wasi_guest import BUFFERS, END, IOVECS, PATH, RESULT, WasiGuest

from greenctx.wasix import Stdio
from greenctx.wasix._files.descriptors import FIRST_OWN
from greenctx.wasix._syscalls.process import process_of

if TYPE_CHECKING:
    from pathlib import Path

BADF, INVAL, MFILE, NOTDIR, NOTSUP, MEMVIOLATION = 8, 28, 33, 54, 58, 78
READ, WRITE = 1, 2  # of subscriptions
APPEND = 1  # of fdflags
DATA = bytes(range(256)) * 2


@pytest.fixture
def stdout() -> io.BytesIO:
    return io.BytesIO()


@pytest.fixture
def guest(tmp_path: Path, stdout: io.BytesIO) -> WasiGuest:
    """A guest whose libc is WASIX's, with a file."""
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "other").write_bytes(DATA[::-1])
    guest = WasiGuest(Stdio(b"input", stdout, io.BytesIO()), str(tmp_path))
    assert guest.call("proc_signals_sizes_get", RESULT) == 0
    return guest


def dup(guest: WasiGuest, fd: int, lowest: int = 0) -> int:
    return -guest.call("fd_dup2", fd, lowest, 0, RESULT) or guest.result()


def dup2(guest: WasiGuest, fd: int, to: int) -> int:
    """Call fd_renumber, which is the libc's dup2."""
    return guest.call("fd_renumber", fd, to)


def seek(guest: WasiGuest, fd: int, offset: int) -> int:
    return guest.call("fd_seek", fd, offset, 0, RESULT)


@pytest.mark.parametrize("how", ["fd_dup", "fd_dup2", "dup2"])
@pytest.mark.parametrize("first", ["original", "duplicate"])
def test_one_position(how: str, first: str, guest: WasiGuest) -> None:
    """Reading or seeking by one descriptor moves the other; whichever is closed first, the file stays open."""
    file = guest.open("file")
    if how == "dup2":
        assert dup2(guest, file, 77) == 0
        duplicate = 77
    else:
        duplicate = dup(guest, file, 3_000_000 if how == "fd_dup2" else 0)
    assert [guest.read(fd, 3) for fd in (file, duplicate, file)] == [DATA[:3], DATA[3:6], DATA[6:9]]
    assert seek(guest, duplicate, 100) == 0
    assert guest.call("fd_tell", file, RESULT) == 0
    assert guest.result() == 100
    closed, left = (file, duplicate) if first == "original" else (duplicate, file)
    assert guest.call("fd_close", closed) == 0
    assert guest.call("fd_close", closed) == BADF
    assert guest.read(closed, 1) == BADF
    assert guest.read(left, 3) == DATA[100:103]
    assert guest.call("fd_close", left) == 0
    assert guest.read(left, 1) == BADF
    assert guest.open("file") == file  # so it is closed in wasmtime


def test_one_set_of_flags(guest: WasiGuest, tmp_path: Path) -> None:
    """The append flag of one applies to all."""
    file = guest.open("file")
    duplicate = dup(guest, file)
    assert guest.call("fd_fdstat_set_flags", duplicate, APPEND) == 0
    assert guest.call("fd_fdstat_get", file, BUFFERS) == 0
    assert guest.get(BUFFERS, 4) == bytes([4, 0, APPEND, 0])  # a regular file
    assert guest.write(file, b"end") == 3
    assert (tmp_path / "file").read_bytes() == DATA + b"end"


def test_every_call(guest: WasiGuest, tmp_path: Path) -> None:
    """Every call takes a duplicate, even if the original is closed."""
    file = guest.open("file")
    duplicate = dup(guest, file)
    assert guest.call("fd_close", file) == 0
    assert guest.call("fd_pread", duplicate, *guest.buffers(3)[:2], 5, RESULT) == 0
    assert guest.get(BUFFERS, 3) == DATA[5:8]
    guest.put(BUFFERS, b"new")
    assert guest.call("fd_pwrite", duplicate, IOVECS, 1, 5, RESULT) == 0
    assert (tmp_path / "file").read_bytes()[5:8] == b"new"
    for name, *arguments in [
        ("fd_advise", 0, 1, 0), ("fd_datasync",), ("fd_sync",), ("fd_filestat_get", BUFFERS),
        ("fd_filestat_set_size", 9), ("fd_filestat_set_times", 0, 5_000_000_000, 4),
    ]:  # fmt: skip
        assert guest.call(str(name), duplicate, *map(int, arguments)) == 0, name
        assert guest.call(str(name), file, *map(int, arguments)) == BADF, name
    assert (os.stat(tmp_path / "file").st_mtime, os.stat(tmp_path / "file").st_size) == (5, 9)
    assert guest.poll((1, READ, duplicate), (2, WRITE, duplicate)) == [(1, 0, READ), (2, 0, WRITE)]
    assert guest.call("fd_fdflags_set", duplicate, 1) == 0
    assert guest.call("fd_fdflags_set", file, 1) == BADF


def test_directories(guest: WasiGuest, tmp_path: Path) -> None:
    """A duplicate of a directory leads to the same directory, even once the original is closed; it is preopened,
    too."""
    directory = dup(guest, 3)
    assert guest.call("fd_prestat_get", directory, RESULT) == 0
    assert guest.call("fd_prestat_dir_name", directory, BUFFERS, guest.result(RESULT + 4)) == 0
    assert guest.get(BUFFERS, 5) == b"/data"
    assert guest.call("fd_readdir", directory, BUFFERS, 100, 0, RESULT) == 0
    assert guest.call("fd_close", 3) == 0
    at, to = guest.path(b"file"), guest.path(b"link", PATH + 100)
    assert guest.call("path_filestat_get", directory, 0, *at, BUFFERS) == 0
    assert guest.call("path_filestat_get", 99, 0, *at, BUFFERS) == BADF
    assert guest.call("path_link", directory, 0, *at, directory, *to) == 0
    assert (tmp_path / "link").read_bytes() == DATA
    assert guest.call("path_rename", directory, *at, directory, *to) == 0
    assert guest.call("path_open2", directory, 0, *to, 0, 2, 2, 0, 0, RESULT) == 0
    file = guest.result()
    assert guest.read(file, 3) == DATA[:3]
    assert guest.call("path_open", directory, 0, *to, 0, 2, 2, 0, RESULT) == 0
    assert guest.call("path_open2", file, 0, *to, 0, 2, 2, 0, 0, RESULT) in (BADF, NOTDIR)
    assert guest.call("path_open2", 99, 0, *guest.path(b"/data/link"), 0, 2, 2, 0, 0, RESULT) == 0


@pytest.mark.parametrize("how", ["closed", "a file", "a stream", "a pipe"])
def test_number_of_a_preopened_directory(how: str, guest: WasiGuest, tmp_path: Path) -> None:
    """A program may close it or use it for another file, as a shell does by ``exec 3<file``. The libc knows nothing of
    that: its paths at that number still lead to the directory, as do those from the root. Closed, it is the directory's
    again; on Wasmer it cannot be anything else."""
    fd = {"closed": 99, "a file": guest.open("file"), "a stream": 1, "a pipe": 0}[how]
    if how == "a pipe":
        assert guest.call("fd_pipe", RESULT, RESULT + 8) == 0
        fd = guest.result()
    assert guest.call("fd_fdstat_get", 3, BUFFERS) == 0
    rights = guest.get(BUFFERS + 16, 8)
    if how == "a file":  # as shells do it
        saved = dup(guest, 3)
        assert guest.call("fd_close", 3) == guest.call("fd_close", saved) == 0
    assert (guest.call("fd_close", 3) if how == "closed" else dup2(guest, fd, 3)) == 0
    assert guest.read(3, 2) == (DATA[:2] if how == "a file" else 6 if how == "a pipe" else BADF)
    assert guest.call("fd_fdstat_get", 3, BUFFERS) == 0
    assert guest.get(BUFFERS, 1)[0] == {"closed": 3, "a file": 4, "a pipe": 0}.get(how, guest.get(BUFFERS, 1)[0])
    assert guest.get(BUFFERS + 16, 8) == rights
    for directory, path in ((3, b"file"), (3, b"/data/file"), (99, b"/data/file")):
        assert guest.call("path_filestat_get", directory, 0, *guest.path(path), BUFFERS) == 0
        assert guest.call("path_open2", directory, 0, *guest.path(path), 0, 2, 2, 0, 0, RESULT) == 0
        assert guest.read(guest.result(), 3) == DATA[:3]
    assert guest.call("path_unlink_file", 3, *guest.path(b"other")) == 0
    assert not (tmp_path / "other").exists()
    for _ in range(2):
        assert guest.call("fd_close", 3) == 0
        assert guest.read(3, 2) == BADF
        assert guest.open("file") > 3


def test_numbers_of_closed_descriptors(guest: WasiGuest) -> None:
    """The number of a closed original is free for dup2, and is not the duplicate's; nor is what wasmtime opens next the
    file whose number was taken."""
    file = guest.open("file")
    duplicate = dup(guest, file)
    assert guest.call("fd_close", file) == 0
    other = guest.open("other")
    assert dup2(guest, other, file) == 0
    assert guest.call("fd_close", other) == 0
    assert guest.read(file, 2) == DATA[::-1][:2]
    assert guest.read(duplicate, 2) == DATA[:2]
    assert guest.call("fd_close", duplicate) == 0
    assert guest.read(file, 2) == DATA[::-1][2:4]
    new = guest.open("file")
    assert new != file
    assert guest.read(new, 2) == DATA[:2]
    assert guest.call("fd_close", file) == 0
    assert guest.read(file, 2) == BADF
    assert guest.read(new, 2) == DATA[2:4]


def test_open_never_takes_a_number_in_use(guest: WasiGuest) -> None:
    """dup2 may choose any number. A file opened afterwards gets another number, by each way to open."""
    assert dup2(guest, 1, 5) == dup2(guest, 1, 6) == 0
    opened = [guest.open("file") for _ in range(4)]
    assert guest.call("path_open2", 3, 0, *guest.path(b"file"), 0, 2, 2, 0, 0, RESULT) == 0
    opened.append(guest.result())
    assert len({1, 5, 6, *opened}) == 3 + len(opened)
    for fd in opened:
        assert guest.read(fd, 3) == DATA[:3]
    for fd in (5, 6, *opened):
        assert guest.call("fd_close", fd) == 0
        assert guest.read(fd, 3) == BADF


def test_dup2_onto_others(guest: WasiGuest, stdout: io.BytesIO) -> None:
    """A file becomes stdin and stdout, and the originals are restored, as shells redirect."""
    saved = dup(guest, 1, 10)
    file, other = guest.open("file"), guest.open("other")
    assert dup2(guest, file, 1) == dup2(guest, other, 0) == 0
    assert guest.call("fd_close", file) == guest.call("fd_close", other) == 0
    assert guest.write(1, b"abc") == 3
    assert guest.read(0, 3) == DATA[::-1][:3]
    assert guest.poll((1, READ, 0), (2, WRITE, 1)) == [(1, 0, READ), (2, 0, WRITE)]
    assert dup2(guest, saved, 1) == guest.call("fd_close", saved) == 0
    assert guest.write(1, b"out") == 3
    assert stdout.getvalue() == b"out"
    assert guest.open("file") in (file, other)
    assert (dup2(guest, 0, 0), dup2(guest, 77, 77)) == (0, BADF)


def test_streams_keep_their_type(guest: WasiGuest) -> None:
    """A stream's facts are the same under every number, also once the first is closed."""
    told = []
    for fd in (1, 9):
        assert guest.call("fd_fdstat_get", fd, BUFFERS) == 0
        told.append(guest.get(BUFFERS, 24))
        assert dup2(guest, fd, 9) == 0
        assert guest.call("fd_close", 1) == (0 if fd == 1 else BADF)
    assert told[0] == told[1]


def test_bad_arguments(guest: WasiGuest) -> None:
    """Nothing is duplicated."""
    file = guest.open("file")
    for fd in (99, -1, 2**31 - 1, -2, 1 << 20):
        assert dup(guest, fd) == -BADF
        assert dup2(guest, fd, 5) == BADF
    assert dup(guest, file, -1) == dup(guest, file, 2**31) == -INVAL
    for to in (-1, -2, 2**31):
        assert dup2(guest, file, to) == BADF
    for pointer in (END, END - 1, -1):
        assert guest.call("fd_dup", file, pointer) == MEMVIOLATION
    assert dup2(guest, file, 2**31 - 1) == 0
    assert guest.read(2**31 - 1, 3) == DATA[:3]


MAX_OWN = 40


@pytest.fixture
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greenctx.wasix._files.descriptors.MAX_OWN", MAX_OWN)


@pytest.mark.usefixtures("few_descriptors")
@pytest.mark.parametrize("how", ["dup", "dup2"])
def test_limits(how: str, guest: WasiGuest) -> None:
    """A program may have so many duplicates; the next is EMFILE, until one is closed. Duplicates of files do not count
    as files."""
    process_of(guest.store).max_files = 6
    file = guest.open("file")
    made: list[int] = []
    while True:
        number = 1_000 + len(made)
        error = dup2(guest, file, number) if how == "dup2" else min(0, number := dup(guest, file))
        if error:
            break
        made.append(number)
    assert abs(error) == MFILE
    assert MAX_OWN - 2 <= len(made) <= MAX_OWN
    assert guest.call("fd_pipe", RESULT, RESULT + 8) == MFILE
    assert guest.call("fd_close", made.pop()) == 0
    assert dup2(guest, file, 5_000) == 0
    for fd in (5_000, *made, file):
        assert guest.call("fd_close", fd) == 0
    assert {dup2(guest, 1, fd) for fd in range(50, 50 + 2 * MAX_OWN)} == {0, MFILE}
    files = [guest.open("file"), guest.open("file")]
    assert guest.call("path_open", 3, 0, *guest.path(b"file"), 0, 2, 2, 0, RESULT) == MFILE
    assert {guest.call("fd_close", fd) for fd in files} == {0}


@pytest.mark.usefixtures("few_descriptors")
def test_no_room_for_what_is_opened(guest: WasiGuest) -> None:
    """A file whose number in wasmtime is another's needs room in the table. Without it, the file is closed again."""
    numbers = [*range(4, 4 + MAX_OWN)]
    assert {dup2(guest, 1, number) for number in numbers} == {0}
    for name, rest in (("path_open", (2, 2, 0)), ("path_open2", (2, 2, 0, 0))) * 2:
        assert guest.call(name, 3, 0, *guest.path(b"file"), 0, *rest, RESULT) == MFILE
    assert {guest.call("fd_close", number) for number in numbers} == {0}
    assert guest.open("file") == 4


class Linux:
    """The same calls of the system's: which of its descriptors each of the guest's stands for."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.fds = directory, dict[int, int]()

    def replace(self, fd: int, new: int) -> None:
        if fd in self.fds:
            os.close(self.fds[fd])
        self.fds[fd] = new

    def close(self, fd: int) -> None:
        os.close(self.fds.pop(fd))


@pytest.mark.parametrize("seed", range(20))
def test_as_linux(seed: int, guest: WasiGuest, tmp_path: Path) -> None:
    """A random program of open, dup, dup2, read, write, seek and close sees what it would see on Linux."""
    rng = random.Random(seed)
    (tmp_path / "twin").mkdir()
    for name in ("file", "other"):
        (tmp_path / "twin" / name).write_bytes((tmp_path / name).read_bytes())
    linux = Linux(tmp_path / "twin")
    fds = linux.fds
    for _ in range(150):
        fd, other = (rng.choice([*fds, 40]) for _ in range(2))
        match rng.choice(["open", "dup", "dup2", "dup2", "read", "write", "seek", "close"]):
            case "open" if len(fds) < 12:
                name = rng.choice(["file", "other"])
                opened = guest.open(name)
                assert opened not in fds
                linux.replace(opened, os.open(linux.directory / name, os.O_RDWR))
            case "dup" if len(fds) < 12:
                made = dup(guest, fd, rng.choice([0, 1 << 21]))
                assert (made == -BADF) is (fd not in fds)
                assert made not in fds
                if fd in fds:
                    linux.replace(made, os.dup(fds[fd]))
            case "dup2":
                to = rng.choice([other, *range(4, 10), 300, 1 << 20, 1 << 22])
                assert dup2(guest, fd, to) == (0 if fd in fds else BADF)
                if fd in fds and fd != to:
                    linux.replace(to, os.dup(fds[fd]))
            case "read":
                assert guest.read(fd, 7) == (os.read(fds[fd], 7) if fd in fds else BADF)
            case "write":
                text = rng.randbytes(5)
                assert guest.write(fd, text) == (os.write(fds[fd], text) if fd in fds else -BADF)
            case "seek":
                place = rng.randrange(500)
                assert seek(guest, fd, place) == (0 if fd in fds else BADF)
                if fd in fds:
                    os.lseek(fds[fd], place, os.SEEK_SET)
            case "close":
                assert guest.call("fd_close", fd) == (0 if fd in fds else BADF)
                if fd in fds:
                    linux.close(fd)
    for fd in [*fds]:
        assert guest.call("fd_close", fd) == 0
        linux.close(fd)
    for name in ("file", "other"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "twin" / name).read_bytes()
    process_of(guest.store).max_files = 6  # the streams, the directory, and two more: nothing was left open
    assert max(guest.open("file"), guest.open("file")) < FIRST_OWN
    assert guest.call("path_open", 3, 0, *guest.path(b"file"), 0, 2, 2, 0, RESULT) == MFILE


def test_without_streams_of_our_own(tmp_path: Path) -> None:
    """If wasmtime reads and writes, there are no duplicates of files either."""
    (tmp_path / "file").write_bytes(DATA)
    guest = WasiGuest(None, str(tmp_path))
    assert guest.call("fd_dup", guest.open("file"), RESULT) == NOTSUP
