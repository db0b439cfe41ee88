"""stdin, stdout and stderr of a guest: files, bytes and the process's own; and other files beside them."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from guests.compile import compile_guest
from guests.wasi_guest import BUFFERS, END, IOVECS, RESULT, WasiGuest
from processes import TIMEOUT, check_script, run_greenctx, run_python

from greenctx.wasix import Program, Stdio, TimeLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

BADF, FAULT, IO, ISDIR, NOSPC, PIPE, AGAIN, SPIPE = 8, 21, 29, 31, 51, 64, 6, 70
EVERYTHING = bytes(range(256)) * 100


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """A pipe's ends to read and to write, the latter without a buffer."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "wb", buffering=0) as writer:
        yield reader, cast("BinaryIO", writer)


def upper(stdin: BinaryIO | bytes | None = b"", stdout: BinaryIO | None = None, **settings: Any) -> Program:
    """A program in C that writes what it reads, in capitals."""
    return Program.from_file(
        compile_guest("process"), argv=["process", "streams"], stdin=stdin, stdout=stdout, cache=True, **settings
    )


def test_bytes_and_buffers() -> None:
    """stdin may be bytes; stdout and stderr may be io.BytesIO."""
    stdout, stderr = io.BytesIO(), io.BytesIO()
    assert upper(EVERYTHING, stdout, stderr=stderr).run() == 0
    assert stdout.getvalue() == EVERYTHING.upper()
    assert stderr.getvalue() == b"on stderr\n"


def test_bytes_are_read_from_the_beginning_by_each_run() -> None:
    """A program that runs again reads the same bytes; a file goes on where it is."""
    stdout = io.BytesIO()
    program = upper(b"abc", stdout, stderr=io.BytesIO())
    assert [program.run(), program.run()] == [0, 0]
    assert stdout.getvalue() == b"ABCABC"
    stdout = io.BytesIO()
    program = upper(io.BytesIO(b"abc"), stdout, stderr=io.BytesIO())
    assert [program.run(), program.run()] == [0, 0]
    assert stdout.getvalue() == b"ABC"


def test_files(tmp_path: Path) -> None:
    """Binary files of any kind; what the host reads and writes before and afterwards keeps its place."""
    (tmp_path / "in").write_bytes(b"line\n" + EVERYTHING)
    with (tmp_path / "in").open("rb") as stdin, (tmp_path / "out").open("wb") as stdout:
        assert stdin.readline() == b"line\n"
        stdout.write(b"first\n")
        assert upper(stdin, stdout, stderr=io.BytesIO()).run() == 0
        assert (tmp_path / "out").read_bytes() == b"first\n" + EVERYTHING.upper()
        assert stdin.read() == b""
        stdout.write(b"last\n")
    assert (tmp_path / "out").read_bytes() == b"first\n" + EVERYTHING.upper() + b"last\n"


def test_files_that_are_not_what_their_descriptor_is(tmp_path: Path) -> None:
    """A gzip file has a file descriptor, but a guest reads and writes what is inside."""
    with gzip.open(tmp_path / "in", "wb") as file:
        file.write(EVERYTHING)
    with gzip.open(tmp_path / "in", "rb") as stdin, gzip.open(tmp_path / "out", "wb") as stdout:
        assert upper(cast("BinaryIO", stdin), cast("BinaryIO", stdout), stderr=io.BytesIO()).run() == 0
    assert gzip.decompress((tmp_path / "out").read_bytes()) == EVERYTHING.upper()


