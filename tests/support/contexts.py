"""Entrypoints, and what else tests do with contexts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from greenctx import ContextSwitchingEnvironment
from greenctx._core.scope import IN_GUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from greenctx._core.scope import Scope

MAIN = ContextSwitchingEnvironment.main_context_id


def state(env: ContextSwitchingEnvironment) -> tuple[int, list[int]]:
    """The ids of the active and of the suspended contexts. (No call of the environment, which would see to them.)"""
    assert env._active is not None
    active = env._active.context_id
    return active, env._registry.suspended_ids(active)


@contextmanager
def guest_code(env: Scope) -> Iterator[None]:
    """What greenctx.wasix does around guest code, which runs on its fiber."""
    chain: list[Any] = [env]
    while chain[-1]._outer is not None:
        chain.append(chain[-1]._outer)
    callers = [one._admitted for one in chain]
    for one in chain:
        one._admitted = IN_GUEST
    try:
        yield
    finally:
        for one, caller in zip(chain, callers, strict=True):
            one._admitted = caller


def suspended(env: ContextSwitchingEnvironment) -> list[int]:
    return state(env)[1]


def go_to_main(env: ContextSwitchingEnvironment) -> Callable[[], None]:
    """An entrypoint that switches to main, and ends quietly if it is destroyed there."""
    return lambda: env.switch_context(MAIN)


def start(env: ContextSwitchingEnvironment, entrypoint: Callable[[], object]) -> int:
    """Create a context and switch to it; it is to come back to main."""
    context_id = env.create_context(entrypoint)
    env.switch_context(context_id)
    return context_id


def then_main(env: ContextSwitchingEnvironment, call: Callable[[], object]) -> Callable[[], None]:
    """An entrypoint that makes the call and switches to main."""

    def entrypoint() -> None:
        call()
        env.switch_context(MAIN)

    return entrypoint


def raises(error: BaseException) -> Callable[[], None]:
    def entrypoint() -> None:
        raise error

    return entrypoint
