"""WASI calls that need no Python: they do what they do through Python, and only where nothing has to wait."""

from __future__ import annotations

import gc
import io
import random
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from guests.wasi_guest import BUFFERS, END, IOVECS, RESULT, WasiGuest
from processes import check_script
from wasmtime import Config, Engine, Module, Store, WasiConfig

from greenctx.wasix import Limits, Linker, Program, Stdio, TimeLimitExceeded, call
from greenctx.wasix._clock.epochs import yield_every_epoch
from greenctx.wasix._fibers.host_functions import HostFunction

if TYPE_CHECKING:
    from pathlib import Path

    from wasmtime import Func

BADF, FAULT = 8, 21
EVERY = 4096  # of so many direct calls, Python serves one

# Calls WASI's function as often as it is told, on the standard stream, or on "file", which it opens; returns the errno.
LOOP = """(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\\40\\00\\00\\00\\08\\00\\00\\00") (data (i32.const 64) "contents") (data (i32.const 128) "file")
  (func (export "open") (result i32)
    (drop (call $open (i32.const 3) (i32.const 0) (i32.const 128) (i32.const 4) (i32.const 1)
      (i64.const 66) (i64.const 66) (i32.const 0) (i32.const 16)))
    (i32.load (i32.const 16)))
  (func $write_often (export "write") (param $fd i32) (param $left i32) (result i32) (local $errno i32)
    (loop $again
      (if (local.tee $errno (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16))) (then
        (return (local.get $errno))))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.const 0))
  (func (export "read") (param $fd i32) (param $left i32) (result i32) (local $errno i32)
    (loop $again
      (if (local.tee $errno (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16))) (then
        (return (local.get $errno))))
      (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
    (i32.const 0))
  (func (export "_start") (drop (call $write_often (i32.const 1) (i32.const 0)))))"""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the host functions that Python has served."""
    names: list[str] = []
    serve = HostFunction.serve

    def serve_and_note(self: HostFunction, fiber: Any, store: Any) -> None:
        names.append(self.name.rpartition(".")[2])
        serve(self, fiber, store)

    monkeypatch.setattr(HostFunction, "serve", serve_and_note)
    return names


class Looping:
    """The guest above in a store."""

    def __init__(self, directory: Path, *, engine: Engine | None = None, linker: Linker | None = None) -> None:
        self.engine = engine or Engine()
        self.linker = linker or Linker(self.engine)
        if linker is None:
            self.linker.define_wasi(Stdio(b"", io.BytesIO(), io.BytesIO()))
        self.store = Store(self.engine)
        config = WasiConfig()
        config.preopen_dir(str(directory), "/")
        self.store.set_wasi(config)
        self.exports = self.linker.instantiate(self.store, Module(self.engine, LOOP)).exports(self.store)

    def call(self, name: str, *args: int) -> int:
        return cast("int", call(self.store, cast("Func", self.exports[name]), *args))


def test_files_are_left_to_wasmtime(served: list[str], tmp_path: Path) -> None:
    """Python serves the first call of a function, and one of so many."""
    guest = Looping(tmp_path)
    file = guest.call("open")
    assert guest.call("write", file, 100) == 0
    assert served == ["path_open", "fd_write"]
    assert guest.call("write", file, EVERY) == 0
    assert served[2:] == ["fd_write"]
    assert guest.call("read", file, 10) == guest.call("write", file, 10) == 0
    assert served[3:] == ["fd_read"]
    assert (tmp_path / "file").read_bytes() == b"contents" * (100 + EVERY + 10)
    assert guest.call("write", 3, 10) == BADF
    assert guest.call("write", 99, 10) == BADF


def test_every_call_is_reported(served: list[str], tmp_path: Path) -> None:
    """A linker that reports host calls has Python serve all of them, from the beginning or from some time on."""
    engine = Engine()
    for begun in (True, False):
        linker = Linker(engine, report_host_calls=begun)
        linker.define_wasi(Stdio(b"", io.BytesIO(), io.BytesIO()))
        guest = Looping(tmp_path, engine=engine, linker=linker)
        file = guest.call("open")
        if not begun:
            assert guest.call("write", file, 10) == 0
            linker.begin_host_call_reports()
        served.clear()
        assert guest.call("write", file, 10) == 0
        assert served == ["fd_write"] * 10


def test_two_guests_of_one_store(tmp_path: Path) -> None:
    """Each has a memory of its own, and each call uses that of its guest."""
    guest = Looping(tmp_path)
    other = guest.linker.instantiate(guest.store, Module(guest.engine, LOOP.replace("contents", "CONTENTS")))
    write_other = cast("Func", other.exports(guest.store)["write"])
    file = guest.call("open")
    for _ in range(3):
        assert guest.call("write", file, 2) == 0
        assert call(guest.store, write_other, file, 2) == 0
    assert (tmp_path / "file").read_bytes() == b"contentscontentsCONTENTSCONTENTS" * 3


def test_two_linkers_of_one_store(tmp_path: Path) -> None:
    """Each has standard streams of its own, so what a descriptor refers to depends on the linker."""
    guest = Looping(tmp_path)
    output = io.BytesIO()
    linker = Linker(guest.engine)
    linker.define_wasi(Stdio(b"", output, io.BytesIO()))
    other = linker.instantiate(guest.store, Module(guest.engine, LOOP))
    write_other = cast("Func", other.exports(guest.store)["write"])
    file = guest.call("open")
    for _ in range(3):
        assert guest.call("write", file, 2) == guest.call("write", 1, 2) == 0
        assert call(guest.store, write_other, file, 2) == call(guest.store, write_other, 1, 1) == 0
    assert (tmp_path / "file").read_bytes() == b"contents" * 12
    assert output.getvalue() == b"contents" * 3


@pytest.mark.parametrize("limited", [True, False])
def test_epochs_end_at_any_time(limited: bool, tmp_path: Path) -> None:
    """Also within wasmtime's function, where the guest cannot yield: it does so right afterwards."""
    config = Config()
    config.epoch_interruption = True
    engine = Engine(config)
    guest = Looping(tmp_path, engine=engine)
    yield_every_epoch(guest.store)
    file = guest.call("open")
    ended = threading.Event()

    def end_epochs() -> None:
        while not ended.is_set():
            engine.increment_epoch()

    thread = threading.Thread(target=end_epochs)
    thread.start()
    try:
        assert guest.call("write" if limited else "read", file, 3000) == 0
    finally:
        ended.set()
        thread.join()


