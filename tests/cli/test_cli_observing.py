"""``greenctx run --trace``, ``--stats`` and ``--dump-on-signal``, and ``greenctx timeline``."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from guests.compile import compile_guest
from guests.embedding import IMPORTS
from processes import TIMEOUT, run_greenctx
from trace_events import check_trace

from greenctx.cli import main

CONTEXTS = f"""(module {IMPORTS}
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 4 funcref)
  (elem (i32.const 1) $worker $second $last)
  (func $worker (loop $again (drop (call $switch (i64.const 0))) (br $again)))
  (func $second (drop (call $switch (i64.const 1))) (call $last))
  (func $last LAST)
  (func (export "_start")
    (drop (call $create (i32.const 0) (i32.const 1)))
    (drop (call $create (i32.const 0) (i32.const 2)))
    (drop (call $create (i32.const 0) (i32.const 3)))
    (drop (call $switch (i64.const 1)))
    (drop (call $switch (i64.const 2)))
    (drop (call $destroy (i64.const 1)))
    (drop (call $switch (i64.const 3)))))"""
"""Each context has its turn; LAST is what the last one does."""

SPIN = """
    (i64.store (i32.const 8) (i64.const 0))
    (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))
    (loop $again (br $again))"""


def guest(tmp_path: Path, last: str) -> str:
    path = tmp_path / "guest.wat"
    path.write_text(CONTEXTS.replace("LAST", last))
    return str(path)


def spinning_guest(tmp_path: Path) -> str:
    """The last context says that it is ready, and loops for ever."""
    write = '(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))'
    ready = '(data (i32.const 16) "\\20\\00\\00\\00\\06\\00\\00\\00") (data (i32.const 32) "ready\\n")'
    path = guest(tmp_path, SPIN)
    text = Path(path).read_text().replace("(memory", f"{write} (memory", 1)
    Path(path).write_text(text.replace("(func $last", f"{ready} (func $last", 1))
    return path


@pytest.mark.parametrize(
    ("last", "status", "instant"),
    [
        ("(drop (call $switch (i64.const 0)))", 0, None),
        ("(call $exit (i32.const 7))", 7, ("exited", {"status": 7})),
        ("unreachable", 134, ("failed", None)),
        ("", 129, ("returned", None)),
    ],
    ids=["main returns", "exit in a context", "a trap", "an entrypoint returns"],
)
def test_the_trace_of_a_guest(tmp_path: Path, last: str, status: int, instant: tuple[str, object] | None) -> None:
    """However a program ends, its trace is whole: tracks named from the name section, host calls, and how it ended."""
    out = tmp_path / "out.json"
    ran = run_greenctx("run", "--trace", out, guest(tmp_path, last))
    assert ran.returncode == status
    events = check_trace(out)
    titles = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert titles == {1: "0 main", 2: "1 worker", 3: "2 second", 4: "3 last"}
    [process] = [event for event in events if event["name"] == "process_name"]
    assert process["args"]["name"] == "guest.wat"
    calls = {event["name"] for event in events if event["ph"] == "X" and event["cat"] == "host call"}
    assert calls >= {"wasix_32v1.context_create", "wasix_32v1.context_switch", "wasix_32v1.context_destroy"}
    assert sum(event["name"] == "canceled" and event["tid"] == 2 for event in events) == 1
    if instant is not None:
        [end] = [event for event in events if event["ph"] == "i" and event["name"] == instant[0] and event["tid"] == 4]
        assert instant[1] is None or end["args"] == instant[1]


def test_the_trace_of_a_guest_in_c(tmp_path: Path) -> None:
    """Names are as in the source, static functions and shadow stacks included."""
    out = tmp_path / "out.json"
    for options, mode in (([], "exit-in-context"), (["--shadow-stack", "64KiB"], "exit-in-context")):
        flags = ("-O1", "-Wl,--export=__stack_pointer")
        ran = run_greenctx("run", "--trace", out, *options, compile_guest("endings", *flags), mode, "3")
        assert ran.returncode == 3, ran.stderr
        titles = [event["args"]["name"] for event in check_trace(out) if event["name"] == "thread_name"]
        assert titles == ["0 main", "1 wait_for_ever", "2 exit_in_context"]


def test_ctrl_c_leaves_a_whole_trace(tmp_path: Path) -> None:
    """Ctrl-C in a guest that loops for ever, in a context: status 130, a valid file, and the table."""
    path = spinning_guest(tmp_path)
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "greenctx", "run", "--trace", str(out), "--stats", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert b"contexts: 3 created, 3 at most at a time, 2 destroyed\n" in stderr
    failed = [event for event in check_trace(out) if event["name"] == "failed"]
    assert [event["args"]["error"] for event in failed] == ["KeyboardInterrupt()"] * 2  # in the context, then in main


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_a_trace_that_can_be_read(tmp_path: Path, number: signal.Signals) -> None:
    """After SIGTERM with all that happened; after SIGKILL with what was written by then, none of it here."""
    path = spinning_guest(tmp_path)
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "greenctx", "run", "--trace", str(out), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert [event for event in check_trace(out) if event["name"] == "failed"] != []
    else:
        assert process.returncode == -signal.SIGKILL
        assert json.loads(out.read_text()) == {"traceEvents": []}
    for picture in ("out.html", "out.svg"):
        ran = run_greenctx("timeline", out, "-o", tmp_path / picture)
        assert (ran.returncode, ran.stderr) == (0, b"")


def test_a_trace_that_cannot_be_written(tmp_path: Path) -> None:
    """A place where no file can be is bad usage, with one line; a full disk is one line, and the program's status."""
    ran = run_greenctx("run", "--trace", tmp_path / "no" / "out.json", guest(tmp_path, ""))
    assert ran.returncode == 2
    assert re.fullmatch(
        rb"greenctx: --trace: '.*/no/out.json' cannot be written: No such file or directory\n", ran.stderr
    )
    if Path("/dev/full").exists():
        ran = run_greenctx("run", "--trace", "/dev/full", guest(tmp_path, "(call $exit (i32.const 7))"))
        assert (ran.returncode, ran.stderr) == (7, b"greenctx: the trace is not complete: No space left on device\n")


