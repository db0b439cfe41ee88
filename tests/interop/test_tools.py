"""Trace and profile functions and debuggers follow contexts."""

from __future__ import annotations

import bdb
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from contexts import in_environment
from processes import TIMEOUT

from greenctx import ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

Environment = ContextSwitchingEnvironment


HERE = Path(__file__).name


class Events:
    """Names of this module's functions, as a trace or profile function is told of them."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds
        self.seen: list[tuple[str, str]] = []

    def __call__(self, frame: FrameType, event: str, _arg: object) -> Events | None:
        if Path(frame.f_code.co_filename).name != HERE:
            return None
        if event in self.kinds:
            self.seen.append((event, frame.f_code.co_name))
        return self


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put the trace and profile functions (coverage's, perhaps) back."""
    trace, profile = sys.gettrace(), sys.getprofile()
    try:
        yield
    finally:
        sys.settrace(trace)
        sys.setprofile(profile)


def scenario(env: Environment) -> None:
    def callee() -> None:
        pass

    def entrypoint() -> None:
        callee()
        env.switch_context(0)
        callee()
        env.switch_context(0)

    context = env.create_context(entrypoint)
    env.switch_context(context)
    env.switch_context(context)
    env.destroy_context(context)


EXPECTED = [
    ("call", "entrypoint"),
    ("call", "callee"),
    ("return", "callee"),
    ("call", "callee"),
    ("return", "callee"),
    ("return", "entrypoint"),
]


def test_a_trace_function_follows_contexts() -> None:
    """sys.settrace in main sees the calls and returns in contexts, in the order in which they happen."""
    events = Events("call", "return")
    env = ContextSwitchingEnvironment()
    with undisturbed():
        sys.settrace(events)
        env.run_main_context(scenario, env)
        sys.settrace(None)
    assert [seen for seen in events.seen if seen[1] in ("entrypoint", "callee")] == EXPECTED


def test_a_profile_function_follows_contexts() -> None:
    """sys.setprofile in main sees the calls and returns in contexts, too."""
    events = Events("call", "return")
    env = ContextSwitchingEnvironment()
    with undisturbed():
        sys.setprofile(events)
        env.run_main_context(scenario, env)
        sys.setprofile(None)
    assert [seen for seen in events.seen if seen[1] in ("entrypoint", "callee")] == EXPECTED


def test_a_trace_function_set_in_a_context_traces_that_context() -> None:
    """sys.settrace in a context traces what that context calls from then on, also after a switch away and back."""
    events = Events("call")

    def main(env: Environment) -> None:
        def callee() -> None:
            pass

        def entrypoint() -> None:
            sys.settrace(events)
            callee()
            env.switch_context(0)
            callee()
            sys.settrace(None)
            env.switch_context(0)

        context = env.create_context(entrypoint)
        env.switch_context(context)
        env.switch_context(context)

    with undisturbed():
        in_environment(main)
    assert events.seen.count(("call", "callee")) == 2


def test_breakpoints_stop_in_contexts() -> None:
    """A debugger (bdb) stops at a breakpoint in a context, each time, and sees that context's variables."""
    stops: list[object] = []

    class Debugger(bdb.Bdb):
        def user_line(self, frame: FrameType) -> None:
            if self.break_here(frame):
                stops.append(frame.f_locals["name"])
            self.set_continue()

    def main(env: Environment) -> None:
        def callee(name: str) -> str:
            return name  # the breakpoint

        def entrypoint() -> None:
            for turn in range(2):
                callee(f"context {env.active_context_id}, turn {turn}")
                env.switch_context(0)
            env.switch_context(0)

        one, two = env.create_context(entrypoint), env.create_context(entrypoint)
        for context in (one, two, two, one):
            env.switch_context(context)

    source = Path(__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(source, 1) if text.endswith("return name  # the breakpoint"))
    debugger = Debugger()
    assert debugger.set_break(__file__, line) is None
    with undisturbed():
        debugger.runcall(in_environment, main)
    debugger.clear_all_breaks()
    assert stops == [
        "context 1, turn 0",
        "context 2, turn 0",
        "context 2, turn 1",
        "context 1, turn 1",
    ]


def test_stepping_over_a_switch_comes_back_after_it() -> None:
    """pdb's `next` over a switch_context goes on in the same context after another context has switched back."""
    program = (
        "import greenctx\n"
        "env = greenctx.ContextSwitchingEnvironment()\n"
        "def entrypoint():\n"
        "    breakpoint()\n"
        "    value = 'before the switch'\n"
        "    env.switch_context(0)\n"
        "    value = 'after the switch'\n"
        "    env.switch_context(0)\n"
        "def main():\n"
        "    context = env.create_context(entrypoint)\n"
        "    env.switch_context(context)\n"
        "    print('main runs')\n"
        "    env.switch_context(context)\n"
        "    print('main ends')\n"
        "env.run_main_context(main)\n"
    )
    commands = "until 6\np value\nwhere\nnext\nnext\np value\np env.active_context_id\ncontinue\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=commands,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.index("'before the switch'") < done.stdout.index("main runs")
    assert done.stdout.index("main runs") < done.stdout.index("'after the switch'")
    assert done.stdout.index("'after the switch'") < done.stdout.index("main ends")