def test_time_limit(tmp_path: Path) -> None:
    """It ends a guest that does nothing but direct calls."""
    text = LOOP.replace(
        '(func (export "_start") (drop (call $write_often (i32.const 1) (i32.const 0)))',
        """
      (func (export "_start") (local $fd i32)
        (drop (call $open (i32.const 3) (i32.const 0) (i32.const 128) (i32.const 4) (i32.const 1)
          (i64.const 2) (i64.const 2) (i32.const 0) (i32.const 16)))
        (local.set $fd (i32.load (i32.const 16)))
        (loop (drop (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 16))) (br 0))""",
    )
    with pytest.raises(TimeLimitExceeded):
        Program(text.encode(), preopens={"/": tmp_path}, limits=Limits(seconds=0.3)).run()


def files(guest: WasiGuest, rng: random.Random) -> list[object]:
    """What comes of reading and writing with random buffers and pointers, most of them good."""
    fd, said = guest.open("new", create=True), list[object]()

    def number(*good: int) -> int:
        bad = [END, END - 1, END - 4, 0, -1, -8, 2**31 - 1, -(2**31), 3]
        return rng.choice(bad) if rng.random() < 0.03 else rng.choice(good)

    for _ in range(300):
        count = rng.choice([0, 1, 1, 2, 3, 20])
        for index in range(count):
            place = IOVECS + 8 * index
            guest.put(place, (number(BUFFERS, BUFFERS + 100) & 0xFFFFFFFF).to_bytes(4, "little"))
            guest.put(place + 4, (number(0, 1, 7, 50) & 0xFFFFFFFF).to_bytes(4, "little"))
        name = rng.choice(["fd_write", "fd_read", "fd_write", "fd_read", "fd_seek", "fd_pread", "fd_pwrite", "fd_tell"])
        on = number(fd, fd, fd, fd, 3, 0, 1, 99)
        buffers = number(IOVECS), number(count)
        result = number(RESULT, RESULT + 4 if name[3:] not in ("seek", "tell") else RESULT)
        arguments = {
            "fd_seek": (rng.randrange(300), rng.choice([0, 1, 2]), result),
            "fd_tell": (result,),
            "fd_pread": (*buffers, rng.randrange(300), result),
            "fd_pwrite": (*buffers, rng.randrange(300), result),
        }.get(name, (*buffers, result))
        guest.put(BUFFERS, rng.randbytes(200))
        try:
            said.append((name, guest.call(name, on, *arguments)))
        except Exception as error:  # wasmtime ends the program for some
            said.append((name, str(error).partition("\n")[0]))
        said.append((guest.get(RESULT, 8), guest.get(BUFFERS, 200)))
    return said


