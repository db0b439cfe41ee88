"""A child of a fork has everything that a run needs, whenever the parent forked. Its parent's threads it has not."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

import pytest
from processes import check_host

from greenctx.wasix import Program

# Large enough to be compiled on several threads.
LARGE = b'(module (memory 1) (func (export "_start"))' + b"(func (drop (i32.load (i32.const 8))))" * 800 + b")"
LARGE_MODULE = """
LARGE = b'(module (memory 1) (func (export "_start"))' + b"(func (drop (i32.load (i32.const 8))))" * 800 + b")"
"""

FILES = """
import tempfile
directory = tempfile.mkdtemp()
with open(os.path.join(directory, "f"), "w") as file:
    file.write("hello")
OPENS = b'''(module
 (import "wasi_snapshot_preview1" "path_open"
   (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
 (import "host" "fork" (func $fork))
 (memory (export "memory") 1) (data (i32.const 0) "f")
 (data (i32.const 16) "\\\\80\\\\00\\\\00\\\\00\\\\05\\\\00\\\\00\\\\00")
 (func $check (param i32) (if (local.get 0) (then unreachable)))
 (func $use
  (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
    (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $check (call $read (i32.load (i32.const 32)) (i32.const 16) (i32.const 1) (i32.const 36)))
  (call $check (call $close (i32.load (i32.const 32))))
  (if (i32.ne (i32.load (i32.const 128)) (i32.const 0x6c6c6568)) (then unreachable)))
 (func (export "_start") (call $use) (call $fork) (call $use)))'''
def program(fork=lambda: None, **settings):
    made = Program(OPENS, preopens={"/": directory}, **settings)
    made.linker.define_func("host", "fork", NOTHING, fork)
    return made
"""
"""A guest that opens and reads a file, before and after it calls its host."""


def test_to_compile() -> None:
    """wasmtime's threads are not there; also what greenctx itself compiles, when it is first needed."""
    check_host(f"""{LARGE_MODULE}
Program(LARGE).run()
assert in_child(lambda: Program(LARGE).run()) == "0"
assert in_child(lambda: Program(EMPTY).run()) == "0"
""")


def test_to_compile_where_the_parent_has_not() -> None:
    check_host(f"""{LARGE_MODULE}
assert in_child(lambda: Program(LARGE).run()) == "0"
""")


def test_to_use_files() -> None:
    """The parent has used some, or none; so have several of its threads."""
    check_host(f"""{FILES}
one = program(limits=Limits(seconds=60))
assert in_child(one.run) == "0"
assert one.run() == 0
assert in_child(one.run) == "0"
assert in_child(lambda: program().run()) == "0"
threads = [threading.Thread(target=one.run) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert in_child(one.run) == "0"
assert in_child(lambda: in_child(one.run)) == "0"
""")


def test_to_use_files_on_an_engine_of_the_hosts_own() -> None:
    """greenctx's part of WASI is compiled for it there."""
    check_host(f"""{FILES}
config = wasmtime.Config()
config.epoch_interruption = True
engine = wasmtime.Engine(config)
module = wasmtime.Module(engine, OPENS.decode())
def run():
    store, linker = wasmtime.Store(engine), Linker(engine)
    wasi = wasmtime.WasiConfig()
    wasi.preopen_dir(directory, "/")
    store.set_wasi(wasi)
    store.set_epoch_deadline(1)
    linker.define_wasi()
    linker.define_wasix()
    linker.define_func("host", "fork", NOTHING, lambda: None)
    call(store, linker.instantiate(store, module).exports(store)["_start"])
    return 0
assert in_child(run) == "0"
run()
assert in_child(run) == "0"
""")


def test_within_a_host_function_that_uses_files_then() -> None:
    check_host(f"""{FILES}
read, write = os.pipe()
parent = os.getpid()
def fork():
    global child
    child = os.fork()
assert program(fork).run() == 0
if os.getpid() != parent:
    os.write(write, b"right")
    os._exit(0)
os.close(write)
assert end_of(child, read) == "right"
""")


