"""The logger ``greenctx``."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, go_to_main, raises, start
from processes import run_python

from greenctx import (
    ContextEntrypointReturned,
    ContextSwitchingEnvironment,
    Instrument,
    NoEnvironment,
    current_environment,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    """Creations, destructions and errors are logged at DEBUG, one line each."""
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


class ContextId(logging.Filter):
    """A filter as in structlog, OpenTelemetry and Django: it adds the id of the active context."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            record.context_id = current_environment().active_context_id
        except NoEnvironment:
            record.context_id = None
        return True


class Broken(logging.Filter):
    def filter(self, _: logging.LogRecord) -> bool:
        raise ValueError("a bug in the filter")


@pytest.fixture
def handler() -> Iterator[logging.Handler]:
    """A handler for filters."""
    logger, handler = logging.getLogger("greenctx"), logging.StreamHandler(io.StringIO())
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class Failing(Instrument):
    def context_switched(self, *_: object) -> None:
        raise ValueError("a bug in the instrument")


def run_failing() -> None:
    """Run to the end in spite of an instrument that fails."""
    env = ContextSwitchingEnvironment(instruments=[Failing()])
    assert env.run_main_context(lambda: env.destroy_context(start(env, go_to_main(env)))) is True


def test_filters_may_ask_who_is_active(caplog: pytest.LogCaptureFixture) -> None:
    """So do the records of an instrument's exception, and the records that the instrument logs itself."""

    class Logging(Instrument):
        def context_switched(self, *_: object) -> None:
            logging.getLogger("mine").warning("switched")

        def environment_ended(self, environment: ContextSwitchingEnvironment) -> None:
            assert environment.active_context_id == MAIN
            logging.getLogger("mine").warning("ended")

    caplog.handler.addFilter(context_id := ContextId())
    try:
        with caplog.at_level(logging.DEBUG, logger="greenctx"):
            env = ContextSwitchingEnvironment(instruments=[Failing(), Logging()])
            env.run_main_context(lambda: env.destroy_context(start(env, go_to_main(env))))
    finally:
        caplog.handler.removeFilter(context_id)
    found = [(getattr(record, "context_id", "?"), record.name, record.levelname) for record in caplog.records]
    assert found == [
        (0, "greenctx", "DEBUG"),  # created
        (1, "greenctx", "ERROR"),
        (1, "mine", "WARNING"),
        (0, "mine", "WARNING"),
        (1, "mine", "WARNING"),
        (0, "mine", "WARNING"),
        (0, "greenctx", "DEBUG"),  # destroyed
        (None, "mine", "WARNING"),
    ]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
def test_whatever_logging_raises_the_program_goes_on(
    handler: logging.Handler, capsys: pytest.CaptureFixture[str], level: int
) -> None:
    """A filter's exception is reported on stderr, as logging itself reports exceptions of its handlers."""
    handler.addFilter(Broken())
    logger, before = logging.getLogger("greenctx"), logging.getLogger("greenctx").level
    logger.setLevel(level)
    try:
        run_failing()
    finally:
        logger.setLevel(before)
    said = capsys.readouterr().err
    assert "a bug in the filter" in said
    assert "a bug in the instrument" in said


def test_it_can_be_told_nowhere(handler: logging.Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    handler.addFilter(Broken())
    for stderr in (None, object()):
        monkeypatch.setattr(sys, "stderr", stderr)
        run_failing()
