"""Trace files: what is in them is in test_trace_model.py; here that they are valid whatever happens."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, go_to_main, raises, start, then_main
from processes import TIMEOUT
from trace_events import check_trace

from greenctx import ContextSwitchingEnvironment, GreenctxError, Trace
from greenctx._instruments.resident import resident_bytes
from greenctx._instruments.timeline import Timeline
from greenctx._instruments.trace_file import TAIL
from greenctx.errors import GuestExit
from greenctx.wasix._linking.call_reports import reporting

if TYPE_CHECKING:
    from collections.abc import Callable


def run_traced(path: Path, main: Callable[[ContextSwitchingEnvironment], object]) -> None:
    with Trace(path) as instrument:
        env = ContextSwitchingEnvironment(instruments=[instrument])
        env.run_main_context(main, env)


def switching(times: int) -> Callable[[ContextSwitchingEnvironment], None]:
    """A main that switches so many times, to a context and back."""

    def main(env: ContextSwitchingEnvironment) -> None:
        def entrypoint() -> None:
            while True:
                env.switch_context(MAIN)

        context = env.create_context(entrypoint)
        for _ in range(times // 2):
            env.switch_context(context)

    return main


def test_tracks_are_named_and_in_order(tmp_path: Path) -> None:
    """A process has the name of the trace; a track the context's id and the name of its entrypoint, whatever it is."""

    def named(name: str) -> Callable[[], None]:
        entrypoint = go_to_main(env)
        entrypoint.__name__ = name
        return entrypoint

    names = ['<script>&"\\', "\x1b[31m", "größe ☃", "", "x" * 5000]
    with Trace(tmp_path / "out.json", "prog \u2028 name") as instrument:
        env = ContextSwitchingEnvironment(instruments=[instrument])
        env.run_main_context(lambda: [start(env, named(name)) for name in names])
    events = check_trace(tmp_path / "out.json")
    titles = {event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert titles == {1: "0 main"} | {number + 2: f"{number + 1} {name}" for number, name in enumerate(names)}
    order = {event["tid"]: event["args"]["sort_index"] for event in events if event["name"] == "thread_sort_index"}
    assert order == {number + 1: number for number in range(len(names) + 1)}
    [process] = [event for event in events if event["name"] == "process_name"]
    assert process["args"]["name"] == "prog \u2028 name"


def test_slices_cover_the_whole_run(tmp_path: Path) -> None:
    """At any time exactly one context is active, from the beginning of main to the end of the environment."""
    run_traced(tmp_path / "out.json", switching(1000))
    slices = sorted(
        (event["ts"], event["dur"], event["tid"]) for event in check_trace(tmp_path / "out.json") if event["ph"] == "X"
    )
    assert len(slices) == 1003
    for one, other in itertools.pairwise(slices):
        assert other[0] - (one[0] + one[1]) == pytest.approx(0.001, abs=1e-4)
        assert one[2] != other[2]


def test_slices_have_the_entrypoints_name_and_processor_time(tmp_path: Path) -> None:
    """There is a slice for each time of activity, the last ones of main and of a destroyed context included."""
    run_traced(tmp_path / "out.json", switching(10))
    slices = [event for event in check_trace(tmp_path / "out.json") if event["ph"] == "X"]
    assert {(event["tid"], event["name"]) for event in slices} == {(1, "main"), (2, "entrypoint")}
    assert all(event["tdur"] > 0 for event in slices)
    assert all(one["tts"] <= other["tts"] for one, other in itertools.pairwise(slices))


def test_closed_by_another_thread(tmp_path: Path) -> None:
    """Another thread's processor time says nothing of the environment, so the slice cut off then has none."""

    def main() -> None:
        start(env, go_to_main(env))
        closing = Thread(target=trace.close)
        closing.start()
        closing.join()

    trace = Trace(tmp_path / "out.json")
    env = ContextSwitchingEnvironment(instruments=[trace])
    env.run_main_context(main)
    slices = [event for event in check_trace(tmp_path / "out.json") if event["ph"] == "X"]
    assert [(event["tid"], "tdur" in event) for event in slices] == [(1, True), (2, True), (1, False)]


def test_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many contexts live, whenever that changes; and now and then the memory of the process, if it is known."""

    def main(env: ContextSwitchingEnvironment) -> None:
        env.create_context(list)
        env.destroy_context(start(env, go_to_main(env)))
        with pytest.raises(KeyError):
            start(env, raises(KeyError()))

    memory = iter([None, *range(1000, 2000)])
    monkeypatch.setattr("greenctx._instruments.tracks.resident_bytes", lambda: next(memory))
    monkeypatch.setattr("greenctx._instruments.tracks.SAMPLED", 0)
    run_traced(tmp_path / "out.json", main)
    counters = [event for event in check_trace(tmp_path / "out.json") if event["ph"] == "C"]
    values = [event["args"]["value"] for event in counters if event["name"] == "live contexts"]
    assert [value for value, _ in itertools.groupby(values)] == [1, 2, 1, 2, 1, 0]
    resident = [event["args"]["value"] for event in counters if event["name"] == "resident memory"]
    assert resident == [*range(1000, 1000 + len(values) - 1)]


def test_memory_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of the process is read from /proc; without /proc it is None."""
    if Path("/proc/self/statm").exists():
        before = resident_bytes()
        block = bytearray(os.urandom(2**25))
        after = resident_bytes()
        assert before is not None
        assert after is not None
        assert len(block) / 2 < after - before < len(block) * 2

    def no_such_file(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", no_such_file)
    assert resident_bytes() is None


def test_errors_are_told(tmp_path: Path) -> None:
    """The instant of an error has its repr, cut short; one without a repr does no harm."""

    class Silent(Exception):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    def main(env: ContextSwitchingEnvironment) -> None:
        for error in (ValueError("x" * 1000), Silent()):
            with pytest.raises((ValueError, Silent)):
                start(env, raises(error))
        with pytest.raises(GreenctxError):
            start(env, list)

    run_traced(tmp_path / "out.json", main)
    events = check_trace(tmp_path / "out.json")
    errors = [event["args"]["error"] for event in events if event["name"] == "failed"]
    assert errors == ["ValueError('" + "x" * 288 + "...", "a Silent"]
    assert sum(event["name"] == "returned" for event in events) == 2  # main, too


def test_several_environments(tmp_path: Path) -> None:
    """Each is a process of its own, be they one after the other, nested, or in threads."""
    with Trace(tmp_path / "out.json", "name") as instrument:

        def run(main: Callable[[ContextSwitchingEnvironment], object]) -> None:
            env = ContextSwitchingEnvironment(instruments=[instrument])
            env.run_main_context(main, env)

        def nesting(env: ContextSwitchingEnvironment) -> None:
            start(env, go_to_main(env))
            run(switching(4))
            start(env, go_to_main(env))

        run(switching(10))
        run(nesting)
        threads = [Thread(target=run, args=(switching(3000),)) for _ in range(3)]
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(before)
    events = check_trace(tmp_path / "out.json")
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {1: "name"} | {number: f"name ({number})" for number in range(2, 7)}
    switches = {pid: sum(event["ph"] == "s" and event["pid"] == pid for event in events) for pid in names}
    assert sorted(switches.values()) == [6, 8, 12, 3002, 3002, 3002]


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A trace's memory does not grow with the number of switches, or of ended contexts."""

    def main(env: ContextSwitchingEnvironment) -> None:
        switching(1000)(env)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        switching(20_000)(env)
        for _ in range(2000):
            env.destroy_context(start(env, go_to_main(env)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak - before < 1_000_000

    run_traced(tmp_path / "out.json", main)
    assert (tmp_path / "out.json").stat().st_size > 5_000_000


def test_an_empty_trace_is_valid(tmp_path: Path) -> None:
    """A trace of nothing has an empty array; closing twice is closing once."""
    instrument = Trace(tmp_path / "out.json")
    instrument.close()
    instrument.close()
    assert check_trace(tmp_path / "out.json") == []


def test_it_is_written_to_a_pipe_too(tmp_path: Path) -> None:
    """A file without positions (a pipe, for example) is written in order."""
    pipe, read = tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    run_traced(pipe, switching(2000))
    reader.join()
    (tmp_path / "out.json").write_text(read[0])
    assert sum(event["ph"] == "s" for event in check_trace(tmp_path / "out.json")) == 2002


def test_a_trace_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk ends the trace, not the program; `close` says so."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    instrument = Trace("/dev/full")
    env = ContextSwitchingEnvironment(instruments=[instrument])
    env.run_main_context(switching(2000), env)
    assert "Trace" in caplog.text
    assert "is removed; the program goes on" in caplog.text
    with pytest.raises(OSError, match="No space left"):
        instrument.close()
    instrument.close()
    with pytest.raises(OSError, match="No such file"):
        Trace("/nowhere/out.json")


def test_an_interrupted_write_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If an interruption comes just after lines were written, or in the middle, they are in the file once."""
    instrument = Trace(tmp_path / "out.json")
    write, calls = os.pwrite, list[int]()

    def interrupted(descriptor: int, content: bytes, offset: int) -> int:
        calls.append(offset)
        written = write(descriptor, content[:40_000], offset)
        if len(calls) % 5 < 2:
            raise KeyboardInterrupt
        return written

    monkeypatch.setattr(os, "pwrite", interrupted)
    # So that it does not depend on time how many lines there are, and which of them are written at the end of main.
    monkeypatch.setattr("greenctx._instruments.tracks.SAMPLED", 10**18)
    interruptions = 0

    def main(env: ContextSwitchingEnvironment) -> None:
        nonlocal interruptions
        context = start(env, sleeper)
        for _ in range(3000):
            try:
                env.switch_context(context)
            except KeyboardInterrupt:
                interruptions += 1

    def sleeper() -> None:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                env.switch_context(MAIN)

    env = ContextSwitchingEnvironment(instruments=[instrument])
    with contextlib.suppress(KeyboardInterrupt):  # of the write at its end
        env.run_main_context(main, env)
    for _ in range(100):
        try:
            instrument.close()
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions > 10
    events = check_trace(tmp_path / "out.json")
    flows = [event["id"] for event in events if event["ph"] == "s"]
    assert len(flows) == len(set(flows)) > 5000
    assert [event["tid"] for event in events if event["ph"] == "s"] == [1, 2] * (len(flows) // 2)


def test_host_calls(tmp_path: Path) -> None:
    """A host call is a slice, of which each part is in a time in which its context is active; calls may nest."""

    def outer() -> None:
        inner()
        env.switch_context(MAIN)
        inner()

    def failing() -> None:
        raise KeyError

    def main() -> None:
        context = env.create_context(then_main(env, reporting("host.outer", outer)))
        env.switch_context(context)
        env.switch_context(context)
        with pytest.raises(KeyError):
            reporting("host.failing", failing)()
        with pytest.raises(GuestExit):
            start(env, raises(GuestExit(3)))

    inner = reporting("host.inner", lambda: None)
    with Trace(tmp_path / "out.json") as instrument:
        env = ContextSwitchingEnvironment(instruments=[instrument])
        env.run_main_context(main)
        tracks = instrument._of(env)
        instrument.host_call_ended(env, 0, "whose beginning was not reported", None)
        assert tracks.calls.get(0, []) == []
    events = check_trace(tmp_path / "out.json")
    calls = [(event["name"], event["tid"]) for event in events if event.get("cat") == "host call"]
    assert calls == [
        ("host.inner", 2),
        ("host.outer", 2),
        ("host.inner", 2),
        ("host.outer", 2),
        ("host.failing", 1),
    ]
    instants = [event for event in events if event["name"] in ("host.failing failed", "exited")]
    assert [event["args"] for event in instants] == [{"error": "KeyError()"}, {"status": 3}]


def test_what_is_told_twice_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption just after a switch was written has it told again."""

    def main() -> None:
        context = env.create_context(go_to_main(env))
        write = instrument._file.write

        def interrupted(*lines: str) -> None:
            monkeypatch.undo()
            write(*lines)
            raise KeyboardInterrupt

        monkeypatch.setattr(instrument._file, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            env.switch_context(context)

    with Trace(tmp_path / "out.json") as instrument:
        env = ContextSwitchingEnvironment(instruments=[instrument])
        env.run_main_context(main)
    assert sum(event["ph"] == "s" for event in check_trace(tmp_path / "out.json")) == 2


def test_times_are_never_the_same(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the clock stands still, the order is still that in which things happened."""
    for clock in ("tracks.perf_counter_ns", "tracks.thread_time_ns", "trace.thread_time_ns"):
        monkeypatch.setattr(f"greenctx._instruments.{clock}", lambda: 1_000_000)
    run_traced(tmp_path / "out.json", switching(100))
    check_trace(tmp_path / "out.json")


ENDLESS = """
import sys
from greenctx import *

with Trace(sys.argv[1]) as trace:
    env = ContextSwitchingEnvironment(instruments=[trace])

    def entrypoint():
        while True:
            env.switch_context(0)

    def main():
        context = env.create_context(entrypoint)
        for count in range(10_000_000):
            env.switch_context(context)
            if count == 1000:
                print("ready", flush=True)

    env.run_main_context(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_process_that_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C leaves a whole file. A killed process leaves one that can be drawn, without the last events."""
    path = tmp_path / "out.json"
    command = [sys.executable, "-c", textwrap.dedent(ENDLESS), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == -number
    # The last arrow of a killed process leads to a slice that has not ended, and so is not in the file. And SIGKILL may
    # come in the middle of a write.
    if number == signal.SIGKILL:
        assert path.read_text().count('"ph":"s"') > 100
    else:
        assert sum(event["ph"] == "s" for event in check_trace(path)) > 2000
    assert Timeline.read(path).switches


def test_it_is_whole_at_the_end_of_an_environment(tmp_path: Path) -> None:
    """More environments may follow; each goes on where the one before ended."""
    path = tmp_path / "trace.json"
    with Trace(path) as trace:
        for number in range(1, 4):
            env = ContextSwitchingEnvironment(instruments=[trace])
            env.run_main_context(switching(2), env)
            events = json.loads(path.read_bytes())["traceEvents"]
            assert len({event["pid"] for event in events}) == number
    assert json.loads(path.read_bytes())["traceEvents"] == events
    check_trace(path)


def test_a_trace_that_nobody_closes(tmp_path: Path) -> None:
    """There is a ResourceWarning, and the file is whole, also when an environment has not ended."""
    path = tmp_path / "trace.json"

    def main(env: ContextSwitchingEnvironment) -> None:
        switching(2)(env)

    trace = Trace(path)
    env = ContextSwitchingEnvironment(instruments=[trace])
    env.run_main_context(main, env)
    descriptors = len(os.listdir("/proc/self/fd"))
    del trace
    with pytest.warns(ResourceWarning, match=r"the trace '.*trace\.json' was not closed"):
        del env
    assert len(os.listdir("/proc/self/fd")) == descriptors - 1
    check_trace(path)


def test_a_trace_that_nobody_closes_before_the_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    script = f"""
import sys
from greenctx import *
trace = Trace({str(path)!r})
env = ContextSwitchingEnvironment(instruments=[trace])
def main():
    env.switch_context(env.create_context(lambda: env.switch_context(0)))
    raise SystemExit(3)
env.run_main_context(main)
"""
    ran = subprocess.run([sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True, timeout=TIMEOUT)
    assert ran.returncode == 3
    assert "ResourceWarning: the trace" in ran.stderr
    check_trace(path)


def test_a_process_that_is_killed_in_a_write(tmp_path: Path) -> None:
    """Wherever the write ends, the events before it are drawn."""
    path, torn = tmp_path / "out.json", tmp_path / "torn.json"
    with Trace(path) as trace:
        for _ in range(2):
            before = path.read_bytes()
            env = ContextSwitchingEnvironment(instruments=[trace])
            env.run_main_context(switching(100), env)
    after = path.read_bytes()
    begin = len(before) - len(TAIL)
    assert before.endswith(TAIL.encode())
    assert after[:begin] == before[:begin]
    drawn = len(Timeline.read(path).switches)
    for end in range(begin, begin + 200):
        torn.write_bytes(after[:end] + before[end:])
        assert 0 < len(Timeline.read(torn).switches) < drawn
