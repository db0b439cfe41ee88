"""The end of the process while contexts are suspended: they are unwound, and nothing is printed about it."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest
from processes import run_python

if TYPE_CHECKING:
    import subprocess

PROLOGUE = """
import atexit, os, sys, threading
import greenctx

def suspend(env, count=3):
    def entrypoint():
        try:
            env.switch_context(0)
        finally:
            print("left", env.active_context_id)
    for _ in range(count):
        env.switch_context(env.create_context(entrypoint))
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return run_python(PROLOGUE + textwrap.dedent(program))


LEFT = "left 1\nleft 2\nleft 3\n"


def test_exit_in_main() -> None:
    """sys.exit in main: every context is unwound, and the status is the one asked for."""
    done = run("""
        env = greenctx.ContextSwitchingEnvironment()
        def main():
            suspend(env)
            sys.exit(7)
        env.run_main_context(main)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (7, LEFT, "")


def test_exit_in_a_context() -> None:
    """sys.exit in a context: it goes up through main, and everything is unwound on the way."""
    done = run("""
        env = greenctx.ContextSwitchingEnvironment()
        def main():
            suspend(env)
            env.switch_context(env.create_context(lambda: sys.exit(7)))
        env.run_main_context(main)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (7, LEFT, "")


def test_an_uncaught_exception() -> None:
    """An uncaught exception: stderr shows its traceback, and nothing else."""
    done = run("""
        env = greenctx.ContextSwitchingEnvironment()
        def main():
            suspend(env)
            raise LookupError("from main")
        env.run_main_context(main)
    """)
    assert (done.returncode, done.stdout) == (1, LEFT)
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert done.stderr.endswith("LookupError: from main\n")
    assert done.stderr.count("Traceback") == 1


def test_an_uncaught_exception_of_a_context() -> None:
    """The traceback of an uncaught exception shows where in the context it was raised."""
    done = run("""
        env = greenctx.ContextSwitchingEnvironment()
        def fail():
            raise LookupError("from a context")
        def main():
            suspend(env)
            env.switch_context(env.create_context(fail))
        env.run_main_context(main)
    """)
    assert (done.returncode, done.stdout) == (1, LEFT)
    assert "in fail" in done.stderr
    assert done.stderr.endswith("LookupError: from a context\n")
    assert done.stderr.count("Traceback") == 1


def test_an_environment_in_an_exit_handler() -> None:
    """Environments work while the interpreter runs its exit handlers."""
    done = run("""
        def handler():
            env = greenctx.ContextSwitchingEnvironment()
            env.run_main_context(suspend, env)
        atexit.register(handler)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, LEFT, "")


def test_a_thread_with_an_environment_that_ends_first() -> None:
    """The interpreter waits for a thread, whose contexts are unwound when its main ends."""
    done = run("""
        env = greenctx.ContextSwitchingEnvironment()
        ready, go = threading.Event(), threading.Event()
        def main():
            suspend(env)
            ready.set()
            go.wait()
        threading.Thread(target=env.run_main_context, args=(main,)).start()
        ready.wait()
        go.set()
        sys.exit(7)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (7, LEFT, "")


def test_exit_while_a_daemon_thread_holds_an_environment() -> None:
    """A daemon thread is stopped where it is: its contexts do not run on, nothing crashes, and nothing is printed."""
    done = run("""
        env = greenctx.ContextSwitchingEnvironment()
        ready = threading.Event()
        def main():
            suspend(env)
            ready.set()
            threading.Event().wait()
        threading.Thread(target=env.run_main_context, args=(main,), daemon=True).start()
        ready.wait()
        sys.exit(7)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


@pytest.mark.parametrize("where", ["main", "a context"])
def test_an_environment_that_never_gets_to_its_end(where: str) -> None:
    """Main on an abandoned greenlet: no crash, and no output."""
    done = run(f"""
        from greenlet import getcurrent, greenlet
        first = getcurrent()
        env = greenctx.ContextSwitchingEnvironment()
        def main():
            suspend(env)
            if {where!r} == "main":
                first.switch()
            else:
                env.switch_context(env.create_context(first.switch))
        abandoned = greenlet(env.run_main_context)
        abandoned.switch(main)
        print("at the end")
    """)
    assert done.returncode == 0
    assert done.stdout.startswith("at the end\n")
    assert done.stderr == ""


def test_the_collector_unwinds_no_abandoned_environment() -> None:
    """Main on a greenlet that no code can resume stays where it is, with its contexts: no collector ends it."""
    done = run("""
        from greenlet import getcurrent, greenlet
        first = getcurrent()
        def main(env):
            suspend(env)
            first.switch()
        def abandon():
            env = greenctx.ContextSwitchingEnvironment()
            greenlet(env.run_main_context).switch(main, env)
        abandon()
        import gc
        gc.collect()
        print("at the end")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "at the end\n", "")
