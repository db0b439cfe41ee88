"""`contexts` and `format_stacks`: what they show, and where they may be called."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
from functools import wraps
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, go_to_main, start, then_main
from greenlet import getcurrent
from processes import run_python

from greenctx import ContextInfo, ContextSwitchingEnvironment, Instrument
from greenctx._reports.frame_notes import notes

if TYPE_CHECKING:
    from types import FrameType


gevent = pytest.importorskip("gevent")


def states(env: ContextSwitchingEnvironment) -> dict[int, str]:
    return {info.id: info.state for info in env.contexts()}


def test_states(env: ContextSwitchingEnvironment) -> None:
    """Every context that has not ended is told, with its state; the one that asks is active."""
    seen: list[dict[int, str]] = []

    def look_while_unwinding() -> None:
        try:
            env.switch_context(MAIN)
        finally:
            seen.append(states(env))

    def main() -> None:
        context = start(env, look_while_unwinding)
        env.create_context(list)
        start(env, go_to_main(env))
        seen.append(states(env))
        env.destroy_context(context)
        seen.append(states(env))

    env.run_main_context(main)
    assert seen == [
        {0: "active", 1: "suspended", 2: "not started", 3: "suspended"},
        {0: "destroying another", 1: "active", 2: "not started", 3: "suspended"},
        {0: "active", 2: "not started", 3: "suspended"},
    ]


def test_a_victim_that_is_not_active_is_being_destroyed(env: ContextSwitchingEnvironment) -> None:
    """A context whose cleanup switches elsewhere by other means is told apart from a suspended one."""
    seen: list[dict[int, str]] = []

    def entrypoint() -> None:
        try:
            env.switch_context(MAIN)
        finally:
            gevent.sleep(0)

    def main() -> None:
        gevent.spawn(lambda: seen.append(states(env)))
        start(env, entrypoint)
        other = env.create_context(lambda: env.destroy_context(1))
        with pytest.raises(Exception, match="returned"):
            env.switch_context(other)

    env.run_main_context(main)
    assert seen == [{0: "suspended", 1: "active", 2: "destroying another"}]


def test_a_victim_whose_destroyer_was_resumed(env: ContextSwitchingEnvironment) -> None:
    """A victim whose destroyer was resumed is shown as being destroyed: it is neither active nor a target."""
    seen: list[dict[int, str]] = []
    main_greenlet = getcurrent()

    def victim() -> None:
        try:
            env.switch_context(MAIN)
        finally:
            main_greenlet.switch()

    def main() -> None:
        context = start(env, victim)
        destroyer = env.create_context(then_main(env, lambda: env.destroy_context(context)))
        env.switch_context(destroyer)
        seen.append(states(env))

    env.run_main_context(main)
    assert seen == [{0: "active", 1: "being destroyed", 2: "destroying another"}]


def test_notes_above_frames(env: ContextSwitchingEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note on certain code is printed above its frames."""

    def outer(secret: str) -> None:
        inner()
        del secret

    def inner() -> None:
        env.switch_context(MAIN)

    def main() -> str:
        start(env, lambda: outer("xyz"))
        return env.format_stacks()

    monkeypatch.setitem(notes, outer.__code__, lambda frame: f"(with {frame.f_locals['secret']})")
    lines = env.run_main_context(main).splitlines()
    position = lines.index("  (with xyz)")
    assert lines[position + 1].endswith(" in outer")
    assert lines[position - 1].strip() == 'start(env, lambda: outer("xyz"))' or "^" in lines[position - 1]


def test_nothing_is_there_unless_it_runs(env: ContextSwitchingEnvironment) -> None:
    """Before and after the run there are no contexts, and the text says so."""
    assert env.contexts() == []
    assert env.format_stacks() == "the environment has not run yet; it has no contexts\n"
    env.run_main_context(list)
    assert env.contexts() == []
    assert env.format_stacks() == "the environment has ended; it has no contexts\n"


def test_names_ages_and_switches() -> None:
    """Names are those of entrypoints; ages grow; switches are counted where there are instruments."""

    def worker() -> None:
        while True:
            env.switch_context(MAIN)

    def main() -> list[ContextInfo]:
        context = start(env, worker)
        env.switch_context(context)
        env.create_context(list)
        first = env.contexts()
        second = env.contexts()
        assert all(one.age <= other.age for one, other in zip(first, second, strict=True))
        assert first[0].age >= first[1].age >= first[2].age >= 0
        assert [(info.name, info.entrypoint) for info in first] == [("main", None), ("worker", worker), ("list", list)]
        return first

    for instruments, counts in (([], [None, None, None]), ([Instrument()], [2, 2, 0])):
        env = ContextSwitchingEnvironment(instruments=instruments)
        assert [info.switches for info in env.run_main_context(main)] == counts


@pytest.mark.parametrize("instruments", [[], [Instrument()]])
def test_entrypoints_that_wrap_others(instruments: list[Instrument]) -> None:
    """An entrypoint is told as it was given, and named as what it wraps."""

    def inner() -> None:
        pass

    @wraps(inner)
    def entrypoint() -> None:
        inner()

    def main() -> None:
        env.create_context(entrypoint)
        assert [(info.name, info.entrypoint) for info in env.contexts()] == [("main", None), ("inner", entrypoint)]

    env = ContextSwitchingEnvironment(instruments=instruments)
    env.run_main_context(main)