@pytest.mark.parametrize("seed", range(8))
def test_as_wasmtime(seed: int, tmp_path: Path) -> None:
    """Reading and writing files does the same as without greenctx, whatever the arguments are."""
    told = []
    for native in (True, False):
        directory = tmp_path / str(native)
        directory.mkdir()
        guest = WasiGuest(Stdio(b"", io.BytesIO(), io.BytesIO()), str(directory), native=native)
        guest.call("fd_close", 0)  # so that the streams, which differ, are no part of it
        guest.call("fd_close", 1)
        told.append((files(guest, random.Random(seed)), (directory / "new").read_bytes()))
    for ours, theirs in zip(told[1][0], told[0][0], strict=True):
        assert ours == theirs
    assert told[0][1] == told[1][1]


def test_host_functions_are_freed(tmp_path: Path) -> None:
    """They end with their linker."""
    guest = Looping(tmp_path)
    references = [*guest.linker._call_reports._silent]
    assert guest.call("write", guest.call("open"), 10) == 0
    assert len(references) > 4
    guest.store.close()
    guest.linker.close()
    del guest
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []


STREAMS = """
import os, select, socket, sys, threading, time, tty
from greenctx.wasix import Program
from greenctx.wasix._fibers.host_functions import HostFunction

served = []
serve = HostFunction.serve
def serve_and_note(self, fiber, store):
    served.append(self.name.rpartition(".")[2])
    serve(self, fiber, store)
HostFunction.serve = serve_and_note
saved = [os.dup(fd) for fd in range(2)]
program = Program(LOOP, command=False)

def run(fd, target, times, name=None):
    '''Run it with that standard stream; return how often Python served it.'''
    served.clear()
    os.dup2(target, fd)
    try:
        errno = program.invoke(name or ("read" if fd == 0 else "write"), fd, times)
    finally:
        os.dup2(saved[fd], fd)
    return errno, len(served)
"""


def streams_script(code: str) -> str:
    return STREAMS.replace("LOOP", repr(LOOP.encode())) + code


def test_streams_that_are_ready(tmp_path: Path) -> None:
    """The process's own stdout and stdin: files, devices; pipes, sockets and terminals that need not be waited for."""
    check_script(
        streams_script(
            f"""
path = {str(tmp_path / "out")!r}
file = os.open(path, os.O_RDWR | os.O_CREAT)
assert run(1, file, 50) == ([0], 1), served
assert os.pread(file, 1000, 0) == b"contents" * 50
os.lseek(file, 0, 0)
assert run(0, file, 60) == ([0], 1), served
null = os.open(os.devnull, os.O_RDWR)
assert run(1, null, 5000) == ([0], 2), served
assert run(0, null, 50) == ([0], 1), served
reads, writes = os.pipe()
assert run(1, writes, 50) == ([0], 1), served
assert os.read(reads, 1000) == b"contents" * 50
os.write(writes, b"x" * 400)
assert run(0, reads, 50) == ([0], 1), served
mine, its = socket.socketpair()
assert run(1, its.fileno(), 50) == ([0], 1), served
assert mine.recv(400, socket.MSG_WAITALL) == b"contents" * 50
mine.sendall(b"x" * 400)
assert run(0, its.fileno(), 50) == ([0], 1), served
mine.close(), its.close()
terminal, its = os.openpty()
tty.setraw(its)
assert run(1, its, 50) == ([0], 1), served
heard = b""
while len(heard) < 400:
    heard += os.read(terminal, 400)
assert heard == b"contents" * 50
os.write(terminal, b"x" * 400)
assert run(0, its, 50)[0] == [0]  # the system may be slow to bring all of it
assert run(0, null, 3, "write")[0] == run(1, null, 3, "read")[0] == [8], served
"""
        )
    )


