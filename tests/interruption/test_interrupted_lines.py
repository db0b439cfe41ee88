"""A KeyboardInterrupt at single lines of the core that hardly any signal hits.

test_interruption.py tries every point; but with the trace function, which coverage cannot use then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contexts import MAIN, start, state
from interruptions import interrupt_first_call

from greenctx._core import environment
from greenctx._core.context import Context, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from greenctx import ContextSwitchingEnvironment


def unwinds(env: ContextSwitchingEnvironment, log: list[int]) -> Callable[[], None]:
    def entrypoint() -> None:
        try:
            env.switch_context(MAIN)
        finally:
            log.append(env.active_context_id)

    return entrypoint


def test_main_is_interrupted_before_it_starts_another(
    env: ContextSwitchingEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If main is interrupted when it was resumed to start a context, that context is still unstarted, and can start."""
    log: list[int] = []

    def main() -> None:
        env.create_context(unwinds(env, log))
        starter = env.create_context(lambda: env.switch_context(1))
        interrupt_first_call(monkeypatch, Context, "has_started")
        with pytest.raises(KeyboardInterrupt):
            env.switch_context(starter)
        assert state(env) == (0, [1, 2])
        assert list(env._registry.unstarted) == [1]
        env.switch_context(1)

    env.run_main_context(main)
    assert log == [1]


def test_a_context_is_destroyed_before_main_starts_it(
    env: ContextSwitchingEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal's handler may do so when main was resumed to start that context: main goes on."""
    log: list[int] = []
    has_started = Context.has_started

    def handler_is_served(context: Context) -> bool:
        monkeypatch.setattr(Context, "has_started", has_started)
        assert env.destroy_context(1)
        return context.has_started

    def main() -> None:
        env.create_context(unwinds(env, log))
        starter = env.create_context(lambda: env.switch_context(1))
        monkeypatch.setattr(Context, "has_started", property(handler_is_served))
        env.switch_context(starter)
        assert state(env) == (0, [2])

    env.run_main_context(main)
    assert log == []


def test_a_context_is_interrupted_before_its_first_line(
    env: ContextSwitchingEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a context is interrupted before its first line, it has ended, and main gets the interruption."""

    def main() -> None:
        interrupt_first_call(monkeypatch, Context, "run")
        context_id = env.create_context(list)
        with pytest.raises(KeyboardInterrupt):
            env.switch_context(context_id)
        assert state(env) == (0, [])
        assert env.destroy_context(context_id) is False

    env.run_main_context(main)


@pytest.mark.parametrize("main_raises", [False, True], ids=["main returned", "main raised"])
def test_the_end_of_main_is_interrupted_outside_of_any_context(
    env: ContextSwitchingEnvironment, monkeypatch: pytest.MonkeyPatch, main_raises: bool
) -> None:
    """If the end of main is interrupted, every context is destroyed first; the interruption is a cleanup error."""
    error = KeyError()
    log: list[int] = []

    def main() -> None:
        for _ in range(3):
            start(env, unwinds(env, log))
        interrupt_first_call(monkeypatch, Registry, "ids")
        if main_raises:
            raise error

    with pytest.raises(KeyError if main_raises else KeyboardInterrupt):
        env.run_main_context(main)
    assert log == [1, 2, 3]
    if main_raises:
        group = error.__context__
        assert isinstance(group, BaseExceptionGroup)
        assert [type(one) for one in group.exceptions] == [KeyboardInterrupt]


def test_the_errors_of_the_end_are_kept_by_an_interruption(
    env: ContextSwitchingEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the very last step is interrupted, the interruption is raised, with main's error and the others behind it."""
    first, other = KeyError("main"), ValueError("cleanup")

    def cleanup() -> None:
        try:
            env.switch_context(MAIN)
        finally:
            raise other

    def main() -> None:
        start(env, cleanup)
        interrupt_first_call(monkeypatch, environment, "chain_errors")
        raise first

    with pytest.raises(KeyboardInterrupt) as caught:
        env.run_main_context(main)
    assert caught.value.__context__ is first
    group = first.__context__
    assert isinstance(group, ExceptionGroup)
    assert list(group.exceptions) == [other]
