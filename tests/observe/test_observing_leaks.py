"""Observing contexts keeps nothing of them alive: neither events, nor dumps of stacks, nor the log do."""

from __future__ import annotations

import logging
from contextlib import suppress

from contexts import go_to_main, in_environment, start, then_main
from leakcheck import assert_no_leak

from greenctx import ContextEntrypointReturned, ContextSwitchingEnvironment, Instrument


def test_events() -> None:
    """Events, errors and a removed instrument keep nothing alive."""

    class Quiet(Instrument):
        def context_ended(self, *_: object) -> None: ...

    def main(env: ContextSwitchingEnvironment) -> None:
        env.destroy_context(start(env, go_to_main(env)))
        env.destroy_context(env.create_context(list))
        with suppress(ValueError):
            start(env, fail)
        with suppress(ContextEntrypointReturned):
            start(env, list)
        start(env, go_to_main(env))

    def fail() -> None:
        raise ValueError("x")

    def scenario() -> None:
        env = ContextSwitchingEnvironment(instruments=[Quiet()])
        env.run_main_context(main, env)

    assert_no_leak(scenario, repeats=20)


def test_dumps() -> None:
    """A dump keeps neither contexts nor frames alive."""

    def main(env: ContextSwitchingEnvironment) -> None:
        start(env, then_main(env, env.format_stacks))
        env.contexts()
        env.format_stacks()

    assert_no_leak(lambda: in_environment(main), repeats=20)


def test_the_log() -> None:
    """A logged error is not held any longer than its environment runs."""

    def fail() -> None:
        raise ValueError("x")

    def main(env: ContextSwitchingEnvironment) -> None:
        with suppress(ValueError):
            start(env, fail)

    logger = logging.getLogger("greenctx")
    handler = logging.NullHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        assert_no_leak(lambda: in_environment(main), repeats=20)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
