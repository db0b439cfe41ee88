"""When the system lacks a resource, the error names it, and does not blame the program."""

from __future__ import annotations

import pytest
from processes import check_host

from greenctx.wasix import ResourcesExhausted

FEW = """
import copy, errno, resource
GUEST = b'(module (memory (export "memory") 1) (data (i32.const 0) "x") (func (export "_start")))'
def limit(what, count):
    resource.setrlimit(what, (count, count))
def assert_exhausted(run, errno, resource):
    try:
        run()
    except ResourcesExhausted as error:
        assert isinstance(error, OSError)
        assert (error.errno, error.resource) == (errno, resource), repr(error)
        assert resource in str(error), str(error)
    else:
        raise AssertionError("it went well")
def no_descriptors():
    limit(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))))
    while True:
        try:
            os.dup(0)
        except OSError:
            return
"""


def test_address_space() -> None:
    check_host(f"""{FEW}
program = Program(GUEST)
assert program.run() == 0
limit(resource.RLIMIT_AS, 2**31)
assert_exhausted(program.run, errno.ENOMEM, "memory")
assert_exhausted(Program(GUEST).run, errno.ENOMEM, "memory")
""")


def test_descriptors_to_run() -> None:
    """A program without files needs none."""
    check_host(f"""{FEW}
program = Program(GUEST)
no_descriptors()
assert program.run() == 0
assert Program(GUEST).run() == 0
""")


def test_descriptors_to_preopen() -> None:
    check_host(f"""{FEW}
program = Program(GUEST, preopens={{"/": "/"}})
no_descriptors()
assert_exhausted(program.run, errno.EMFILE, "file descriptors")
assert_exhausted(lambda: Program.from_file("guest.wasm"), errno.EMFILE, "file descriptors")
""")


def test_descriptors_to_wait_on_an_event_loop() -> None:
    """The guest does not get an error that its input did not cause."""
    check_host(f"""{FEW}
import asyncio
READS = b'''(module
 (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
 (memory (export "memory") 1) (data (i32.const 0) "\\\\10\\\\00\\\\00\\\\00\\\\05\\\\00\\\\00\\\\00")
 (func (export "_start")
  (if (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)) (then unreachable))))'''
read, write = os.pipe()
stdin = open(read, "rb", buffering=0)
program = Program(READS, stdin=stdin)
async def main():
    assert await Program(GUEST).run_async() == 0  # so that everything is imported
    no_descriptors()
    await program.run_async()
assert_exhausted(lambda: asyncio.run(main()), errno.EMFILE, "file descriptors")
stdin.close()
""")


AS_NOBODY = f"""{FEW}
import asyncio
asyncio.run(Program(GUEST).run_async())  # so that everything is imported, while this user may read it
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
def no_threads():
    limit(resource.RLIMIT_NPROC, 1)
    try:
        threading.Thread(target=print).start()
    except RuntimeError:
        return
    print("went right to the end")  # the limit does not hold for this user
    os._exit(0)
"""


def test_threads() -> None:
    """Without threads, compiling takes none; interrupting a guest takes one."""
    check_host(f"""{AS_NOBODY}
LARGE = b'(module (memory 1) (func (export "_start"))' + b"(func (drop (i32.load (i32.const 8))))" * 800 + b")"
no_threads()
program = Program(LARGE)
assert_exhausted(program.run, errno.EAGAIN, "threads")
assert_exhausted(lambda: asyncio.run(program.run_async()), errno.EAGAIN, "threads")
""")


def test_threads_to_use_files() -> None:
    check_host(f"""{AS_NOBODY}
program = Program(GUEST, preopens={{"/": "/"}})
no_threads()
assert_exhausted(program.run, errno.EAGAIN, "threads")
""")


def test_on_the_command_line() -> None:
    """All of them have one status, not that of a file that cannot be run."""
    check_host(f"""{FEW}
import subprocess, tempfile
path = os.path.join(tempfile.mkdtemp(), "guest.wat")
with open(path, "wb") as file:
    file.write(GUEST)
def run(*limits):
    command = [sys.executable, "-m", "greenctx", "run", "--no-cache", path]
    ran = subprocess.run(command, preexec_fn=lambda: limit(*limits), capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.count("\\n")) == (134, 1), ran
    return ran.stderr
assert "memory" in run(resource.RLIMIT_AS, 2 * 10**9)
""")


@pytest.mark.parametrize("number", [12, 24, 23, 11, 28])
def test_the_error(number: int) -> None:
    error = ResourcesExhausted(number)
    assert error.errno == number
    assert isinstance(error, OSError)