def test_streams_that_have_nothing_yet() -> None:
    """Python waits for them, where it can be interrupted."""
    check_script(
        streams_script(
            """
from processes import when_main_waits
reads, writes = os.pipe()
mine, its = map(socket.socket.detach, socket.socketpair())
terminal, raw = os.openpty()
tty.setraw(raw)

def write_when_it_is_empty():
    while select.select([stdin], [], [], 0)[0]:
        time.sleep(0)
    when_main_waits(lambda: os.write(other, b"x" * 40))

for stdin, other in ((reads, writes), (its, mine), (raw, terminal)):
    os.write(other, b"x" * 40)
    threading.Thread(target=write_when_it_is_empty).start()
    errno, count = run(0, stdin, 10)
    assert errno == [0] and count == 2, served
"""
        )
    )


def test_pipes_that_are_not_ready() -> None:
    """Python waits for them. Where nobody reads any more, it says so."""
    check_script(
        streams_script(
            """
reads, writes = os.pipe()
taken = []
thread = threading.Thread(target=lambda: [taken.append(part) for part in iter(lambda: os.read(reads, 700), b"")])
os.set_blocking(writes, False)
try:
    while True:
        os.write(writes, bytes(8))
except BlockingIOError:
    os.set_blocking(writes, True)
threading.Timer(0.05, thread.start).start()
errno, count = run(1, writes, 20000)
assert errno == [0] and count >= 1, count
os.close(writes)
while not thread.ident:
    pass
thread.join()
assert b"".join(taken).lstrip(b"\\0") == b"contents" * 20000
reads, writes = os.pipe()
os.close(reads)
assert run(1, writes, 10) == ([64], 1)
"""
        )
    )


@pytest.mark.parametrize("epochs", [True, False])
def test_interrupted(epochs: bool, tmp_path: Path) -> None:
    """Ctrl-C ends a guest that writes for ever to what is always ready; on an engine without epochs, too."""
    check_script(
        f"""
import os, signal, threading
from wasmtime import Engine, Module, Store, WasiConfig
from greenctx.wasix import Linker, Program, Stdio, call

LOOP = {LOOP!r}.replace("(br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))", "(br $again)")
file = os.open({str(tmp_path / "out")!r}, os.O_RDWR | os.O_CREAT)
saved = os.dup(1)

def interrupt():
    while os.fstat(file).st_size < 8 * 10_000:
        pass
    os.kill(os.getpid(), signal.SIGINT)

thread = threading.Thread(target=interrupt)
thread.start()
os.dup2(file, 1)
try:
    if {epochs}:
        Program(LOOP.encode()).run()
    else:
        engine = Engine()
        store, linker = Store(engine), Linker(engine)
        linker.define_wasi(Stdio())
        store.set_wasi(WasiConfig())
        call(store, linker.instantiate(store, Module(engine, LOOP)).exports(store)["write"], 1, 1)
except KeyboardInterrupt:
    os.dup2(saved, 1)
else:
    raise AssertionError("it came to an end")
thread.join()
"""
    )


def test_contexts_write_to_a_pipe() -> None:
    """A program that switches contexts runs with the GIL held. A thread of the same process reads what it writes."""
    text = """(module
    (import "wasix_32v1" "context_create" (func $create (param i32 i32) (result i32)))
    (import "wasix_32v1" "context_switch" (func $switch (param i64) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1) (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $other)
    (data (i32.const 0) "\\40\\00\\00\\00\\00\\08\\00\\00")
    (func $other (loop
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
      (drop (call $switch (i64.const 0))) (br 0)))
    (func (export "_start") (local $left i32)
      (local.set $left (i32.const 3000))
      (drop (call $create (i32.const 32) (i32.const 0)))
      (loop
        (drop (call $switch (i64.const 1)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))
        (br_if 0 (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"""
    check_script(
        f"""
import os, threading
from greenctx.wasix import Program
reads, writes = os.pipe()
sizes = []
thread = threading.Thread(target=lambda: [sizes.append(len(part)) for part in iter(lambda: os.read(reads, 65536), b"")])
thread.start()
saved = os.dup(1)
os.dup2(writes, 1)
assert Program({text.encode()!r}).run() == 0
os.dup2(saved, 1)
os.close(writes)
thread.join()
assert sum(sizes) == 6000 * 2048, sum(sizes)
"""
    )