def test_statistics(tmp_path: Path) -> None:
    """--stats prints a table to stderr, and leaves stdout to the guest."""
    ran = run_greenctx("run", "--stats", guest(tmp_path, "(drop (call $switch (i64.const 0)))"))
    assert (ran.returncode, ran.stdout) == (0, b"")
    lines = ran.stderr.decode().splitlines()
    assert lines[0] == "contexts: 3 created, 3 at most at a time, 3 destroyed"
    assert lines[3].split() == ["context", "switches", "host", "calls", "active", "ms", "processor", "ms", "entrypoint"]
    rows = [line.split() for line in lines[4:]]
    assert [(row[0], row[-1]) for row in rows] == [("0", "main"), ("1", "worker"), ("2", "second"), ("3", "last")]
    switches = [int(row[1]) for row in rows]
    assert lines[1] == f"switches: {sum(switches)}"
    assert lines[2] == f"host calls: {sum(int(row[2]) for row in rows)}"


UNPROVIDED = """(module
  (import "wasix_32v1" "sock_open" (func $open (param i32 i32 i32 i32) (result i32)))
  (import "wasix_32v1" "proc_fork" (func $fork (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func $call (drop (call $open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))))
  (func (export "_start")
    (call $call) (call $call)
    (drop (call $fork (i32.const 0) (i32.const 0)))))"""


def test_verbose(tmp_path: Path) -> None:
    """--verbose prints the first call of each function that greenctx lacks. Without it nothing is printed."""
    path = tmp_path / "guest.wat"
    path.write_text(UNPROVIDED)
    called = [
        f"greenctx: the guest called wasix_32v1.{name}, which greenctx does not provide"
        for name in ("sock_open", "proc_fork")
    ]
    for options, lines in ((["--verbose"], called), ([], [])):
        ran = run_greenctx("run", *options, path)
        assert (ran.returncode, ran.stdout) == (0, b"")
        assert ran.stderr.decode().splitlines() == lines


def test_verbose_ends_with_the_run(tmp_path: Path) -> None:
    """Where a program runs the command line, the logger is as before afterwards."""
    path = tmp_path / "guest.wat"
    path.write_text(UNPROVIDED)
    logger = logging.getLogger("greenctx")
    before = logger.level, [*logger.handlers]
    assert main(["run", "--verbose", str(path)]) == 0
    assert (logger.level, logger.handlers) == before


def test_stacks_on_a_signal(tmp_path: Path) -> None:
    """SIGUSR1 prints the stacks of a guest that loops for ever, again and again, and the program goes on."""
    path = spinning_guest(tmp_path)
    command = [sys.executable, "-m", "greenctx", "run", "--dump-on-signal", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(2):
            process.send_signal(signal.SIGUSR1)
            heads: list[str] = []
            while len(heads) < 3:
                line = process.stderr.readline().decode()
                assert line, "it has ended"
                if line.startswith("context"):
                    heads.append(re.sub(r"[0-9.]+ s old", "s old", line))
            # (Context 1 was destroyed.)
            assert heads == [
                "context 0 (main), suspended, s old:\n",
                "context 2 (second), suspended, s old:\n",
                "context 3 (last), active, s old:\n",
            ] or heads == ["context 0 (main), suspended, s old:\n", "context 3 (last), active, s old:\n"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130


def test_timelines(tmp_path: Path) -> None:
    """A trace is drawn as a page or a picture, as the name of the file says."""
    run_greenctx("run", "--trace", tmp_path / "out.json", guest(tmp_path, "unreachable"))
    for name in ("out.html", "out.svg", "OUT.SVG"):
        ran = run_greenctx("timeline", tmp_path / "out.json", "-o", tmp_path / name)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, b"", b"")
    assert (tmp_path / "out.html").read_text().startswith("<!DOCTYPE html>")
    ElementTree.parse(tmp_path / "out.svg")


@pytest.mark.parametrize(
    ("content", "output", "says"),
    [
        (None, "out.html", "No such file or directory"),
        (b"", "out.html", "it is not in the Trace Event format"),
        (b"\xff\xfe", "out.html", "it is not text"),
        (b"{}", "out.html", "it is not in the Trace Event format"),
        (b"[1]", "out.html", "it is not in the Trace Event format"),
        (b'[{"ph": "M", "pid": 1, "tid": 1}]', "out.html", "it is not a trace of contexts: nothing in it is active"),
        (b'[{"ph": "X"}]', "out.html", "'pid' of an event is missing, not a number of a process or thread"),
        (b"[\n1", "out.pdf", "a timeline is drawn as .html or .svg"),
    ],
)
def test_timelines_of_what_is_none(tmp_path: Path, content: bytes | None, output: str, says: str) -> None:
    """Bad usage: status 2 and one line."""
    if content is not None:
        (tmp_path / "in.json").write_bytes(content)
    ran = run_greenctx("timeline", tmp_path / "in.json", "-o", tmp_path / output)
    assert (ran.returncode, ran.stdout) == (2, b"")
    assert ran.stderr.decode().endswith(f": {says}\n")
    assert ran.stderr.count(b"\n") == 1
    assert not (tmp_path / output).exists()
