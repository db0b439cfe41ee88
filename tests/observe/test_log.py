"""The logger ``greenctx``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, go_to_main, raises, start
from processes import run_python

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable


def logged(
    caplog: pytest.LogCaptureFixture, main: Callable[[ContextSwitchingEnvironment], object], level: int = logging.DEBUG
) -> list[str]:
    with caplog.at_level(level, logger="greenctx"):
        env = ContextSwitchingEnvironment()
        env.run_main_context(main, env)
    assert {record.name for record in caplog.records} <= {"greenctx"}
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]


def everything(env: ContextSwitchingEnvironment) -> None:
    context = start(env, go_to_main(env))
    with pytest.raises(ValueError, match="x"):
        start(env, raises(ValueError("x")))
    with pytest.raises(ContextEntrypointReturned):
        start(env, list)
    env.destroy_context(context)


def test_quiet_by_default() -> None:
    """Without logging set up, or with its defaults, nothing is printed."""
    script = """
import logging, sys
from greenctx import *
if len(sys.argv) > 1:
    logging.basicConfig()
env = ContextSwitchingEnvironment()

def main():
    context = env.create_context(lambda: 1 / 0)
    try:
        env.switch_context(context)
    except ZeroDivisionError:
        pass

env.run_main_context(main)
"""
    for arguments in ([], ["configured"]):
        ran = run_python(script, *arguments)
        assert (ran.stdout, ran.stderr, ran.returncode) == ("", "", 0)


def test_at_info_there_is_no_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Above DEBUG nothing is logged, and an environment has no instrument for it."""
    assert logged(caplog, everything, logging.INFO) == []
    assert type(ContextSwitchingEnvironment()) is ContextSwitchingEnvironment


def test_creation_destruction_and_errors(caplog: pytest.LogCaptureFixture) -> None:
    """They are logged at DEBUG, one line each."""
    assert logged(caplog, everything) == [
        "DEBUG context 1 (<lambda>) created",
        "DEBUG context 2 (entrypoint) created",
        "DEBUG context 2 ended with ValueError('x')",
        "DEBUG context 3 (list) created",
        "DEBUG the entrypoint of context 3 returned",
        "DEBUG context 1 destroyed",
    ]


def test_an_error_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    """Where it goes on to, from the cleanup of one context to another and to main, it is not logged again."""

    def failing() -> None:
        try:
            env.switch_context(MAIN)
        finally:
            raise ValueError("cleanup")

    with caplog.at_level(logging.DEBUG, logger="greenctx"):
        env = ContextSwitchingEnvironment()

        def main() -> None:
            context = start(env, failing)
            start(env, lambda: env.destroy_context(context))

        with pytest.raises(ValueError, match="cleanup"):
            env.run_main_context(main)
    errors = [record.getMessage() for record in caplog.records if "ValueError" in record.getMessage()]
    assert errors == ["context 1 ended with ValueError('cleanup')"]
