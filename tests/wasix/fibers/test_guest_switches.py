"""Switches from guest to guest, which the native part does by itself where it can."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from guests.embedding import IMPORTS, Embedding
from processes import run_python

from greenctx import ContextSwitchingEnvironment
from greenctx._core.switching import COMPILED
from greenctx.wasix import call

PING_PONG = f"""(module {IMPORTS}
  (memory (export "memory") 1)
  (table (export "__indirect_function_table") 1 funcref) (elem (i32.const 0) $other)
  (global $switches (export "switches") (mut i32) (i32.const 0))
  (func $other (loop $again
    (global.set $switches (i32.add (global.get $switches) (i32.const 1)))
    (drop (call $switch (i64.const 0))) (br $again)))
  (func (export "create") (result i64)
    (drop (call $create (i32.const 0) (i32.const 0))) (i64.load (i32.const 0)))
  (func (export "ping") (param $context i64) (param $times i32) (result i32) (local $errno i32)
    (loop $again
      (local.set $errno (i32.or (local.get $errno) (call $switch (local.get $context))))
      (br_if $again (local.tee $times (i32.sub (local.get $times) (i32.const 1)))))
    (local.get $errno)))"""

TIMES = 10_000


@pytest.mark.skipif(not COMPILED, reason="the pure Python path calls Python")
def test_no_python_on_the_way() -> None:
    """Python is called now and then, to handle signals and let other threads run, but not for each switch."""
    embedding = Embedding().load(PING_PONG)
    calls = 0

    def profile(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    def main() -> None:
        context = embedding.call("create")
        embedding.call("ping", context, 1)
        sys.setprofile(profile)
        assert embedding.call("ping", context, TIMES) == 0
        sys.setprofile(None)

    embedding.env.run_main_context(main)
    assert embedding.exports["switches"].value(embedding.store) == TIMES + 1  # type: ignore[union-attr]
    assert calls < TIMES / 10


def test_an_overridden_switch_is_called() -> None:
    """An environment whose class overrides switch_context has that called for each switch of a guest's."""
    seen: list[int] = []

    class Noting(ContextSwitchingEnvironment):
        def switch_context(self, context_id: int) -> None:
            seen.append(context_id)
            super().switch_context(context_id)

    embedding = Embedding().load(PING_PONG)
    embedding.env = Noting()
    embedding.env.run_main_context(lambda: embedding.call("ping", embedding.call("create"), 3))
    assert seen == [1, 0, 1, 0, 1, 0]


def test_within_another_environment() -> None:
    """A guest's contexts belong to the innermost environment; the outer ones do not change."""
    embedding = Embedding().load(PING_PONG)
    outer = ContextSwitchingEnvironment()

    def other() -> None:
        outer.switch_context(0)

    def main() -> None:
        context = outer.create_context(other)
        outer.switch_context(context)
        assert embedding.env.run_main_context(lambda: embedding.call("ping", embedding.call("create"), TIMES)) == 0
        assert outer.active_context_id == 0
        outer.switch_context(context)

    with pytest.raises(Exception, match="context 1"):
        outer.run_main_context(main)


def test_errors_come_out_of_a_switch_in_the_middle() -> None:
    """The error that ends a context after many native switches is raised in main, from the switch that waits there."""
    text = PING_PONG.replace(
        "(drop (call $switch (i64.const 0))) (br $again)",
        "(drop (call $switch (i64.const 0)))"
        f"(br_if $again (i32.lt_u (global.get $switches) (i32.const {TIMES}))) unreachable",
    )
    embedding = Embedding().load(text)

    def main() -> None:
        context = embedding.call("create")
        with pytest.raises(Exception, match="unreachable"):
            embedding.call("ping", context, TIMES + 5)
        assert embedding.exports["switches"].value(embedding.store) == TIMES  # type: ignore[union-attr]
        assert call(embedding.store, embedding.func("create")) == context + 1

    embedding.env.run_main_context(main)


def test_signals_are_handled_in_between() -> None:
    """Also where no epochs end: a guest whose contexts switch to one another for ever is interrupted."""
    ran = run_python(f"""
import signal, sys, threading
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from processes import when_main_waits
from test_guest_switches import PING_PONG, Embedding

embedding = Embedding().load(PING_PONG)

def main():
    context = embedding.call("create")
    when_main_waits(lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM), "poll()")
    embedding.call("ping", context, 0)  # 2**32 times

signal.signal(signal.SIGALRM, signal.default_int_handler)
try:
    embedding.env.run_main_context(main)
except KeyboardInterrupt:
    print("interrupted")
""")
    assert (ran.stdout, ran.stderr, ran.returncode) == ("interrupted\n", "", 0)