def test_the_stacks_of_all(env: ContextSwitchingEnvironment) -> None:
    """The stack of each context is as in a traceback, from its entrypoint to where it waits; main's from the script."""

    def wait_in_here() -> None:
        env.switch_context(MAIN)  # the first waits

    def worker() -> None:
        wait_in_here()

    def main() -> str:
        start(env, worker)
        env.create_context(worker)
        return env.format_stacks()  # main asks

    text = env.run_main_context(main)
    parts = text.split("context ")
    assert parts[1].startswith("0 (main), active, ")
    assert "in test_the_stacks_of_all\n" in parts[1]
    assert parts[1].rstrip().endswith("return env.format_stacks()  # main asks") or "^^^" in parts[1].splitlines()[-1]
    assert parts[2].startswith("1 (worker), suspended, ")
    lines = parts[2].splitlines()
    functions = [line.rpartition(" in ")[2] for line in lines if line.startswith("  File")]
    expected = ["worker", "wait_in_here"]
    assert functions == expected
    assert "    env.switch_context(MAIN)  # the first waits" in lines
    assert parts[3].startswith("2 (worker), not started, ")
    assert len(parts[3].splitlines()) == 1


def test_frames_of_our_own(env: ContextSwitchingEnvironment) -> None:
    """Dumps leave them out unless asked for them."""

    def main() -> tuple[str, str]:
        return env.format_stacks(), env.format_stacks(own_frames=True)

    short, long = env.run_main_context(main)
    assert "in run_main_context\n" not in short
    assert "in run_main_context\n" in long
    lines = long.splitlines()
    assert all(line in lines for line in short.splitlines() if line.startswith("  File") and "<lambda>" not in line)


def test_asked_by_a_signal_handler(env: ContextSwitchingEnvironment) -> None:
    """A signal handler sees the frame that it interrupted, in whichever context."""
    texts: list[str] = []

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        texts.append(env.format_stacks())

    def interrupted() -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        env.switch_context(MAIN)

    before = signal.signal(signal.SIGUSR2, on_signal)
    try:
        env.run_main_context(lambda: start(env, interrupted))
    finally:
        signal.signal(signal.SIGUSR2, before)
    [text] = texts
    assert "context 0 (main), suspended" in text
    assert "context 1 (interrupted), active" in text
    assert "in interrupted\n    os.kill(os.getpid(), signal.SIGUSR2)\n" in text
    assert "in on_signal\n" in text


def test_asked_by_another_thread(env: ContextSwitchingEnvironment) -> None:
    """Another thread sees the stack of the context that runs, as well as those that wait."""
    texts: list[str] = []

    def ask() -> None:
        texts.append(env.format_stacks())

    def wait_for_the_other_thread() -> None:
        thread = Thread(target=ask)
        thread.start()
        thread.join()
        env.switch_context(MAIN)

    env.run_main_context(lambda: start(env, wait_for_the_other_thread))
    [text] = texts
    main, context = text.split("context 1 ")
    assert "in test_asked_by_another_thread\n" in main
    assert "switch_context" in main
    assert "in wait_for_the_other_thread\n" in context


@pytest.mark.parametrize("instruments", ["", "Instrument()"])
def test_asked_by_other_threads_all_the_time(instruments: str) -> None:
    """While contexts start, switch and end, two threads that ask all the time get answers and do no harm."""
    script = """
    import sys, threading
    from greenctx import *

    env = ContextSwitchingEnvironment(instruments=[INSTRUMENTS])
    ended, answers = threading.Event(), 0

    def ask():
        global answers
        while not ended.is_set():
            for info in env.contexts():
                assert info.id >= 0
            assert "context" in env.format_stacks()
            answers += 1

    def deep(depth):
        if depth:
            deep(depth - 1)
        env.switch_context(0)

    def body():
        while True:
            for depth in range(20):
                deep(depth)

    def main():
        contexts = [env.create_context(body) for _ in range(5)]
        switches = 0
        while answers < 400 or switches < 20_000:
            for context in contexts:
                env.switch_context(context)
                switches += 1
            if switches % 50 == 0:
                env.destroy_context(contexts.pop(0))
                contexts.append(env.create_context(body))
                if switches > 5_000_000:
                    break

    sys.setswitchinterval(1e-5)
    errors = []
    threading.excepthook = lambda args: errors.append(args.exc_value)
    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        env.run_main_context(main)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert not errors, errors
    print("done")
    """
    ran = run_python(textwrap.dedent(script).replace("INSTRUMENTS", instruments))
    assert (ran.stdout, ran.stderr, ran.returncode) == ("done\n", "", 0)


def test_a_deep_stack_is_told(env: ContextSwitchingEnvironment) -> None:
    """A recursion is told in few lines, as in a traceback."""

    def recurse(depth: int) -> None:
        if depth == 0:
            env.switch_context(MAIN)
        else:
            recurse(depth - 1)

    def main() -> str:
        start(env, lambda: recurse(sys.getrecursionlimit() // 2))
        return env.format_stacks()

    text = env.run_main_context(main)
    assert "more times]" in text
    assert len(text.splitlines()) < 150
