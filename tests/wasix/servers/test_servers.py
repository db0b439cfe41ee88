"""Real servers that load an application, fork, and serve requests in threads: uWSGI and gunicorn."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError

import pytest
from processes import TIMEOUT, need

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION = """
import os, tempfile, threading
import wasmtime
from greenctx.wasix import Limits, Program

DIRECTORY = tempfile.mkdtemp()
LARGE = b'(module (memory 1) (func (export "_start"))' + b'(func (drop (i32.load (i32.const 8))))' * 800 + b')'
OPENS = b'''(module
 (import "wasi_snapshot_preview1" "path_open"
   (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
 (memory (export "memory") 1) (data (i32.const 0) ".")
 (func $check (param i32) (if (local.get 0) (then unreachable)))
 (func (export "_start")
  (call $check (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
    (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 32)))
  (call $check (call $close (i32.load (i32.const 32))))))'''
SPIN = b'(module (func (export "_start") (loop (br 0))))'
TRAPS = [
    b'(module (func (export "_start") unreachable))',
    b'(module (memory 1) (func (export "_start") (drop (i32.load (i32.const -4)))))',
]
traps = [Program(code) for code in TRAPS]
opens = Program(OPENS, preopens={"/": DIRECTORY})
spins = Program(SPIN, limits=Limits(seconds=0.2))
Program(LARGE).run()
opens.run()
loaded_in = os.getpid()

def trap():
    for program in traps:
        try:
            program.run()
        except wasmtime.Trap:
            continue
        return "it did not trap"
    return "trapped"

def limit():
    try:
        spins.run()
    except TimeoutError:
        return "limited"

def run(path):
    assert os.getpid() != loaded_in
    if path == "/compile":
        return f"compiled {Program(LARGE).run()}"
    if path == "/open":
        return f"opened {opens.run()}"
    return {"/trap": trap, "/limit": limit}[path]()

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{run(environ['PATH_INFO'])} {threading.get_ident()} {os.getpid()}".encode()]
"""
EXPECTED = {"/compile": "compiled 0", "/open": "opened 0", "/trap": "trapped", "/limit": "limited"}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def serving(command: list[str], directory: Path, port: int) -> Iterator[None]:
    """Start a server there; wait until it takes connections."""
    (directory / "app.py").write_text(APPLICATION)
    with (directory / "log").open("w+") as log:
        server = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        try:
            end = time.monotonic() + TIMEOUT
            while True:
                assert server.poll() is None, "it has ended"
                assert time.monotonic() < end, "it takes no connections"
                try:
                    socket.create_connection(("127.0.0.1", port), 5).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield
        except Exception as error:
            error.add_note((directory / "log").read_text())
            raise
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def check_requests(port: int) -> None:
    """Every kind of request, several at a time, so that several threads of several processes serve them."""

    def ask(path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
                text: str = answer.read().decode()
        except (HTTPError, URLError, OSError) as error:
            error.add_note(path)
            raise
        return text

    with ThreadPoolExecutor(6) as pool:
        asked = [*EXPECTED] * 8
        answers = [*pool.map(ask, asked)]
    assert [answer.rsplit(" ", 2)[0] for answer in answers] == [EXPECTED[path] for path in asked]
    processes = {answer.rsplit(" ", 1)[1] for answer in answers}
    assert len(processes) <= 2  # none of them died


@pytest.mark.parametrize("threads", [1, 3])
def test_uwsgi(tmp_path: Path, threads: int) -> None:
    """uWSGI blocks all signals in each request's thread but the first, and forks without Python's hooks."""
    uwsgi = Path(sys.executable).with_name("uwsgi")
    if not uwsgi.exists():
        pytest.skip("uwsgi is not installed")
    port = free_port()
    command = [
        str(uwsgi),
        "--http-socket",
        f"127.0.0.1:{port}",
        "--wsgi-file",
        "app.py",
        "--master",
        "--processes",
        "2",
    ]
    command += ["--threads", str(threads), "--die-on-term", "--need-app"]
    command += [option for path in sys.path if path for option in ("--pythonpath", path)]
    with serving(command, tmp_path, port):
        check_requests(port)


@pytest.mark.parametrize("worker", [pytest.param("sync", marks=pytest.mark.long), "gthread", "gevent"])
def test_gunicorn(tmp_path: Path, worker: str) -> None:
    """With ``--preload`` its workers are forks of a process that has compiled programs, and has run them."""
    need("gunicorn")
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "--preload", "--workers", "2", "--threads", "3"]
    command += ["--worker-class", worker, "--bind", f"127.0.0.1:{port}", "app:application"]
    with serving(command, tmp_path, port):
        check_requests(port)