def test_pipes(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """A guest waits for what a pipe brings; what the host has in the file's buffer is not lost."""
    reader, writer = pipe
    writer.write(b"first\nsecond\n")
    assert reader.readline() == b"first\n"
    stdout = io.BytesIO()

    def write() -> None:
        for part in (b"a", b"bc", EVERYTHING):
            writer.write(part)
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    assert upper(reader, stdout, stderr=io.BytesIO()).run() == 0
    thread.join()
    assert stdout.getvalue() == b"SECOND\nABC" + EVERYTHING.upper()


def test_much_output_to_a_pipe(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    """Write more than fits into the pipe, although it has no reader at first."""
    reader, writer = pipe
    read: list[bytes] = []

    def run() -> None:
        assert upper(EVERYTHING * 20, writer, stderr=io.BytesIO()).run() == 0
        writer.close()

    thread = threading.Thread(target=run)
    thread.start()
    while part := reader.read(1000):
        read.append(part)
    thread.join()
    assert b"".join(read) == EVERYTHING.upper() * 20


def test_inherited_by_default() -> None:
    """Without them the guest has the process's own."""
    code = """
from greenctx.wasix import Program
import sys
print(Program.from_file(sys.argv[1], argv=["process", "streams"], stdin=b"abc\\n").run(), flush=True)
"""
    ran = run_python(code, str(compile_guest("process")))
    assert (ran.stdout, ran.stderr) == ("ABC\n0\n", "on stderr\n")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stdin": "text"}, "stdin must be bytes or a binary file to read, not 'text'"),
        ({"stdin": io.StringIO()}, "stdin must be bytes or a binary file"),
        ({"stdin": 0}, "stdin must be bytes or a binary file"),
        ({"stdout": io.StringIO()}, "stdout must be a binary file to write to"),
        ({"stdout": b""}, "stdout must be a binary file to write to"),
        ({"stderr": "/dev/null"}, "stderr must be a binary file to write to"),
    ],
)
def test_what_is_no_binary_file(settings: dict[str, Any], message: str) -> None:
    """A TypeError at once, which names it."""
    with pytest.raises(TypeError, match=message):
        upper(**settings)


def test_files_that_lie() -> None:
    """A file that returns text, or more than was asked for, is an error of the host's, not of the guest's."""

    class Liar(io.RawIOBase):
        def __init__(self, answer: object) -> None:
            self.answer = answer

        def read(self, _: int = -1) -> Any:
            return self.answer

        def write(self, _: object) -> Any:
            return self.answer

    for answer in ("text", b"x" * 10_000_000, 3):
        with pytest.raises(TypeError, match=r"stdin must be a binary file, but .*Liar"):
            upper(cast("BinaryIO", Liar(answer))).run()
    for answer in (b"", -1, 10**9):
        with pytest.raises(TypeError, match=r"Liar.* returned .* for a write of"):
            upper(b"abc", cast("BinaryIO", Liar(answer))).run()
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ValueError, match="closed file"):
        upper(b"abc", closed).run()
    stdout = io.BytesIO()
    assert upper(b"abc", stdout, stderr=io.BytesIO()).run() == 0
    assert stdout.getvalue() == b"ABC"


class Failing(io.RawIOBase):
    """A file of which every use fails; or that takes and gives little at once; or that has to wait."""

    def __init__(self, error: OSError | None = None, *, most: int | None = 3) -> None:
        self.error, self.most, self.written = error, most, b""

    def read(self, size: int = -1) -> Any:
        if self.error:
            raise self.error
        return None if self.most is None else b"abcdefgh"[: min(size, self.most)]

    def write(self, data: Any) -> Any:
        if self.error:
            raise self.error
        if self.most is not None:
            self.written += bytes(data[: self.most])
        return None if self.most is None else min(len(data), self.most)


@pytest.mark.parametrize(
    ("error", "errno"),
    [
        (OSError(28, "full"), NOSPC),
        (BrokenPipeError(32, "gone"), PIPE),
        (IsADirectoryError(21, "a directory"), ISDIR),
        (BlockingIOError(11, "later"), AGAIN),
        (OSError("no number"), IO),
        (TimeoutError(110, "never"), IO),
        (OSError(99999, "unknown"), IO),
    ],
)
def test_errors(error: OSError, errno: int) -> None:
    """The errno of a file's exception is the errno of the call."""
    file = cast("BinaryIO", Failing(error))
    guest = WasiGuest(Stdio(file, file, file))
    assert guest.read(0, 10) == errno
    assert guest.write(1, b"x") == guest.write(2, b"x") == -errno
    assert guest.read(0, 0) == b""
    assert guest.write(1, b"") == 0


def test_a_file_runs_into_the_limit_of_time() -> None:
    """A time limit that ends a file's operation ends the guest, too, instead of giving it an errno."""
    file = cast("BinaryIO", Failing(TimeLimitExceeded(1)))
    guest = WasiGuest(Stdio(file, file))
    with pytest.raises(TimeLimitExceeded):
        guest.read(0, 10)
    with pytest.raises(TimeLimitExceeded):
        guest.write(1, b"x")


