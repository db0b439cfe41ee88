"""Which switch is in use. (All other tests hold on both paths: ``GREENCTX_PURE=1 pytest`` runs them on Python's.)"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from processes import TIMEOUT

from greenctx import ContextSwitchingEnvironment
from greenctx._core.switching import COMPILED


def test_the_one_that_was_asked_for() -> None:
    """It is the compiled one (which an install may leave out without a word) unless GREENCTX_PURE says otherwise."""
    assert COMPILED is (os.environ.get("GREENCTX_PURE", "0") in ("", "0"))


@pytest.mark.parametrize(
    ("value", "which"), [(None, "compiled"), ("", "compiled"), ("0", "compiled"), ("1", "pure Python")]
)
def test_version(value: str | None, which: str) -> None:
    """``greenctx --version`` says which."""
    environ = {name: text for name, text in os.environ.items() if name != "GREENCTX_PURE"}
    if value is not None:
        environ["GREENCTX_PURE"] = value
    command = [sys.executable, "-m", "greenctx", "--version"]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    name, number, *rest = ran.stdout.split()
    assert name == "greenctx"
    assert number[0].isdigit()
    assert " ".join(rest) == f"with {which} switches"


@pytest.mark.skipif(not COMPILED, reason="the pure Python path calls Python")
def test_a_plain_switch_calls_no_python() -> None:
    """Of the environment's: only what the contexts themselves are is seen by a profiler."""
    env = ContextSwitchingEnvironment()
    calls: list[str] = []

    def other() -> None:
        while True:
            env.switch_context(0)

    def profile(frame: object, event: str, _: object) -> None:
        if event == "call":
            calls.append(str(frame))

    def main() -> None:
        context = env.create_context(other)
        env.switch_context(context)
        sys.setprofile(profile)
        for _ in range(100):
            env.switch_context(context)
        sys.setprofile(None)

    env.run_main_context(main)
    assert calls == []


def test_a_subclass_may_override_the_switch() -> None:
    """As that of any class of Python's."""
    seen: list[int] = []

    class Noting(ContextSwitchingEnvironment):
        def switch_context(self, context_id: int) -> None:
            seen.append(context_id)
            super().switch_context(context_id)

    env = Noting()
    env.run_main_context(lambda: env.switch_context(env.create_context(lambda: env.switch_context(0))))
    assert seen == [1, 0]