ENDLESS = """
endless = b'(module (import "host" "fork" (func $fork)) (func (export "_start") (call $fork) (loop (br 0))))'
read, write = os.pipe()
child = 0
class Enough(Exception): pass
def fork():
    global child
    child = os.fork()
    if child:
        raise Enough
    in_the_child()
def in_the_child(): pass
def finish(error):
    if child:
        os.close(write)
        print(end_of(child, read))
    else:
        os.write(write, repr(error).encode())
        os._exit(0)
"""


@pytest.mark.parametrize("seconds", [0.2, None])
def test_within_a_host_function(seconds: float | None) -> None:
    """The time limit ends the child, and so does Ctrl-C."""
    check_host(f"""{ENDLESS}
if not {seconds}:
    def in_the_child():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
program = Program(endless, limits=Limits(seconds={seconds}))
program.linker.define_func("host", "fork", NOTHING, fork)
try:
    program.run()
except BaseException as error:
    ended = error
if child:
    assert isinstance(ended, Enough)
    os.close(write)
    assert end_of(child, read) == repr({"TimeLimitExceeded(0.2)" if seconds else "KeyboardInterrupt()"})
else:
    os.write(write, repr(ended).encode())
    os._exit(0)
""")


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="asyncio runs no task in the child of a fork from within it")
def test_within_a_task() -> None:
    """The child goes on in the event loop that it has got, and its time limit ends the guest that computes."""
    check_host(f"""{ENDLESS}
import asyncio
program = Program(endless, limits=Limits(seconds=0.2))
program.linker.define_func("host", "fork", NOTHING, fork)
try:
    asyncio.run(program.run_async())
except BaseException as error:
    ended = error
if child:
    assert isinstance(ended, Enough)
    os.close(write)
    assert end_of(child, read) == repr(TimeLimitExceeded(0.2))
else:
    os.write(write, repr(ended).encode())
    os._exit(0)
""")


@pytest.mark.parametrize("way", ["run", "run_async"])
def test_a_child_without_pythons_hooks(way: str) -> None:
    """uWSGI forks like this: Python is not told, and its registered hooks are not called."""
    check_host(f"""{FILES}
import asyncio, ctypes
one, endless = program(limits=Limits(seconds=60)), Program(SPIN, limits=Limits(seconds=0.2))
def run(program):
    return program.run() if "{way}" == "run" else asyncio.run(program.run_async())
def limited():
    try:
        run(endless)
    except TimeLimitExceeded:
        return "limited"
run(one)
limited()
from greenctx.wasix._clock import epochs
while epochs._thread_runs.locked():
    time.sleep(0.01)  # a child cannot have the GIL for which another thread of its parent's waited
fork = ctypes.PyDLL(None).fork
os.fork = fork
assert in_child(lambda: run(one)) == "0"
assert in_child(limited) == "limited"
assert in_child(lambda: Program(EMPTY).run()) == "0"
assert epochs._thread_runs.acquire(False)  # as if the thread ran, which such a child does not have
assert in_child(limited) == "limited"
""")


def test_ctrl_c_in_a_child() -> None:
    """Without a time limit, and though the thread that forks is not the main one."""
    check_host("""
        def interrupted():
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                Program(SPIN).run()
            except KeyboardInterrupt:
                return "interrupted"
        Program(EMPTY).run()
        assert in_child(interrupted) == "interrupted"
        results = []
        thread = threading.Thread(target=lambda: results.append(in_child(interrupted)))
        thread.start()
        thread.join()
        assert results == ["interrupted"]
    """)


def _run(code: bytes) -> int:
    return Program(code).run()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_pool_of_processes() -> None:
    assert _run(LARGE) == 0
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        assert [*pool.map(_run, [LARGE] * 4, timeout=60)] == [0] * 4