def test_partial() -> None:
    """A file may read or write only a part. If it would block, with no descriptor to wait for: EAGAIN."""
    file = Failing()
    guest = WasiGuest(Stdio(cast("BinaryIO", file), cast("BinaryIO", file)))
    assert guest.read(0, 100) == b"abc"
    assert guest.read(0, 1, 0, 1, 100) == b"abc"
    assert guest.write(1, b"ab", b"", b"cd") == 3
    assert file.written == b"abc"
    file.most = None
    assert guest.read(0, 100) == AGAIN
    assert guest.write(1, b"ab") == -AGAIN


def test_reading() -> None:
    """Buffers of all sizes, several at once, none, and the end of the data."""
    guest = WasiGuest(Stdio(EVERYTHING))
    assert guest.read(0) == guest.read(0, 0) == guest.read(0, 0, 0) == b""
    assert guest.read(0, 1, 0, 2, 300, 7) == EVERYTHING[:310]
    assert guest.read(0, 30_000) == EVERYTHING[310:]
    assert guest.read(0, 1) == guest.read(0, 1, 1) == b""
    assert guest.get(BUFFERS, 1) == EVERYTHING[310:311]  # untouched


def test_huge_buffers() -> None:
    """A million buffers of all the guest's memory are as good as the first few: reading and writing may do less."""
    stdout = io.BytesIO()
    guest = WasiGuest(Stdio(b"x" * 3_000_000, stdout))
    everything = (0).to_bytes(4, "little") + END.to_bytes(4, "little")
    guest.put(0, everything * (END // 8))
    assert guest.call("fd_write", 1, 0, END // 8, RESULT) == 0
    assert 0 < guest.result() == len(stdout.getvalue()) <= 1 << 20
    guest.put(0, everything * (END // 8))
    assert guest.call("fd_read", 0, 0, END // 8, END - 4) == 0
    assert guest.get(0, END - 4) == b"x" * (END - 4)


@pytest.mark.parametrize("name", ["fd_read", "fd_write"])
def test_pointers(name: str) -> None:
    """An address outside of the memory is fault, and nothing is read or written."""
    stdin, stdout = io.BytesIO(b"abc"), io.BytesIO()
    guest = WasiGuest(Stdio(stdin, stdout))
    fd = 0 if name == "fd_read" else 1
    good = guest.buffers(3)
    for iovecs, count, stored in (
        (END - 7, 1, RESULT), (END, 1, RESULT), (-8, 1, RESULT), (-1, 1, RESULT), (2**31 - 1, 1, RESULT),
        (IOVECS, -1, RESULT), (IOVECS, 2**29, RESULT), (IOVECS, 2**28 + 1, RESULT), (IOVECS, END // 8, RESULT),
        (IOVECS, 1, END - 3), (IOVECS, 1, END), (IOVECS, 1, -1), (IOVECS, 1, -4), (IOVECS, 1, -(2**31)),
    ):  # fmt: skip
        assert guest.call(name, fd, iovecs, count, stored) == FAULT, (iovecs, count, stored)
    for start, length in ((END, 1), (END - 2, 3), (0xFFFFFFFF, 1), (0, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF)):
        guest.put(IOVECS, start.to_bytes(4, "little") + length.to_bytes(4, "little"))
        assert guest.call(name, fd, *good) == FAULT, (start, length)
    assert (stdin.tell(), stdout.getvalue()) == (0, b"")
    guest.put(IOVECS, (END - 3).to_bytes(4, "little") + (3).to_bytes(4, "little"))
    assert guest.call(name, fd, IOVECS, 1, IOVECS + 8) == 0
    assert guest.get(END - 3, 3) == (b"abc" if name == "fd_read" else stdout.getvalue())


def test_descriptors_that_are_not_open() -> None:
    """badf, as for a stream used in the wrong direction."""
    guest = WasiGuest(Stdio(b"abc", io.BytesIO(), io.BytesIO()))
    for fd in (3, 99, -1, 2**31 - 1, -(2**31), 1, 2):
        assert guest.read(fd, 4) == BADF
    for fd in (3, 99, -1, 2**31 - 1, -(2**31), 0):
        assert guest.write(fd, b"x") == -BADF
    assert guest.read(0, 4) == b"abc"


def moves(guest: WasiGuest) -> list[object]:
    """Closing and renumbering the standard streams; the number of bytes identifies stdin."""
    file, name = guest.open("file"), "file"
    said: list[object] = [
        file,
        guest.call("fd_renumber", 0, 0),
        guest.call("fd_renumber", 99, 0),
        guest.call("fd_renumber", 0, 99),
        guest.call("fd_renumber", file, 0),  # the file is stdin now
        guest.read(0, 4),
        guest.read(file, 4),
        guest.call("fd_close", file),
        guest.call("fd_close", 0),
        guest.read(0, 4),
        guest.call("fd_close", 0),
    ]
    said += [fd := guest.open(name), guest.read(fd, 5), guest.read(0, 5), fd == 0 or guest.call("fd_close", fd)]
    other = guest.open(name)
    said += [
        other,
        guest.call("fd_renumber", 1, other),  # stdout moves
        guest.write(1, b"x"),
        guest.write(other, b"one"),
        guest.call("fd_pread", other, *guest.buffers(3)[:2], 0, RESULT),
        guest.call("fd_close", other),
        guest.write(other, b"x"),
        guest.call("fd_close", 1),
    ]
    return said


@pytest.mark.parametrize("call", ["fd_read", "fd_write", "poll_oneoff"])
def test_a_handler_that_raises_while_the_guest_waits(call: str) -> None:
    """Also if it is an OSError, as a TimeoutError is: it is the host's, and no errno for the guest."""
    text = """(module (import "wasi_snapshot_preview1" "CALL" (func $call (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 17) (data (i32.const 0) "\\40\\00\\00\\00\\00\\00\\10\\00")
      (func (export "_start")  ;; 1 MB for the streams; 1,000 s for the clock
        (i32.store (i32.const 48) (i32.const 1)) (i64.store (i32.const 56) (i64.const 1000_000_000_000))
        (loop (drop (call $call ARGUMENTS)) (br 0))))"""
    arguments = {
        "fd_read": "(i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)",
        "fd_write": "(i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)",
        "poll_oneoff": "(i32.const 32) (i32.const 128) (i32.const 1) (i32.const 16)",
    }
    check_script(
        f"""
        import os, signal, threading
        from processes import when_main_waits
        from greenctx.wasix import Program

        def stop(*_):
            raise TimeoutError("the host's")

        (reads, kept), (kept_too, writes) = os.pipe(), os.pipe()
        with os.fdopen(reads, "rb", 0) as stdin, os.fdopen(writes, "wb", 0) as stdout:
            program = Program({text.replace("CALL", call).replace("ARGUMENTS", arguments[call]).encode()!r},
                              stdin=stdin, stdout=stdout)
            signal.signal(signal.SIGALRM, stop)
            when_main_waits(lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM))
            try:
                program.run()
            except TimeoutError as error:
                assert str(error) == "the host's", error
            else:
                raise AssertionError
        """
    )


def test_closing_and_renumbering(tmp_path: Path) -> None:
    """The standard streams can be closed and moved, and files put in their place: all as wasmtime does it."""
    (tmp_path / "file").write_bytes(b"0123456789")
    stdout = io.BytesIO()
    assert moves(WasiGuest(Stdio(b"stdin", stdout), str(tmp_path))) == moves(
        WasiGuest(None, str(tmp_path), native=True)
    )
    assert stdout.getvalue() == b"one"


def test_moved_streams(tmp_path: Path) -> None:
    """stdin goes on being read under its new number, and polled."""
    (tmp_path / "file").write_bytes(b"0123456789")
    guest = WasiGuest(Stdio(b"stdin"), str(tmp_path))
    fd = guest.open("file")
    assert guest.call("fd_renumber", 0, fd) == 0
    assert guest.read(0, 2) == BADF
    assert guest.read(fd, 2) == b"st"
    assert guest.poll((7, 1, fd)) == [(7, 0, 1)]
    assert guest.open("file") == 0
    assert guest.read(0, 2) == b"01"
    assert guest.read(fd, 2) == b"di"


def files(guest: WasiGuest) -> list[object]:
    """Reading and writing a file, with positions and without."""
    fd, size = guest.open("new", create=True), 60_000
    data = EVERYTHING[:size]
    said: list[object] = [guest.write(fd, data[:40_000], data[40_000:]) for _ in range(20)]
    said += [guest.read(fd, 10), guest.call("fd_seek", fd, 0, 0, RESULT), guest.read(fd, 10, 0, size), guest.read(fd)]
    guest.put(BUFFERS, b"middle")
    said += [
        guest.call("fd_pwrite", fd, *guest.buffers(6)[:2], 100, RESULT),
        guest.call("fd_pread", fd, *guest.buffers(10)[:2], 98, RESULT),
        guest.get(BUFFERS, 10),
        guest.read(fd, 65_536),
        guest.write(3, b"to a directory"),
        guest.read(3, 10),
        guest.call("fd_pread", 0, *guest.buffers(3)[:2], 0, RESULT),
        guest.call("fd_seek", 1, 0, 0, RESULT),
        guest.call("fd_filestat_get", 0, BUFFERS),
        guest.call("fd_fdstat_get", 99, BUFFERS),
    ]
    return said


def test_other_files(tmp_path: Path) -> None:
    """Files that are not the standard streams are read and written as without greenctx."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "native").mkdir()
    ours = files(WasiGuest(Stdio(b"", io.BytesIO()), str(tmp_path / "ours")))
    assert ours == files(WasiGuest(None, str(tmp_path / "native"), native=True))
    assert (tmp_path / "ours" / "new").read_bytes() == (tmp_path / "native" / "new").read_bytes()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_of_the_process(closed: str, tmp_path: Path) -> None:
    """A stream closed when the command starts is empty or takes everything; no file is mistaken for it."""
    (tmp_path / "in.txt").write_text("text")
    guest = compile_guest("process")
    script = 'exec "$@" ' + closed
    command = [
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        "-m",
        "greenctx",
        "run",
        "--dir",
        f"{tmp_path}::/d",
        str(guest),
    ]
    for args in (["streams"], ["copy", "/d/in.txt", "/d/out.txt"]):
        ran = subprocess.run([*command, *args], input=b"abc", capture_output=True, timeout=TIMEOUT, check=False)
        assert ran.returncode == 0, ran.stderr
        if args == ["streams"]:
            assert ran.stdout == (b"ABC" if closed == "2>&-" else b"")
    assert (tmp_path / "out.txt").read_text() == "text"
    assert (tmp_path / "in.txt").read_text() == "text"


def test_stdin_closed_in_the_process() -> None:
    """A program whose process has no stdin gets badf when it reads."""
    code = """
import os
from guests.wasi_guest import WasiGuest
from greenctx.wasix import Stdio
guest = WasiGuest(Stdio())
os.close(0)
assert guest.read(0, 10) == 8, guest.read(0, 10)
assert guest.poll((1, 1, 0)) == 8
"""
    ran = run_python(code)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_nobody_reads_the_output() -> None:
    """A pipe whose reader has gone is EPIPE for the guest, which decides what to do."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as stdout:
        guest = WasiGuest(Stdio(b"", cast("BinaryIO", stdout)))
        assert guest.write(1, b"x") == -PIPE
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as stdout:
            assert WasiGuest(Stdio(b"", stdout)).write(1, b"x") == -NOSPC


LINES = "12 one\n7 two words\n\n99 last without an end"


@pytest.mark.parametrize("mode", ["scanf", "fgets", "getline", "getchar", "fread", "read"])
def test_c_library(mode: str) -> None:
    """scanf, fgets, getline, getchar, fread and read of a C library, from bytes and from the command's pipe."""
    stdout = io.BytesIO()
    program = Program.from_file(compile_guest("reads"), argv=["reads", mode], stdin=LINES.encode(), stdout=stdout)
    assert program.run() == 0
    expected = "[12][one][7][two]" if mode == "scanf" else "".join(f"[{line}]" for line in LINES.split("\n"))
    assert stdout.getvalue().decode() == expected
    ran = run_greenctx("run", compile_guest("reads"), mode, stdin=LINES.encode())
    assert (ran.returncode, ran.stdout.decode(), ran.stderr) == (0, expected, b"")
